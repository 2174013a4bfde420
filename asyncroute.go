package main

// Calls that run later: /async-function/ is passed on to the program that -async
// names, which keeps them and invokes their functions here in its own time.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const (
	viaAsync    = "async"
	asyncPrefix = "/async-function/"

	// asyncDeadline bounds a request that is passed on. The other end gives a
	// body a minute, and says so itself.
	asyncDeadline = 90 * time.Second

	maxIdleAsync     = 256
	asyncIdleTimeout = time.Minute // less than the other end keeps a connection
)

// An asyncRoute passes requests on.
type asyncRoute struct {
	proxy    *httputil.ReverseProxy
	deadline time.Duration // of one request
	log      *slog.Logger
	away     atomic.Bool // the other end did not answer last time
}

// newAsyncRoute makes the way to the program at to, which has no path.
func newAsyncRoute(to *url.URL, forward *forwarder, log *slog.Logger) *asyncRoute {
	a := &asyncRoute{deadline: asyncDeadline, log: log}
	a.proxy = &httputil.ReverseProxy{
		Rewrite: func(pr *httputil.ProxyRequest) {
			pr.Out.URL.Scheme, pr.Out.URL.Host = to.Scheme, to.Host
			pr.Out.URL.RawQuery = pr.In.URL.RawQuery // ReverseProxy drops what url.ParseQuery does not take
			pr.Out.Header.Set("X-Call-Id", callID(pr.In.Header))
			pr.Out.Header.Set("X-Start-Time", strconv.FormatInt(time.Now().UnixNano(), 10))
			forward.set(pr.Out.Header, pr.In, "")
		},
		Transport: &http.Transport{
			// No Proxy of the environment: this is about the next program.
			DialContext:            newDialer().DialContext,
			MaxIdleConnsPerHost:    maxIdleAsync,
			IdleConnTimeout:        asyncIdleTimeout,
			DisableCompression:     true,
			MaxResponseHeaderBytes: maxAnswerHead,
		},
		ModifyResponse: a.modifyResponse,
		ErrorHandler:   a.failed,
		BufferPool:     &copyBuffers{},
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return a
}

// close ends the connections that are kept.
func (a *asyncRoute) close() { a.proxy.Transport.(*http.Transport).CloseIdleConnections() }

// later answers everything below /async-function/. path is the request's,
// escaped.
func (g *gateway) later(w http.ResponseWriter, r *http.Request, path string) {
	g.requests[viaAsync]()
	if g.async == nil {
		refuse(w, r, http.StatusNotImplemented, "this gateway takes no asynchronous calls: start faas-async, and the gateway with its URL, as in -async http://127.0.0.1:8081")
		return
	}
	name, _, deeper := strings.Cut(path[len(asyncPrefix):], "/")
	if (deeper || !asksAboutCall(r.Method)) && g.lookup(name) == nil {
		refuseUnknown(w, r, name)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), g.async.deadline)
	defer cancel()
	control := http.NewResponseController(w)
	late := time.Now().Add(g.async.deadline + lateBy)
	control.SetReadDeadline(late)
	control.SetWriteDeadline(late)
	g.async.pass(w, r.WithContext(ctx))
}

// pass passes r, which is not used for anything else, on to faas-async.
func (a *asyncRoute) pass(w http.ResponseWriter, r *http.Request) {
	if r.Body != http.NoBody {
		r.Body = &asyncBody{ReadCloser: r.Body}
	}
	a.proxy.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), asyncCallerKey{}, asyncCaller{w, r})))
}

// asksAboutCall reports whether a request with this method for one segment may be
// about a call, whose ID only the other end knows.
func asksAboutCall(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodDelete
}

// An asyncCaller is whom a request that is passed on came from. ReverseProxy keeps
// w to itself, and wraps the body of r.
type asyncCaller struct {
	w http.ResponseWriter
	r *http.Request
}

type asyncCallerKey struct{}

func asyncCallerOf(r *http.Request) asyncCaller {
	return r.Context().Value(asyncCallerKey{}).(asyncCaller)
}

func (a *asyncRoute) modifyResponse(resp *http.Response) error {
	caller := asyncCallerOf(resp.Request)
	if body, ok := caller.r.Body.(*asyncBody); ok && !body.ended.Load() {
		settleBody(caller.w, caller.r) // the answer is a refusal
	}
	if a.away.Load() && a.away.Swap(false) {
		a.log.Info("asynchronous calls are taken again")
	}
	return nil
}

// failed answers a request that the other end did not.
func (a *asyncRoute) failed(w http.ResponseWriter, r *http.Request, err error) {
	r = asyncCallerOf(r).r
	body, sent := r.Body.(*asyncBody)
	switch {
	case sent && body.failed.Load():
		refuse(w, r, http.StatusBadRequest, "the body could not be read")
		return
	case errors.Is(r.Context().Err(), context.Canceled):
		panic(http.ErrAbortHandler) // the caller is gone; returning would answer with an empty 200
	}
	if !a.away.Swap(true) {
		a.log.Warn("the program at -async does not answer: asynchronous calls are refused", "error", err)
	}
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(lateBy))
	w.Header().Set("Retry-After", "1")
	refuse(w, r, http.StatusServiceUnavailable, "asynchronous calls cannot be taken now")
}

// An asyncBody is a request's body that tells whether it has been read to its end, or
// its caller broke it off.
type asyncBody struct {
	io.ReadCloser
	ended, failed atomic.Bool
}

func (b *asyncBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	switch {
	case err == io.EOF:
		b.ended.Store(true)
	case err != nil && !errors.Is(err, http.ErrBodyReadAfterClose):
		b.failed.Store(true)
	}
	return n, err
}

// parseAsyncURL parses the value of -async.
func parseAsyncURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil ||
		strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("%q is not a URL without a path, such as http://127.0.0.1:8081", s)
	}
	if u.Port() != "" {
		if _, err := net.LookupPort("tcp", u.Port()); err != nil {
			return nil, fmt.Errorf("%q: port %s is none", s, u.Port())
		}
	}
	return u, nil
}

// asyncCalls passes on what is below /system/async/: the queue and its dead
// letters. The other end has the gateway's login; one that may look alone is not
// known there, so that the gateway shows its own.
func (a *api) asyncCalls(w http.ResponseWriter, r *http.Request, call *apiCall) error {
	if a.async == nil {
		return &apiError{http.StatusNotImplemented, "this gateway has no asynchronous calls: there is no -async"}
	}
	call.subject = r.PathValue("rest")
	r = r.Clone(r.Context())
	if user, password, err := a.auth.Credentials(); err == nil && call.Reads {
		r.SetBasicAuth(user, password)
	}
	http.NewResponseController(w).SetReadDeadline(time.Now().Add(apiBodyTime))
	a.async.pass(w, r)
	return nil
}
