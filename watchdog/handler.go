// Package watchdog turns HTTP requests into processes: any program that reads
// STDIN and writes STDOUT answers them, with a limit on how long it may run.
//
// A Handler serves one function. Several may live in one program: nothing here
// is global, and nothing here assumes that it is PID 1. The binary fwatchdog
// wraps one Handler for use in an image.
package watchdog

// The handler: which request is what, and how many at a time.

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
	program *program
	family  family
	environ []string // of every process, before the request is added
	buffers sync.Pool

	serve    func(http.ResponseWriter, *http.Request) // by mode
	ready    *pool                                    // of processes started ahead; nil without prefork
	upstream *upstream                                // nil but in mode http

	inflight   atomic.Int64
	briefWaits atomic.Int64
	draining   atomic.Bool
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
	p, err := newProgram(cfg.Command)
	if err != nil {
		return nil, fmt.Errorf("command %s: %w", cfg.Command[0], err)
	}
	env := cfg.Env
	if env == nil {
		env = os.Environ()
	}
	h := &Handler{cfg: cfg, log: log, program: p, environ: baseEnviron(env, cfg.Mode)}
	h.family.shrunk = make(chan struct{}, 1)
	h.buffers.New = func() any { b := make([]byte, 0, bufferSize); return &b }
	h.serve = h.serveFork
	if cfg.Prefork > 0 {
		h.ready = newPool(cfg.Prefork, func() (*process, error) {
			return h.program.start(h.environ, h.wiring(nil, false), &h.family)
		}, log)
	}
	if cfg.Mode == ModeHTTP {
		if h.upstream, err = newUpstream(h); err != nil {
			return nil, fmt.Errorf("upstream_url: %w", err)
		}
		h.serve = h.upstream.serve
	}
	return h, nil
}

// NewServer returns a server for the handler with the limits of its settings.
// It has no WriteTimeout on purpose: what streams may take as long as
// exec_timeout allows, and the handler times every single read and write.
func (h *Handler) NewServer() *http.Server {
	header := h.cfg.ReadTimeout
	if header == 0 {
		header = headerTimeout
	}
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: header,
		IdleTimeout:       idleTimeout,
		ErrorLog:          slog.NewLogLogger(h.log.Handler(), slog.LevelWarn),
	}
}

// ServeHTTP answers health checks and invokes the function for everything
// else.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h.draining.Load() {
		w.Header().Set("Connection", "close")
	}
	switch r.URL.Path {
	case "/_/health":
		h.serveHealth(w, false)
		return
	case "/_/ready":
		h.serveHealth(w, true)
		return
	}
	if n := h.inflight.Add(1); h.cfg.MaxInflight > 0 && n > int64(h.cfg.MaxInflight) {
		h.inflight.Add(-1)
		refuse(w, http.StatusTooManyRequests, fmt.Sprintf("function is busy: max_inflight is %d", h.cfg.MaxInflight))
		return
	}
	defer h.inflight.Add(-1)
	h.serve(w, r)
}

func (h *Handler) serveHealth(w http.ResponseWriter, ready bool) {
	switch {
	case !h.healthy():
		http.Error(w, "not healthy", http.StatusServiceUnavailable)
	case ready && h.cfg.MaxInflight > 0 && h.inflight.Load() >= int64(h.cfg.MaxInflight):
		refuse(w, http.StatusTooManyRequests, "busy")
	default:
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Write([]byte("OK"))
	}
}

// Inflight returns how many invocations run.
func (h *Handler) Inflight() int { return int(h.inflight.Load()) }

// refuse answers with a status that says that trying again may help.
func refuse(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Retry-After", "1")
	http.Error(w, text, status)
}

// What ends an invocation before its process does: the cause of its context.
var (
	errLimit = errors.New("limit reached")
	errGone  = errors.New("the client went away, or the watchdog ends")
)

// limit returns the limit of one invocation: exec_timeout, or less if the
// caller asked for less; 0 is none. A header X-Timeout that is no duration is
// ignored.
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
