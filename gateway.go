package main

// The path of an invocation: a request comes in by one of the routes, goes out
// through the ReverseProxy, and its outcome is counted once.

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"faas/internal/alexa"
	"faas/internal/wire"
)

// The ways in other than routeKinds, see entries.
const (
	viaFunction = "function"
	viaHeader   = "header"
	viaSystem   = "system"
	viaNone     = "none"
)

const (
	// The methods of RFC 9110 and RFC 5789 that reach a function. Any other method
	// except CONNECT does, too.
	allButConnect = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE"

	maxURLLen    = 16 << 10 // bytes of a request target; more is 414
	maxHeaderLen = 64 << 10 // bytes of a request's head; more is 431
)

// A gateway is the http.Handler for all requests.
type gateway struct {
	config         *config
	registry       *registry
	metrics        *metrics
	log            *slog.Logger
	verifier       *alexa.Verifier // nil: signatures are not asked for
	forward        *forwarder
	proxy          *httputil.ReverseProxy
	api            http.Handler
	page           http.Handler // of /ui/
	metricsHandler http.Handler
	async          *asyncRoute       // nil: there are no asynchronous calls
	requests       map[string]func() // counts one by route
	peeks          chan struct{}     // holds a token per body in readAlexa

	// base is the root of all requests' contexts. cutOff ends it, and with it
	// what is in flight, upgraded connections included.
	base   context.Context
	cutOff context.CancelFunc

	draining atomic.Bool
	inflight atomic.Int64 // invocations
}

// idle waits until no invocation is in flight, including upgraded connections,
// which http.Server's Shutdown does not track.
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
	g.base, g.cutOff = context.WithCancel(context.Background())
	if c.async != nil {
		g.async = newAsyncRoute(c.async, g.forward, log)
		context.AfterFunc(g.base, g.async.close)
	}
	for _, kind := range entries() {
		g.requests[kind] = m.requests.WithLabelValues(kind).Inc
	}
	g.proxy = &httputil.ReverseProxy{
		Rewrite:        g.rewrite,
		Transport:      up,
		ModifyResponse: g.modifyResponse,
		ErrorHandler:   g.failed,
		BufferPool:     &copyBuffers{},
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return g
}

func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if g.draining.Load() && r.Header["Upgrade"] == nil {
		w.Header().Set("Connection", "close") // so that no caller is cut off at the end
	}
	if len(r.RequestURI) > maxURLLen {
		g.requests[viaNone]()
		refuse(w, r, http.StatusRequestURITooLong, fmt.Sprintf("the URL is longer than %d bytes", maxURLLen))
		return
	}
	if reason := unsendable(r); reason != "" {
		g.requests[viaNone]()
		g.metrics.refused(reason)
		refuse(w, r, http.StatusBadRequest, "bad request: "+reason)
		return
	}
	if raw := r.URL.RawPath; raw != "" && r.URL.EscapedPath() != raw {
		r = withLegalPath(r)
	}
	if r.Method == http.MethodConnect {
		// A function's 200 would be taken for a tunnel.
		g.requests[viaNone]()
		w.Header().Set("Allow", allButConnect)
		refuse(w, r, http.StatusMethodNotAllowed, "there are no tunnels here: CONNECT is not answered")
		return
	}
	// ServeMux would clean the path and redirect, but a function must see its path
	// as the caller wrote it. So a switch selects the gateway's few routes.
	path := r.URL.EscapedPath()
	switch {
	case strings.HasPrefix(path, "/function/"):
		name, _, _ := strings.Cut(path[len("/function/"):], "/")
		g.byName(w, r, name)
	case strings.HasPrefix(path, asyncPrefix):
		g.later(w, r, path)
	case strings.HasPrefix(path, "/system/"):
		g.requests[viaSystem]()
		g.api.ServeHTTP(w, r)
	case path == "/ui", strings.HasPrefix(path, "/ui/"):
		g.requests[viaSystem]()
		settleBody(w, r)
		g.page.ServeHTTP(w, r)
	case path == "/healthz":
		g.requests[viaSystem]()
		g.healthz(w, r)
	case path == "/metrics", path == "/metrics/":
		g.requests[viaSystem]()
		settleBody(w, r)
		http.NewResponseController(w).SetWriteDeadline(time.Now().Add(g.config.upstreamTimeout)) // few may ask at once
		g.metricsHandler.ServeHTTP(w, r)
	case reservedPath(r.URL.Path) != nil:
		g.requests[viaNone]()
		refuse(w, r, http.StatusNotFound, "not found")
	case path == "/" && r.Header["X-Function"] != nil:
		g.byHeader(w, r)
	default:
		for _, k := range routeKinds {
			if k.serve(g, w, r, path) {
				return
			}
		}
		g.requests[viaNone]()
		if r.URL.Path == "/" {
			refuse(w, r, http.StatusBadRequest, "send the header X-Function with a function's name, or POST a request of the Alexa Skills Kit; or call /function/NAME")
			return
		}
		refuse(w, r, http.StatusNotFound, "no function answers at this path")
	}
}

// withLegalPath returns r with invalid bytes in its path escaped. Otherwise package
// url drops all escapes of such a path and makes new ones, and %2F becomes a slash.
func withLegalPath(r *http.Request) *http.Request {
	var path strings.Builder
	for _, c := range []byte(r.URL.RawPath) {
		if isPathByte(c) {
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

// isPathByte reports whether c is valid in a path, including the percent sign of an
// escape.
func isPathByte(c byte) bool {
	return isAlnum(c) || strings.IndexByte("-._~!$&'()*+,;=:@/[]%", c) >= 0
}

// byName invokes the function of a /function/{name} path.
func (g *gateway) byName(w http.ResponseWriter, r *http.Request, name string) {
	f := g.lookup(name)
	if f == nil {
		g.requests[viaFunction]()
		refuseUnknown(w, r, name)
		return
	}
	inv := &invocation{f: f, kind: viaFunction, path: "/", prefix: "/function/" + name}
	// The prefix has no escape, as a valid name has none: the same number of bytes
	// is cut from both forms of the path.
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
		refuseUnknown(w, r, name)
		return
	}
	g.invoke(w, r, &invocation{f: f, kind: viaHeader})
}

func (g *gateway) lookup(name string) *function {
	return g.registry.named(name)
}

// invoke sends a request to a function and counts its outcome.
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
	inv.expects = r.Header["Expect"] != nil
	if b, ok := r.Body.(*restoredBody); ok {
		inv.bodyHere = b.end == io.EOF
	}
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
	if !f.stirs.Load() {
		f.stir()
	}
	control := http.NewResponseController(w)
	control.EnableFullDuplex() // a function may answer while it reads
	inv.begin(w, r.Body != http.NoBody && !inv.bodyHere, def.timeout, end)
	defer func() {
		// ReverseProxy panics with http.ErrAbortHandler if the response broke off
		// after its headers.
		broke := recover()
		now := time.Now()
		f.admission.leave(now)
		inv.release()
		switch {
		case broke != nil:
			inv.code = brokenOff(ctx)
		case inv.conn != nil:
			inv.err = cmp.Or(inv.err, inv.conn.settle(context.Cause(ctx)))
		}
		inv.stop()
		f.metrics.ended(inv.code, now.Sub(inv.start))
		g.logAccess(r, inv, now)
		if inv.unread(r) {
			// The response does not wait for a caller that is still sending.
			if broke == nil && r.ProtoMajor == 1 && control.Flush() == nil {
				wire.LetSend(inv.request)
			}
			control.SetReadDeadline(time.Unix(1, 0))
		}
		// With full duplex net/http panics if it finds a body still unread
		// after its handler has returned: it then reads while it waits for
		// the next request.
		r.Body.Close()
		if broke != nil {
			if !r.ProtoAtLeast(1, 1) {
				reset(control)
			}
			panic(broke)
		}
	}()
	g.proxy.ServeHTTP(w, r)
}

// reset aborts the caller's connection. For an HTTP/1.0 caller a regular close can
// mark the end of a response.
func reset(control *http.ResponseController) {
	conn, _, err := control.Hijack()
	if err != nil {
		return // net/http closes it
	}
	if wrapped, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = wrapped.NetConn()
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	conn.Close()
}

func (g *gateway) healthz(w http.ResponseWriter, r *http.Request) {
	if g.draining.Load() {
		refuse(w, r, http.StatusServiceUnavailable, "draining")
		return
	}
	refuse(w, r, http.StatusOK, "OK")
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
