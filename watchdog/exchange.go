package watchdog

// Mode http: one request on its way to the process, and the answer on its way
// back.

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"strconv"
	"time"

	"faas/internal/transport"
)

// An exchange is one request and its answer, and the ResponseWriter of it.
type exchange struct {
	*reply
	started time.Time
	limit   time.Duration // 0: none
	end     context.CancelCauseFunc
	timer   *time.Timer // calls end at the limit; nil without one
	callID  string
	sent    *sentBody // the body as it is streamed; nil: there is none
	tunnel  *tunnel   // after a switch of protocols
}

type exchangeKey struct{}

func exchangeOf(r *http.Request) *exchange { return r.Context().Value(exchangeKey{}).(*exchange) }

func (u *upstream) serve(w *reply, r *http.Request) {
	x := &exchange{reply: w, started: time.Now(), limit: u.h.limit(r), callID: r.Header.Get("X-Call-Id")}
	ctx, end := context.WithCancelCause(context.WithValue(r.Context(), exchangeKey{}, x))
	defer end(nil)
	x.end = end
	if x.limit > 0 {
		x.timer = time.AfterFunc(x.limit, func() { end(errLimit) })
		defer x.timer.Stop()
	}
	r = r.WithContext(ctx)
	for name := range r.Trailer {
		if !validFieldName(name) || name == "Host" {
			fail(w, http.StatusBadRequest, "a trailer cannot have the name "+strconv.Quote(name))
			return
		}
	}
	if !u.await(ctx) {
		if ctx.Err() != nil {
			failed(x, r, ctx.Err())
			return
		}
		refuse(w, http.StatusServiceUnavailable, "the process cannot be started now")
		return
	}
	w.fullDuplex() // the process may answer while it reads
	if w.body != nil {
		whole, rest, ok := arrived(r, w.body)
		if ok {
			r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(whole)), nil }
			r.Body, _ = r.GetBody()
		} else {
			x.sent = &sentBody{Reader: rest, body: w.body, ctx: ctx}
		}
	}
	defer func() {
		if x.tunnel != nil {
			x.tunnel.stop()
		}
	}()
	u.proxy.ServeHTTP(x, r)
}

// rewrite sends the request as it came, with what is left of the limit. Whose
// proxies the caller trusts was decided before this one.
func (u *upstream) rewrite(pr *httputil.ProxyRequest) {
	x := exchangeOf(pr.In)
	pr.SetURL(u.target)
	pr.Out.Host = pr.In.Host
	if x.sent != nil {
		pr.Out.Body = x.sent // the proxy's own would keep Close from it
	}
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if v, ok := pr.In.Header[name]; ok {
			pr.Out.Header[name] = v
		}
	}
	pr.Out.Header = unfolded(pr.Out.Header)
	pr.Out.URL.RawQuery = pr.In.URL.RawQuery // even what does not parse
	pr.Out.Trailer = pr.In.Trailer           // filled in when the body has been read; a clone stays empty
	delete(pr.Out.Header, "Expect")          // net/http tells the client to go on when its body is read
	if x.limit > 0 {
		pr.Out.Header["X-Timeout"] = []string{max(x.limit-time.Since(x.started), 0).String()}
	}
}

// modifyResponse is called with the process's answer.
func modifyResponse(resp *http.Response) error {
	x := exchangeOf(resp.Request)
	resp.Header.Set("X-Duration-Seconds", strconv.FormatFloat(time.Since(x.started).Seconds(), 'f', 6, 64))
	return nil
}

// failed answers when the process did not.
func failed(w http.ResponseWriter, r *http.Request, err error) {
	x := exchangeOf(r)
	log := x.h.log.With("call_id", x.callID)
	cause := context.Cause(r.Context())
	var dial *net.OpError
	switch {
	case errors.Is(cause, errLimit):
		log.Warn("invocation failed", "error", cause)
		fail(w, http.StatusGatewayTimeout, "function exceeded its limit of "+x.limit.String())
	case x.body != nil && x.body.failed() != nil: // before the cause: for net/http the client is gone then
		log.Warn("cannot read body", "error", x.body.failed())
		fail(w, http.StatusBadRequest, "cannot read the request body")
	case cause != nil && !x.sent.wasCut():
		log.Warn("invocation failed", "error", errGone)
		panic(http.ErrAbortHandler)
	case errors.Is(err, transport.ErrInvalidRequest):
		log.Warn("cannot pass the request on", "error", err)
		fail(w, http.StatusBadRequest, "the request cannot be passed on")
	case errors.As(err, &dial) && dial.Op == "dial":
		log.Warn("process does not accept", "error", err)
		refuse(w, http.StatusServiceUnavailable, "the process cannot be started now")
	default:
		log.Warn("invocation failed", "error", err)
		fail(w, http.StatusBadGateway, "function broke off")
	}
}
