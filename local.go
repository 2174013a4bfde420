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
	"slices"
	"sync"
	"time"

	"faas/watchdog"
)

const (
	maxLocalReplicas = 100 // bounds what autoscaling starts on one machine

	// localLinger is how long a replica that is scaled away still serves, so
	// that whoever calls it has time to learn that it goes.
	localLinger = refreshInterval
)

type localProvider struct {
	log     *slog.Logger
	drain   time.Duration // for replicas that are scaled away
	order   []string
	changes chan struct{}

	mu        sync.Mutex
	functions map[string]*localService
	closed    bool
	closing   chan struct{} // closed with it
	replicas  sync.WaitGroup
}

// A localService is a function of the local provider.
type localService struct {
	def      definition
	config   watchdog.Config
	fixed    []string // addresses of replicas that run already
	replicas []*localReplica
}

// A localReplica is one watchdog and its listener.
type localReplica struct {
	addr string
	stop func()
}

// newLocal checks the functions and starts nothing: scale does. The settings
// of the watchdog come from getenv. The error joins what is wrong with each
// function.
func newLocal(functions []localFunction, routes []localRoute, defaults definition, getenv func(string) string, log *slog.Logger) (*localProvider, error) {
	p := &localProvider{
		log:       log,
		drain:     defaults.timeout,
		changes:   make(chan struct{}, 1),
		functions: map[string]*localService{},
		closing:   make(chan struct{}),
	}
	var errs []error
	for i, f := range functions {
		if p.functions[f.name] == nil {
			p.functions[f.name] = &localService{}
			p.order = append(p.order, f.name)
		}
		later := func(other localFunction) bool { return other.name == f.name }
		if slices.ContainsFunc(functions[i+1:], later) {
			continue // replaced, so that its command need not exist
		}
		s := &localService{def: defaults, fixed: f.addresses}
		s.def.name, s.def.service = f.name, f.name
		s.def.scale.max = min(s.def.scale.max, maxLocalReplicas)
		if s.fixed != nil {
			s.def.scale.fixed = true
			s.def.replicas = len(s.fixed)
		} else {
			c, err := watchdog.ParseConfig(func(name string) string {
				switch v := getenv(name); {
				case name == "fprocess":
					return f.command
				case name == "suppress_lock":
					return "true"
				case name == "exec_timeout" && v == "":
					return defaults.timeout.String()
				case name == "port":
					return ""
				default:
					return v
				}
			})
			if err != nil {
				errs = append(errs, fmt.Errorf("function %s: %w", f.name, err))
				continue
			}
			c.Env = environment(getenv)
			s.config = c
		}
		p.functions[f.name] = s
	}
	for _, r := range routes {
		s := p.functions[r.name]
		if s == nil {
			errs = append(errs, fmt.Errorf("-route: there is no function %q for %q", r.name, r.pattern))
			continue
		}
		s.def.routes = append(s.def.routes, r.pattern)
	}
	// As on Swarm, the older keeps a route: here, who is named first.
	for i, name := range p.order {
		p.functions[name].def.created = time.Unix(0, int64(i))
	}
	return p, errors.Join(errs...)
}

// environment is what local functions get of the gateway's own: a function may
// show all of it, as the sample env does.
func environment(getenv func(string) string) []string {
	env := []string{}
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "LANG", "TZ", "USER"} {
		if v := getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// start brings every function to its least number of replicas.
func (p *localProvider) start(ctx context.Context) error {
	for _, name := range p.order {
		s := p.functions[name]
		if s.fixed != nil {
			continue
		}
		if err := p.scale(ctx, s.def, func(int) int { return max(s.def.scale.min, 1) }); err != nil {
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
	s := p.functions[d.name]
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
	s := p.functions[d.name]
	if s == nil || p.closed {
		return fmt.Errorf("scale %s: %w", d.name, errNotFound)
	}
	if s.fixed != nil {
		return fmt.Errorf("scale %s: its replicas are given by address", d.name)
	}
	wanted := min(decide(len(s.replicas)), maxLocalReplicas)
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

// replica starts one watchdog. Its stop ends the listener a moment later, and
// the processes when the requests in flight are answered.
func (p *localProvider) replica(s *localService) (*localReplica, error) {
	log := p.log.With("function", s.def.name)
	handler, err := watchdog.New(s.config, log)
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	server := handler.NewServer()
	ctx, cancel := context.WithCancel(context.Background())
	p.replicas.Go(func() {
		if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			log.Error("replica ended", "address", ln.Addr().String(), "error", err)
		}
	})
	p.replicas.Go(func() {
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
		end()
		if err := <-supervised; err != nil && !errors.Is(err, context.Canceled) {
			log.Error("processes of a replica did not end well", "error", err)
		}
	})
	return &localReplica{addr: ln.Addr().String(), stop: cancel}, nil
}
