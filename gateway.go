package main

// The path of an invocation: a request comes in by one of the routes, goes out
// through the ReverseProxy, and its outcome is counted once.

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// How a request came in: the label route of gateway_requests_total.
const (
	viaFunction = "function"
	viaHeader   = "header"
	viaAlexa    = "alexa"
	viaCustom   = "custom"
	viaSystem   = "system"
	viaNone     = "none"
)

var entries = []string{viaFunction, viaHeader, viaAlexa, viaCustom, viaSystem, viaNone}

const (
	maxURLLen    = 16 << 10 // bytes of a request target; more is 414
	maxHeaderLen = 64 << 10 // bytes of a request's head; more is 431

	// bodyLinger is how long a request that has its answer may go on sending
	// its body. Then its connection is closed.
	bodyLinger = 500 * time.Millisecond

	maxPeeks    = 64 // bodies looked at for Alexa at once, 16 MiB; more is 503
	peekTimeout = 5 * time.Second
)

// A gateway is the http.Handler of everything that comes in.
type gateway struct {
	config         *config
	registry       *registry
	metrics        *metrics
	log            *slog.Logger
	verifier       *alexaVerifier // nil: signatures are not asked for
	forward        *forwarder
	proxy          *httputil.ReverseProxy
	metricsHandler http.Handler
	requests       map[string]func() // counts one by route
	peeks          chan struct{}     // holds a token per body in readAlexa

	draining atomic.Bool
	inflight atomic.Int64 // invocations
}

// idle waits until no invocation is in flight, upgraded connections included,
// which http.Server's Shutdown does not know.
func (g *gateway) idle(ctx context.Context) error {
	for g.inflight.Load() > 0 {
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

func newGateway(c *config, r *registry, up *upstream, m *metrics, log *slog.Logger) *gateway {
	g := &gateway{
		config: c, registry: r, metrics: m, log: log,
		forward:        &forwarder{trusted: c.trustedProxies},
		metricsHandler: m.handler(),
		requests:       map[string]func(){},
		peeks:          make(chan struct{}, maxPeeks),
	}
	for _, kind := range entries {
		g.requests[kind] = m.requests.WithLabelValues(kind).Inc
	}
	g.proxy = &httputil.ReverseProxy{
		Rewrite:        g.rewrite,
		Transport:      up,
		ModifyResponse: g.answered,
		ErrorHandler:   g.failed,
		BufferPool:     &copyBuffers{},
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return g
}

func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Body != http.NoBody {
		// net/http reads what is left of a small body before it sends a
		// refusal. An invocation gets more time.
		http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyLinger))
	}
	if g.draining.Load() && r.Header["Upgrade"] == nil {
		w.Header().Set("Connection", "close") // so that nobody is cut off at the end
	}
	if len(r.RequestURI) > maxURLLen {
		g.requests[viaNone]()
		refuse(w, http.StatusRequestURITooLong, fmt.Sprintf("the URL is longer than %d bytes", maxURLLen))
		return
	}
	if r.URL.RawQuery != "" && !isTarget(r.URL.RawQuery) { // HTTP/2 has no request line to break
		g.requests[viaNone]()
		refuse(w, http.StatusBadRequest, "the URL has a space or a control character in its query")
		return
	}
	if raw := r.URL.RawPath; raw != "" && r.URL.EscapedPath() != raw {
		r = withLegalPath(r)
	}
	// ServeMux would clean the path and redirect; a function sees its path as
	// the caller wrote it. So the gateway's few routes are told apart by hand.
	path := r.URL.EscapedPath()
	switch {
	case strings.HasPrefix(path, "/function/"):
		name, _, _ := strings.Cut(path[len("/function/"):], "/")
		g.byName(w, r, name)
	case path == "/healthz":
		g.requests[viaSystem]()
		g.healthz(w)
	case path == "/metrics", path == "/metrics/":
		g.requests[viaSystem]()
		http.NewResponseController(w).SetWriteDeadline(time.Now().Add(g.config.upstreamTimeout)) // few may ask at once
		g.metricsHandler.ServeHTTP(w, r)
	case reservedPath(r.URL.Path) != nil:
		g.requests[viaNone]()
		refuse(w, http.StatusNotFound, "not found")
	case path == g.config.alexaRoute && path != "/":
		g.byIntent(w, r, false)
	case path == "/" && r.Header["X-Function"] != nil:
		g.byHeader(w, r)
	case path == "/" && g.config.alexaRoute == "/" && r.Method == http.MethodPost:
		g.byIntent(w, r, true)
	default:
		g.byRoute(w, r)
	}
}

// withLegalPath returns r with the bytes escaped that no path may have. Else
// package url drops all escapes of such a path and makes new ones, and %2F
// becomes a slash.
func withLegalPath(r *http.Request) *http.Request {
	var path strings.Builder
	for _, c := range []byte(r.URL.RawPath) {
		if isAlnum(c) || strings.IndexByte("-._~!$&'()*+,;=:@/[]%", c) >= 0 {
			path.WriteByte(c)
		} else {
			fmt.Fprintf(&path, "%%%02X", c)
		}
	}
	legal, u := *r, *r.URL
	u.RawPath = path.String()
	legal.URL = &u
	return &legal
}

// byName invokes the function of a /function/{name} path.
func (g *gateway) byName(w http.ResponseWriter, r *http.Request, name string) {
	f := g.lookup(name)
	if f == nil {
		g.requests[viaFunction]()
		refuseUnknown(w, name)
		return
	}
	inv := &invocation{f: f, kind: viaFunction, path: "/"}
	// So far the path has no escape, as a valid name has none: the same number
	// of bytes is cut from both of its forms.
	cut := len("/function/") + len(name)
	if cut < len(r.URL.Path) {
		inv.path = r.URL.Path[cut:]
	}
	if r.URL.RawPath != "" {
		inv.rawPath = r.URL.RawPath[cut:]
	}
	g.invoke(w, r, inv)
}

func (g *gateway) byHeader(w http.ResponseWriter, r *http.Request) {
	name := r.Header.Get("X-Function")
	f := g.lookup(name)
	if f == nil || len(r.Header["X-Function"]) > 1 {
		g.requests[viaHeader]()
		refuseUnknown(w, name)
		return
	}
	g.invoke(w, r, &invocation{f: f, kind: viaHeader})
}

// byIntent invokes the function that answers an Alexa request. What is no
// Alexa request goes to the functions' own routes, if others are allowed here.
func (g *gateway) byIntent(w http.ResponseWriter, r *http.Request, others bool) {
	if r.Method != http.MethodPost {
		g.requests[viaAlexa]()
		w.Header().Set("Allow", http.MethodPost)
		refuse(w, http.StatusMethodNotAllowed, "only POST requests of the Alexa Skills Kit are answered here")
		return
	}
	if others && (r.ContentLength <= 0 || r.ContentLength > alexaMaxBody) {
		// Amazon says how long its body is. One of unknown length may be a
		// stream whose first part is to be answered before its end comes.
		g.byRoute(w, r)
		return
	}
	req, ok, answered := g.readAlexa(w, r)
	switch {
	case answered:
		return
	case !ok && others:
		g.byRoute(w, r)
		return
	case !ok:
		g.requests[viaNone]()
		refuse(w, http.StatusBadRequest, "only requests of the Alexa Skills Kit are answered here")
		return
	}
	snapshot := g.registry.current.Load()
	name, ok := snapshot.alexa.route(req, func(name string) bool { return snapshot.functions[name] != nil })
	f := snapshot.functions[name]
	if !ok || f == nil {
		g.requests[viaAlexa]()
		if req.kind == "IntentRequest" {
			refuse(w, http.StatusNotFound, "no function for this intent")
		} else {
			refuse(w, http.StatusNotFound, "no function for this skill")
		}
		return
	}
	g.invoke(w, r, &invocation{f: f, kind: viaAlexa})
}

// readAlexa looks for an Alexa request in the body of r, and lets the verifier
// check it. Where that ends in a refusal, r is answered.
//
// Until then nothing is known of the caller and no function's limits hold for
// it. So only maxPeeks bodies are held at once, each for peekTimeout, and for
// as long again as its certificate chain may take.
func (g *gateway) readAlexa(w http.ResponseWriter, r *http.Request) (req alexaRequest, ok, answered bool) {
	select {
	case g.peeks <- struct{}{}:
		defer func() { <-g.peeks }()
	default:
		g.requests[viaNone]()
		w.Header().Set("Retry-After", "1")
		refuse(w, http.StatusServiceUnavailable, fmt.Sprintf("%d other requests are just being read here", maxPeeks))
		return req, false, true
	}
	control := http.NewResponseController(w)
	control.SetReadDeadline(time.Now().Add(peekTimeout))
	req, body, ok, err := peekAlexa(r)
	if !ok {
		control.SetReadDeadline(time.Now().Add(bodyLinger)) // as for every refusal; an invocation sets its own
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		g.requests[viaNone]()
		w.Header().Set("Connection", "close")
		refuse(w, http.StatusRequestTimeout, fmt.Sprintf("the body did not arrive within %s", peekTimeout))
		return req, false, true
	case err != nil:
		g.requests[viaNone]()
		refuse(w, http.StatusBadRequest, "the body could not be read")
		return req, false, true
	case !ok || g.verifier == nil:
		return req, ok, false
	}
	// All of the body is here. A deadline that passed now would be taken for a
	// caller that goes away, while the verifier waits for a download.
	control.SetReadDeadline(time.Time{})
	if err := g.verifier.verify(r.Context(), r.Header, body, req); err != nil {
		g.requests[viaAlexa]()
		g.refuseAlexa(w, r, err)
		return req, false, true
	}
	return req, true, false
}

// byRoute invokes the function that claimed the request's URL.
func (g *gateway) byRoute(w http.ResponseWriter, r *http.Request) {
	snapshot := g.registry.current.Load()
	if m, ok := snapshot.routes.match(r); ok {
		if m.answer != nil {
			g.requests[viaCustom]()
			m.answer.ServeHTTP(w, r)
			return
		}
		g.invoke(w, r, &invocation{f: snapshot.functions[m.name], kind: viaCustom, route: m})
		return
	}
	g.requests[viaNone]()
	if r.URL.Path == "/" {
		refuse(w, http.StatusBadRequest, "send the header X-Function with a function's name, or POST a request of the Alexa Skills Kit; or call /function/NAME")
		return
	}
	refuse(w, http.StatusNotFound, "no function answers at this path")
}

func (g *gateway) lookup(name string) *function {
	if !validName(name) {
		return nil
	}
	return g.registry.function(name)
}

// invoke takes a request through a function and counts how it ended.
func (g *gateway) invoke(w http.ResponseWriter, r *http.Request, inv *invocation) {
	g.requests[inv.kind]()
	g.inflight.Add(1)
	defer g.inflight.Add(-1)
	f := inv.f
	def := f.def.Load()
	inv.start = time.Now()
	inv.deadline = inv.start.Add(def.timeout)
	inv.callID = callID(r.Header)
	inv.request = r.Context()
	f.metrics.started.Inc()
	ctx, end := context.WithCancelCause(invocationContext{inv})
	r = r.WithContext(ctx)
	if err := f.admission.enter(inv.start, def.maxInflight); err != nil {
		defer end(nil)
		g.failed(w, r, err)
		now := time.Now()
		f.metrics.ended(inv.code, now.Sub(inv.start))
		g.logAccess(r, inv, now)
		return
	}
	control := http.NewResponseController(w)
	control.EnableFullDuplex() // a function may answer while it reads
	inv.begin(w, r.Body != http.NoBody, def.timeout, end)
	defer func() {
		// ReverseProxy panics with http.ErrAbortHandler when the answer broke
		// off after its headers.
		broke := recover()
		now := time.Now()
		f.admission.leave(now)
		inv.release()
		if broke != nil {
			inv.code = brokenOff(ctx)
		}
		inv.stop()
		f.metrics.ended(inv.code, now.Sub(inv.start))
		g.logAccess(r, inv, now)
		if inv.unread(r) {
			// The answer does not wait for a caller that is still sending.
			if broke == nil {
				control.Flush()
			}
			control.SetReadDeadline(now.Add(bodyLinger))
		}
		// With full duplex net/http panics if it finds a body still unread
		// after its handler has returned: it then reads while it waits for
		// the next request.
		r.Body.Close()
		if broke != nil {
			panic(broke)
		}
	}()
	g.proxy.ServeHTTP(w, r)
}

func (g *gateway) healthz(w http.ResponseWriter) {
	if g.draining.Load() {
		refuse(w, http.StatusServiceUnavailable, "draining")
		return
	}
	refuse(w, http.StatusOK, "OK")
}

// copyBuffers lends ReverseProxy its buffers.
type copyBuffers struct{ pool sync.Pool }

func (c *copyBuffers) Get() []byte {
	if b, ok := c.pool.Get().(*[32 << 10]byte); ok {
		return b[:]
	}
	return make([]byte, 32<<10)
}

func (c *copyBuffers) Put(b []byte) { c.pool.Put((*[32 << 10]byte)(b)) }
