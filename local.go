package main

// The provider without Docker: a replica is a watchdog on a loopback listener
// of this process, or an address at which somebody else serves already.

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"faas/watchdog"
)

const (
	maxLocalReplicas = 100 // bounds what autoscaling starts on one machine

	// localLinger is how long a replica still serves after it was scaled down, so
	// that its callers have time to learn that it is gone.
	localLinger = refreshInterval
)

type localProvider struct {
	log     *slog.Logger
	drain   time.Duration // for replicas that are scaled away
	order   []string
	changes chan struct{}
	started time.Time

	mu        sync.Mutex
	functions map[string]*localService // by service
	closed    bool
	closing   chan struct{} // closed with it
	replicas  sync.WaitGroup

	handlers sync.Map // *watchdog.Handler of every replica that has not ended
}

// A localService is a function of the local provider.
type localService struct {
	def      definition
	labels   map[string]string
	command  string
	ring     *logRing
	config   watchdog.Config
	fixed    []string // addresses of replicas that run already
	most     int      // replicas
	replicas []*localReplica
}

// A localReplica is one watchdog and its listener.
type localReplica struct {
	addr string
	stop func()
}

// newLocal makes a provider of functions that parseConfig has checked; of several
// that claim a route, the first keeps it. Call start to run it.
func newLocal(functions []localFunction, defaults definition, log *slog.Logger) *localProvider {
	p := &localProvider{
		log:       log,
		drain:     defaults.timeout,
		changes:   make(chan struct{}, 1),
		started:   time.Now().Truncate(time.Second),
		functions: map[string]*localService{},
		closing:   make(chan struct{}),
	}
	for i, f := range functions {
		s := &localService{labels: f.labelValues(), command: f.command, ring: newLogRing(), config: f.watchdog, fixed: f.addresses, most: maxLocalReplicas}
		d := defaults
		d.name, d.service, d.created = f.name, f.name, time.Unix(0, int64(i))
		if len(f.routes) > 0 {
			d.claim(labelRoute, f.routes)
		}
		s.def, _ = parseLabels(s.labels, d) // parseConfig has reported the problems
		switch {
		case s.fixed != nil:
			s.def.scale.Fixed = true
			s.def.replicas = len(s.fixed)
		case f.watchdog.Mode == watchdog.ModeHTTP:
			s.most = 1 // a second one could not use the port
			s.def.scale.Min, s.def.scale.Max = min(s.def.scale.Min, 1), 1
		}
		p.functions[f.name] = s
		p.order = append(p.order, f.name)
	}
	return p
}

// start starts the minimum number of replicas of every function.
func (p *localProvider) start(ctx context.Context) error {
	for _, name := range p.order {
		s := p.functions[name]
		if s.fixed != nil {
			continue
		}
		if err := p.scale(ctx, s.def, func(int) int { return max(s.def.scale.Min, 1) }); err != nil {
			return err
		}
	}
	return nil
}

// close ends every replica and waits for them.
func (p *localProvider) close() {
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		close(p.closing)
	}
	for _, s := range p.functions {
		for _, r := range s.replicas {
			r.stop()
		}
		s.replicas = nil
	}
	p.mu.Unlock()
	p.replicas.Wait()
}

// kill kills every process at once, whatever it is doing. It takes no lock that a
// hanging gateway may hold.
func (p *localProvider) kill() {
	p.handlers.Range(func(handler, _ any) bool {
		handler.(*watchdog.Handler).Kill()
		return true
	})
}

func (p *localProvider) list(context.Context) ([]definition, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	defs := make([]definition, 0, len(p.order))
	for _, name := range p.order {
		defs = append(defs, p.functions[name].def)
	}
	return defs, nil
}

func (p *localProvider) watch(ctx context.Context, changed func()) error {
	changed()
	for {
		select {
		case <-p.changes:
			changed()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (p *localProvider) addresses(_ context.Context, d definition) ([]string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.functions[d.service]
	if s == nil {
		return nil, nil
	}
	addrs := append([]string(nil), s.fixed...)
	for _, r := range s.replicas {
		addrs = append(addrs, r.addr)
	}
	return addrs, nil
}

func (p *localProvider) scale(_ context.Context, d definition, decide func(current int) int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.functions[d.service]
	if s == nil || p.closed {
		return fmt.Errorf("scale %s: %w", d.name, errNotFound)
	}
	if s.fixed != nil {
		return fmt.Errorf("scale %s: its replicas are given by address", d.name)
	}
	wanted := min(decide(len(s.replicas)), s.most)
	for len(s.replicas) < wanted {
		r, err := p.replica(s)
		if err != nil {
			return fmt.Errorf("scale %s: %w", d.name, err)
		}
		s.replicas = append(s.replicas, r)
	}
	for len(s.replicas) > max(wanted, 0) {
		last := len(s.replicas) - 1
		s.replicas[last].stop()
		s.replicas = s.replicas[:last]
	}
	s.def.replicas = len(s.replicas)
	select {
	case p.changes <- struct{}{}:
	default:
	}
	return nil
}

// replica starts one watchdog. Its stop closes the listener a moment later, and
// ends the processes when the requests in flight are done.
func (p *localProvider) replica(s *localService) (*localReplica, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	log := slog.New(&ringHandler{p.log.With("function", s.def.name).Handler(), s.ring, ln.Addr().String()})
	handler, err := watchdog.New(s.config, log)
	if err != nil {
		ln.Close()
		return nil, err
	}
	server, listener := handler.NewServer(), watchdog.NewListener(ln)
	ctx, cancel := context.WithCancel(context.Background())
	p.replicas.Go(func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("replica ended", "address", ln.Addr().String(), "error", err)
		}
	})
	p.handlers.Store(handler, nil)
	p.replicas.Go(func() {
		defer p.handlers.Delete(handler)
		supervised := make(chan error, 1)
		supervise, end := context.WithCancel(context.Background())
		go func() { supervised <- handler.Run(supervise) }()
		<-ctx.Done()
		linger := time.NewTimer(localLinger)
		defer linger.Stop()
		select {
		case <-linger.C:
		case <-p.closing:
		}
		bounded, done := context.WithTimeout(context.Background(), p.drain)
		defer done()
		if server.Shutdown(bounded) != nil {
			server.Close()
		}
		listener.EndLingering(bounded)
		end()
		if err := <-supervised; err != nil && !errors.Is(err, context.Canceled) {
			log.Error("processes of a replica did not end well", "error", err)
		}
	})
	return &localReplica{addr: ln.Addr().String(), stop: cancel}, nil
}
