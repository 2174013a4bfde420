package watchdog

// Mode http: one process that is an HTTP server, kept running and proxied to.

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strconv"
	"sync"
	"time"
)

const (
	dialTimeout   = time.Second
	probeInterval = 10 * time.Millisecond // between looks whether the process accepts
	upIdle        = 512                   // connections kept to the process
	steadyAfter   = 10 * time.Second      // a process that ran so long is started again at once
)

// An upstream is the process, and the way to it.
type upstream struct {
	h      *Handler
	target *url.URL
	proxy  *httputil.ReverseProxy

	mu    sync.Mutex
	up    bool
	first chan struct{} // closed when the first process is up, or has failed
	once  sync.Once
}

func newUpstream(h *Handler) (*upstream, error) {
	target, err := url.Parse(h.cfg.UpstreamURL)
	if err != nil {
		return nil, err
	}
	u := &upstream{h: h, target: target, first: make(chan struct{})}
	u.proxy = &httputil.ReverseProxy{
		Rewrite: u.rewrite,
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
			MaxIdleConns:        upIdle,
			MaxIdleConnsPerHost: upIdle,
			IdleConnTimeout:     idleTimeout,
			DisableCompression:  true,
		},
		ModifyResponse: succeed,
		ErrorHandler:   u.fail,
		BufferPool:     (*proxyBuffers)(h),
		ErrorLog:       slog.NewLogLogger(h.log.Handler(), slog.LevelWarn),
	}
	return u, nil
}

// proxyBuffers lends the handler's buffers to the proxy.
type proxyBuffers Handler

func (p *proxyBuffers) Get() []byte { return (*(*Handler)(p).buffer())[:bufferSize] }

func (p *proxyBuffers) Put(b []byte) { (*Handler)(p).recycle(&b) }

// proxied is what a request carries in its context.
type proxied struct {
	started time.Time
	limit   time.Duration
}

type proxiedKey struct{}

func (u *upstream) serve(w http.ResponseWriter, r *http.Request) {
	limit := u.h.limit(r)
	ctx := context.WithValue(r.Context(), proxiedKey{}, proxied{time.Now(), limit})
	if limit > 0 {
		timed, cancel := context.WithTimeoutCause(ctx, limit, errLimit)
		defer cancel()
		ctx = timed
	}
	r = r.WithContext(ctx)
	if !u.await(ctx) {
		if err := ctx.Err(); err != nil {
			u.fail(w, r, err)
			return
		}
		refuse(w, http.StatusServiceUnavailable, "the process cannot be started now")
		return
	}
	control := http.NewResponseController(w)
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = newTimedReader(ctx, r, control, u.h.cfg.ReadTimeout)
	}
	if u.h.cfg.WriteTimeout > 0 {
		timed := &timedWriter{w, control, u.h.cfg.WriteTimeout}
		defer timed.renew() // for the end of the answer, which net/http writes
		w = timed
	}
	u.proxy.ServeHTTP(w, r)
}

// await waits for the very first process to come up, so that a replica which
// has just been started answers its first callers late and not with an error.
// Later it only reports whether the process is up.
func (u *upstream) await(ctx context.Context) bool {
	if u.isUp() {
		return true
	}
	select {
	case <-u.first:
	case <-ctx.Done():
	}
	return u.isUp()
}

func (u *upstream) isUp() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.up
}

func (u *upstream) setUp(up bool) {
	u.mu.Lock()
	u.up = up
	u.mu.Unlock()
	u.once.Do(func() { close(u.first) })
}

// rewrite sends the request as it came, with what is left of the limit. Whose
// proxies the caller trusts was decided before this one.
func (u *upstream) rewrite(pr *httputil.ProxyRequest) {
	pr.SetURL(u.target)
	pr.Out.Host = pr.In.Host
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if v, ok := pr.In.Header[name]; ok {
			pr.Out.Header[name] = v
		}
	}
	pr.Out.URL.RawQuery = pr.In.URL.RawQuery // even what does not parse
	if p := pr.In.Context().Value(proxiedKey{}).(proxied); p.limit > 0 {
		pr.Out.Header["X-Timeout"] = []string{max(p.limit-time.Since(p.started), 0).String()}
	}
}

func succeed(resp *http.Response) error {
	p := resp.Request.Context().Value(proxiedKey{}).(proxied)
	resp.Header.Set("X-Duration-Seconds", strconv.FormatFloat(time.Since(p.started).Seconds(), 'f', 6, 64))
	return nil
}

// fail answers when the process did not.
func (u *upstream) fail(w http.ResponseWriter, r *http.Request, err error) {
	callID := r.Header.Get("X-Call-Id")
	var dial *net.OpError
	switch cause := context.Cause(r.Context()); {
	case errors.Is(cause, errLimit):
		u.h.log.Warn("invocation failed", "call_id", callID, "error", cause)
		limit := r.Context().Value(proxiedKey{}).(proxied).limit
		http.Error(w, "function exceeded its limit of "+limit.String(), http.StatusGatewayTimeout)
	case cause != nil:
		u.h.log.Warn("invocation failed", "call_id", callID, "error", errGone)
		panic(http.ErrAbortHandler)
	case errors.As(err, &dial) && dial.Op == "dial":
		u.h.log.Warn("process does not accept", "call_id", callID, "error", err)
		refuse(w, http.StatusServiceUnavailable, "the process cannot be started now")
	default:
		u.h.log.Warn("invocation failed", "call_id", callID, "error", err)
		http.Error(w, "function broke off", http.StatusBadGateway)
	}
}

// run keeps the process running until ctx is done, and ends it then.
func (u *upstream) run(ctx context.Context) {
	backoff := minBackoff
	for ctx.Err() == nil {
		started := time.Now()
		err := u.runOnce(ctx)
		u.setUp(false)
		if ctx.Err() != nil {
			return
		}
		if time.Since(started) > steadyAfter {
			backoff = minBackoff
		}
		u.h.log.Error("process is lost", "error", err, "after", time.Since(started), "retry_in", backoff)
		pause(ctx, nil, backoff)
		backoff = min(2*backoff, maxBackoff)
	}
}

// runOnce runs the process once, and says why it ended.
func (u *upstream) runOnce(ctx context.Context) error {
	w := u.h.wiring(nil, true)
	w.stdout = os.Stdout
	w.combine = false
	p, err := u.h.program.start(u.h.environ, w, &u.h.family)
	if err != nil {
		return err
	}
	p.attach()
	defer p.release()
	stop := context.AfterFunc(ctx, p.terminate)
	defer stop()
	var logged sync.WaitGroup
	if p.stderr != nil {
		logged.Go(func() { logLines(u.h.log, p.stderr, "") })
	}
	if u.awaitAccept(ctx, p.done) {
		u.setUp(true)
		u.h.log.Info("process is up", "pid", p.pid, "upstream", u.target.String())
	}
	<-p.done
	logged.Wait()
	if code := exitError(p.exitCode()); code != 0 {
		return code
	}
	return errors.New("exited")
}

// awaitAccept waits until the process accepts connections, and reports whether
// it does.
func (u *upstream) awaitAccept(ctx context.Context, ended <-chan struct{}) bool {
	address := u.target.Host
	if u.target.Port() == "" {
		address = net.JoinHostPort(u.target.Hostname(), "80")
	}
	d := net.Dialer{Timeout: dialTimeout}
	for {
		if c, err := d.DialContext(ctx, "tcp", address); err == nil {
			c.Close()
			return true
		}
		pause(ctx, ended, probeInterval)
		select {
		case <-ended:
			return false
		case <-ctx.Done():
			return false
		default:
		}
	}
}

// timedWriter is a response writer with a deadline for each write and flush.
type timedWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	timeout time.Duration
}

func (t *timedWriter) Write(b []byte) (int, error) {
	t.renew()
	return t.ResponseWriter.Write(b)
}

func (t *timedWriter) FlushError() error {
	t.renew()
	return t.control.Flush()
}

func (t *timedWriter) renew() { t.control.SetWriteDeadline(time.Now().Add(t.timeout)) }

func (t *timedWriter) Unwrap() http.ResponseWriter { return t.ResponseWriter }
