package main

// All the parts, how they are wired, and in which order they end.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

const (
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 2 * time.Minute

	// lastRequests is how long connections that were accepted in time may take to send
	// their request.
	lastRequests = 100 * time.Millisecond
	maxHeaderLen = 64 << 10
)

// A service is all the parts, wired.
type service struct {
	address          net.Addr // where it listens
	engine           *engine  // nil: the servers are elsewhere
	store            *store
	calls, callbacks *queue
	functions        *functions
	acceptor         *acceptor
	metrics          *metrics
	handler          http.Handler
	loops            []func(context.Context) error // end with their context
}

// serve wires the parts, serves until a signal or ctx ends it, and stops them
// in the opposite order. listening is told when the address is open.
func serve(ctx context.Context, c *config, log *slog.Logger, signals <-chan os.Signal, listening func(*service)) error {
	ln, err := net.Listen("tcp", c.listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	defer ln.Close()
	m := newMetrics()
	var e *engine
	if c.nats == "" {
		starting, stop := signalled(ctx, signals)
		e, err = startEngine(starting, c, m, log)
		stop()
		if err != nil {
			return err
		}
		defer e.close()
	}
	store, err := connect(c, e, log)
	if err != nil {
		return err
	}
	defer func() {
		store.nc.FlushTimeout(publishTimeout) // the last acknowledgements
		store.nc.Close()
	}()

	// Three stages end one after the other: beginning work, doing it, and what
	// both need.
	pulling, stopPulling := context.WithCancel(context.Background())
	work, stopWork := context.WithCancel(context.Background())
	background, stopBackground := context.WithCancel(context.Background())
	s := wire(c, store, e, m, log, pulling, work)
	s.address = ln.Addr()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stopBackground()
	for _, loop := range s.loops {
		wg.Go(func() { loop(background) })
	}
	wg.Go(func() {
		if store.open(pulling, c) == nil {
			log.Info("faas-async is ready", "streams", c.streamReplicas)
		}
	})

	server := &http.Server{
		Handler: s.handler, ReadHeaderTimeout: readHeaderTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderLen,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()
	args := []any{"address", ln.Addr().String(), "gateway", c.gateway.String(), "version", buildVersion()}
	if e != nil {
		args = append(args, "data", c.data, "topics", e.topicsAddress())
	}
	log.Info("faas-async is serving", args...)
	listening(s)

	var failure error
	drain := time.Duration(0)
	select {
	case err := <-served:
		failure = fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	case sig := <-signals:
		log.Info("draining: not ready, still serving", "signal", sig.String(), "drain", c.drain)
		drain = c.drain
	}
	s.acceptor.draining.Store(true)
	bounded, cancel := context.WithTimeout(context.Background(), drain+c.shutdownTimeout)
	defer cancel()
	wg.Go(func() {
		select {
		case <-signals: // a second one: no more waiting
			cancel()
		case <-bounded.Done():
		}
	})
	sleep(bounded, drain)
	s.acceptor.stopping.Store(true)
	stopPulling()
	// Shutdown closes a connection on which it finds a request that has not been read:
	// it is to be told that it was not accepted.
	ln.Close()
	sleep(bounded, lastRequests)
	if err := server.Shutdown(bounded); err != nil {
		server.Close()
		failure = errors.Join(failure, fmt.Errorf("requests in flight were cut off: %w", err))
	}
	finished := make(chan struct{})
	go func() {
		s.calls.close()
		s.callbacks.close()
		close(finished)
	}()
	select {
	case <-finished:
	case <-bounded.Done():
		log.Info("giving back what still runs")
	}
	stopWork()
	<-finished // what is given back is within publishTimeout
	cancel()
	if failure == nil {
		log.Info("faas-async ended")
	}
	return failure
}

// wire makes the parts. Nothing runs yet.
func wire(c *config, store *store, e *engine, m *metrics, log *slog.Logger, pulling, work context.Context) *service {
	s := &service{store: store, engine: e, metrics: m}
	a := newAuth(c.authDir, m, log)
	client := newGatewayClient(c.workers)
	s.functions = newFunctions(c, a, client, m, log)
	newQueue := func(name, stream string) *queue {
		return &queue{
			name: name, stream: stream, store: store, slots: newSlots(c.workers), log: log,
			pulling: pulling, work: work, seen: map[string]time.Time{}, running: map[string]bool{},
		}
	}
	s.calls, s.callbacks = newQueue("call", streamCalls), newQueue("callback", streamCallbacks)

	run := &runner{gateway: c.gateway, client: client, timeout: c.callTimeout, maxBody: c.maxBody, functions: s.functions}
	s.calls.handle = (&worker{
		queue: s.calls, store: store, functions: s.functions, metrics: m.calls, memory: semaphore.NewWeighted(bodiesInMemory),
		maxAge: c.maxAge, log: log, weigh: run.weigh, attempt: run.attempt,
		ended: func(ctx context.Context, call *call, r record, res result) error {
			if call.callback == "" {
				return nil
			}
			return callBack(ctx, s.callbacks, call, r, res.answer, s.functions.find(call.function).rules.attempts)
		},
	}).handle
	back := newCallerBack(c, s.functions, m, nil)
	s.callbacks.handle = (&worker{
		queue: s.callbacks, store: store, functions: s.functions, metrics: m.callBacks, memory: semaphore.NewWeighted(bodiesInMemory),
		maxAge: c.maxAge, log: log, weigh: back.weigh, attempt: back.attempt,
		ended: func(context.Context, *call, record, result) error { return nil },
	}).handle

	s.acceptor = &acceptor{
		store: store, calls: s.calls, functions: s.functions, metrics: m, engine: e,
		memory: semaphore.NewWeighted(max(acceptMemory, c.maxBody)), small: semaphore.NewWeighted(smallMemory), maxBody: c.maxBody, log: log,
		withdrawing: work, bodyDeadline: bodyTimeout,
	}
	dead := &deadAPI{store: store, calls: s.calls, callbacks: s.callbacks, enqueue: s.acceptor.enqueue, log: log}
	scheduler := &scheduler{
		store: store, functions: s.functions, enqueue: s.acceptor.enqueue, metrics: m, now: time.Now, log: log, known: map[string]*fired{},
	}
	topics := &topics{store: store, functions: s.functions, enqueue: s.acceptor.enqueue, metrics: m, log: log}
	survey := &surveyor{store: store, queues: []*queue{s.calls, s.callbacks}, functions: s.functions, metrics: m, log: log, gone: map[string]time.Time{}, strays: map[*queue]int{}}
	s.loops = []func(context.Context) error{
		store.calls.run, store.states.run,
		func(ctx context.Context) error { return s.functions.run(ctx, c.poll) },
		whilePulling(pulling, scheduler.run), whilePulling(pulling, topics.run), survey.run,
	}
	if e != nil {
		s.loops = append(s.loops, e.run)
	}

	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", s.healthz)
	mux.Handle("GET /metrics", m.handler())
	mux.Handle("/system/async/", a.guard(dead.handler()))
	mux.Handle("GET /system/async/queue", a.guard(http.HandlerFunc(m.queue)))
	s.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// ServeMux would clean the path; a function sees it as it came.
		if strings.HasPrefix(r.URL.Path, asyncPrefix) {
			s.acceptor.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
	return s
}

// whilePulling makes a loop that ends when nothing new is to begin.
func whilePulling(pulling context.Context, loop func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(pulling, cancel)()
		return loop(ctx)
	}
}

func (s *service) healthz(w http.ResponseWriter, _ *http.Request) {
	if s.acceptor.draining.Load() || !s.store.ready.Load() || !s.store.nc.IsConnected() {
		refuseUnready(w)
		return
	}
	io.WriteString(w, "OK")
}

// signalled returns a context that a signal ends, too.
func signalled(ctx context.Context, signals <-chan os.Signal) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-signals:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(); <-ended }
}
