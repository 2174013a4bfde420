// Package watchdog turns HTTP requests into processes: any program that reads
// STDIN and writes STDOUT answers them, with a limit on how long it may run.
//
// A Handler serves one function. Several may live in one program: nothing here
// is global, and nothing here assumes that it is PID 1. The binary fwatchdog
// wraps one Handler for use in an image. On Linux no goroutine of the program
// may end while it is locked to its thread: processes that the thread has started
// would end with it (see tie).
package watchdog

// The handler: dispatch of requests, and the limit of concurrent ones.

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	headerTimeout = 30 * time.Second  // for request headers, when read_timeout is none
	idleTimeout   = 150 * time.Second // longer than clients keep connections, so that they close first
	bufferSize    = 32 << 10
)

// A Handler serves one function, and its own health.
type Handler struct {
	cfg     Config
	log     *slog.Logger
	program *program // nil in mode static
	family  family
	environ []string // of every process, before the request is added
	buffers sync.Pool

	serve    func(*reply, *http.Request) // by mode
	ready    *pool                       // of processes started ahead; nil without prefork
	upstream *upstream                   // nil but in mode http
	doze     *dozer                      // nil: the process goes on

	inflight   atomic.Int64
	briefWaits atomic.Int64
	draining   atomic.Bool
	kept       keptRoom // of bodies whose length is not known
}

// New checks cfg and returns a Handler for it. It starts nothing: processes
// start with requests, or with Run.
func New(cfg Config, log *slog.Logger) (*Handler, error) {
	if err := errors.Join(cfg.validate("command")...); err != nil {
		return nil, err
	}
	if cfg.Mode == "" {
		cfg.Mode = ModeFork
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	for _, warning := range cfg.Warnings {
		log.Warn("a setting is ignored, and its default holds", "error", warning)
	}
	env := cfg.Env
	if env == nil {
		env = os.Environ()
	}
	h := &Handler{cfg: cfg, log: log, environ: baseEnviron(env, cfg.Mode)}
	h.kept.size = keptAtOnce * (int64(cfg.MaxBody) + 1) // by the last byte one is found to be too long
	h.family.owner = owner()
	h.family.shrunk = make(chan struct{}, 1)
	h.buffers.New = func() any { b := make([]byte, 0, bufferSize); return &b }
	if cfg.Mode == ModeStatic {
		h.serve = h.newFiles()
		return h, nil
	}
	var err error
	if h.program, err = newProgram(cfg.Command); err != nil {
		return nil, fmt.Errorf("command %s: %w", cfg.Command[0], err)
	}
	h.doze = newDozer(cfg.Doze)
	h.serve = h.serveFork
	if cfg.Prefork > 0 {
		h.ready = newPool(cfg.Prefork, func() (*process, error) {
			return h.program.start(h.environ, h.wiring(nil, false), &h.family)
		}, log)
	}
	if len(cfg.ForkServer) > 0 {
		if h.program.templates, err = h.newTemplates(); err != nil {
			return nil, fmt.Errorf("forkserver: %w", err)
		}
	}
	if cfg.Mode == ModeHTTP {
		if h.upstream, err = newUpstream(h); err != nil {
			return nil, fmt.Errorf("upstream_url: %w", err)
		}
		h.serve = h.upstream.serve
	}
	return h, nil
}

// NewServer returns a server for the handler with the limits of its settings. It
// must serve a listener from NewListener. It has no WriteTimeout on purpose: a
// stream may take as long as exec_timeout allows, and the handler sets a deadline
// for every read and write.
func (h *Handler) NewServer() *http.Server {
	header := h.cfg.ReadTimeout
	if header == 0 {
		header = headerTimeout
	}
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: header,
		IdleTimeout:       idleTimeout,
		ConnContext:       withConn,
		ErrorLog:          slog.NewLogLogger(h.log.Handler(), slog.LevelWarn),
	}
}

// ServeHTTP answers health checks and invokes the function for everything
// else.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p, r := h.newReply(w, r)
	answered := false
	defer func() { p.close(answered, r) }()
	h.answer(p, r)
	answered = true // and no panic
}

func (h *Handler) answer(w *reply, r *http.Request) {
	switch r.URL.Path {
	case "/_/health":
		h.serveHealth(w, false)
		return
	case "/_/ready":
		if h.cfg.ReadyPath == "" || !h.healthy() {
			h.serveHealth(w, true)
			return
		}
		to := *r.URL
		to.Path, to.RawPath = h.cfg.ReadyPath, ""
		r.URL = &to
	}
	if n := h.inflight.Add(1); h.cfg.MaxInflight > 0 && n > int64(h.cfg.MaxInflight) {
		h.inflight.Add(-1)
		refuse(w, http.StatusTooManyRequests, fmt.Sprintf("function is busy: max_inflight is %d", h.cfg.MaxInflight))
		return
	}
	defer h.inflight.Add(-1)
	h.doze.enter()
	defer h.doze.leave()
	if !h.cfg.LogCalls {
		h.serve(w, r)
		return
	}
	started := time.Now()
	h.serve(w, r)
	h.log.Info("call", "call_id", r.Header.Get("X-Call-Id"), "method", r.Method, "path", r.URL.EscapedPath(),
		"status", w.status, "bytes", w.written, "duration", time.Since(started))
}

func (h *Handler) serveHealth(w http.ResponseWriter, ready bool) {
	switch {
	case !h.healthy():
		fail(w, http.StatusServiceUnavailable, "not healthy")
	case ready && h.cfg.MaxInflight > 0 && h.inflight.Load() >= int64(h.cfg.MaxInflight):
		refuse(w, http.StatusTooManyRequests, "busy")
	default:
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Write([]byte("OK"))
	}
}

// Inflight returns how many invocations run.
func (h *Handler) Inflight() int { return int(h.inflight.Load()) }

// What ends an invocation before its process exits: the causes of its context.
var (
	errLimit = errors.New("limit reached")
	errGone  = errors.New("the client went away, or the watchdog ends")
)

// limit returns the limit of one invocation: exec_timeout, or less if the caller
// asked for less; 0 is none. An invalid X-Timeout header is ignored.
func (h *Handler) limit(r *http.Request) time.Duration {
	limit := h.cfg.ExecTimeout
	if v := r.Header.Get("X-Timeout"); v != "" {
		if d, ok := parseDuration(v); ok && d > 0 && (limit == 0 || d < limit) {
			limit = d
		}
	}
	return limit
}

// limited returns the context of one invocation, and its limit.
func (h *Handler) limited(r *http.Request) (context.Context, context.CancelCauseFunc, time.Duration) {
	limit := h.limit(r)
	ctx, cancel := context.WithCancelCause(r.Context())
	if limit == 0 {
		return ctx, cancel, 0
	}
	timed, stop := context.WithTimeoutCause(ctx, limit, errLimit)
	return timed, func(cause error) { cancel(cause); stop() }, limit
}

func (h *Handler) buffer() *[]byte { return h.buffers.Get().(*[]byte) }

// recycle takes back a buffer, unless it has grown.
func (h *Handler) recycle(b *[]byte) {
	if cap(*b) == bufferSize {
		*b = (*b)[:0]
		h.buffers.Put(b)
	}
}
