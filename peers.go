package main

// Other gateways in front of the same functions: what this one tells them, and what it
// makes of what they say. docs/operations.md, "Several gateways".

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"faas/internal/alexa"
	"faas/internal/peers"
)

// spreadInterval is how often it is looked who there is.
const spreadInterval = 250 * time.Millisecond

// warmUp is how long a gateway leaves it to others to act after its start: its windows
// have to fill.
const warmUp = 30 * time.Second

// gateways is this gateway among the others. nil: it is alone.
type gateways struct {
	book     *peers.Book
	node     *peers.Node
	registry *registry
	metrics  *metrics
	log      *slog.Logger

	status  atomic.Pointer[peers.Status]
	limited atomic.Pointer[limited]
	fires   func(name string) bool // an alert scales the function

	mu       sync.Mutex
	stirring []*function // of which something may have changed; never written to, only appended to or replaced
}

// limited are the functions of a snapshot that have a limit of calls in flight.
type limited struct {
	of        *snapshot
	functions []*function
}

func newGateways(c *config, r *registry, fires func(name string) bool, v *alexa.Verifier, m *metrics, log *slog.Logger) *gateways {
	if len(c.peers) == 0 {
		return nil
	}
	g := &gateways{registry: r, metrics: m, log: log, fires: fires}
	g.book = peers.NewBook(peers.NewIdentity(), g.loads)
	g.book.SetPassive(true)
	g.status.Store(&peers.Status{Missing: 1})
	o := peers.Options{Book: g.book, Names: c.peers, Listen: c.peerListen, Now: sinceEpoch, Log: log, Heard: g.spread}
	if v != nil {
		o.Claimed = func(k peers.Key) bool { return v.Claim(alexa.Key(k)) }
		o.Forgotten = func(k peers.Key) { v.Forget(alexa.Key(k)) }
		v.Share(g)
	}
	g.node = peers.NewNode(o)
	return g
}

// loads are this gateway's own, of all functions or of those that stir.
func (g *gateways) loads(now time.Duration, all bool) iter.Seq2[string, peers.Load] {
	return func(yield func(string, peers.Load) bool) {
		g.mu.Lock()
		functions := slices.Values(g.stirring)
		g.mu.Unlock()
		if all {
			functions = maps.Values(g.registry.current.Load().functions)
		}
		for f := range functions {
			if !f.gone.Load() && !yield(f.name, f.told(now, g.fires(f.name))) {
				return
			}
		}
	}
}

// meet has a new function be one of all gateways.
func (g *gateways) meet(f *function) {
	if g != nil {
		f.others, f.sum = g, g.book.Sum(f.name)
		f.stir()
	}
}

// stir notes that something of f changes that other gateways should know at once.
func (f *function) stir() {
	g := f.others
	if g == nil {
		return
	}
	f.stirred.Store(int64(sinceEpoch()))
	if f.stirs.CompareAndSwap(false, true) {
		g.mu.Lock()
		g.stirring = append(g.stirring, f)
		g.mu.Unlock()
	}
}

// settle drops the functions of which nothing has changed for a while.
func (g *gateways) settle(now time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	still := make([]*function, 0, len(g.stirring))
	for _, f := range g.stirring {
		// First the mark, then the look: a call that comes in between sets the mark
		// again, or is seen.
		f.stirs.Store(false)
		last := max(time.Duration(f.stirred.Load()), f.ownTotals(now).LastActive)
		if !f.gone.Load() && now-last < peers.ChangedTime && f.stirs.CompareAndSwap(false, true) {
			still = append(still, f)
		}
	}
	g.stirring = still
}

// told is what the other gateways are told of f.
func (f *function) told(now time.Duration, alert bool) peers.Load {
	t := f.ownTotals(now)
	set := f.set.Load()
	return peers.Load{
		// A call may have come since the clock was read: At is later than now, then.
		Busy: t.Busy, Started: t.Started, InFlight: t.InFlight, Idle: t.At - t.LastActive, Ready: f.ownReady(),
		Sets: set >> 16, Replicas: int(set & 0xffff), Alert: alert,
	}
}

// noteSet notes that this gateway has set the replicas.
func (f *function) noteSet(replicas int) {
	// The autoscaler's loop alone calls it.
	f.set.Store((f.set.Load()>>16+1)<<16 | uint64(replicas))
	f.stir()
}

// run talks to the others until ctx is done.
func (g *gateways) run(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := g.node.Run(ctx); err != nil && ctx.Err() == nil {
			g.log.Error("other gateways are not heard", "error", err)
		}
	}()
	defer func() { <-done }()
	c, began, actor := g.registry.config, sinceEpoch(), uint64(0)
	for sleep(ctx, spreadInterval) == nil {
		now := sinceEpoch()
		g.book.SetPassive(!c.autoscale || g.registry.outage.Load() != nil || now-began < warmUp)
		g.settle(now)
		g.spread()
		s := *g.status.Load()
		if s.Heard > 0 || s.Acting {
			if actor != 0 && actor != s.Actor {
				g.log.Info("acting gateway changed", "from", identity(actor), "to", identity(s.Actor), "this", s.Acting, "peers", s.Heard)
			}
			actor = s.Actor
		}
		g.book.Prune(len(g.registry.current.Load().functions), func(name string) bool { return g.registry.function(name) != nil })
	}
}

// spread notes who there is, and has the limits of functions hold over all gateways, as
// far as is known.
func (g *gateways) spread() {
	now := sinceEpoch()
	s := g.book.Status(now)
	g.status.Store(&s)
	of := g.registry.current.Load()
	l := g.limited.Load()
	if l == nil || l.of != of {
		l = &limited{of: of}
		for i := range of.defs {
			if d := &of.defs[i]; d.maxInflight > 0 {
				l.functions = append(l.functions, of.functions[d.name])
			}
		}
		g.limited.Store(l)
	}
	for _, f := range l.functions {
		if limit := f.def.Load().maxInflight; limit > 0 {
			f.admission.reserve(elsewhere(limit, f.sum.Others(now).InFlight, s))
		}
	}
}

func identity(of uint64) string { return fmt.Sprintf("%016x", of) }

// elsewhere is how much of a function's limit this gateway cannot use: what the others
// have in flight, and the share of those that are not heard.
func elsewhere(limit, inflight int, s peers.Status) int {
	heard := s.Heard + 1
	all := heard + max(s.Missing, s.Expected-s.Heard)
	share := (limit*heard + all - 1) / all
	return inflight + limit - share
}

// Sample has the load of all gateways sampled. See scale.Others.
func (g *gateways) Sample(now time.Duration) {
	g.book.Sample(now)
	s := g.book.Status(now)
	g.status.Store(&s)
	g.node.Ask(now)
}

// Acting reports whether this gateway scales by load. See scale.Others.
func (g *gateways) Acting() bool { return g.status.Load().Acting }

// Complete reports whether all gateways are heard. See scale.Others.
func (g *gateways) Complete() bool { return g.status.Load().Missing == 0 }

// Joined reports whether a gateway has just been heard. See scale.Others.
func (g *gateways) Joined(name string, within time.Duration) bool {
	return g.book.Joined(name, within, sinceEpoch())
}

// Set returns what another gateway has just set. See scale.Others.
func (g *gateways) Set(name string, within time.Duration) (replicas int, ok bool) {
	return g.book.Set(name, within, sinceEpoch())
}

// alerts reports whether an alert scales the function, as another gateway knows.
func (g *gateways) alerts(name string) bool {
	f := g.registry.function(name)
	return f != nil && f.sum.Others(sinceEpoch()).Alert
}

// Claim asks the gateway that owns key. See alexa.Sharer.
func (g *gateways) Claim(ctx context.Context, key alexa.Key) bool {
	first, by := g.node.Claim(ctx, peers.Key(key))
	g.metrics.replayChecks.WithLabelValues(by).Inc()
	return first
}

// Forget undoes a Claim. See alexa.Sharer.
func (g *gateways) Forget(key alexa.Key) { g.node.Forget(peers.Key(key)) }

// known returns what is known of the others, nil if this gateway is alone.
func (g *gateways) known() *peers.Book {
	if g == nil {
		return nil
	}
	return g.book
}

// drain has the others act, and not wait for this gateway when it has gone.
func (g *gateways) drain() {
	if g != nil {
		g.book.Leave()
	}
}

// validPeers checks a list of host:port.
func validPeers(list []string) error {
	for _, s := range list {
		host, port, err := net.SplitHostPort(s)
		if err != nil || host == "" {
			return fmt.Errorf("%q is not host:port, such as tasks.gateway:8081", s)
		}
		if err := validListen(":" + port); err != nil || port == "0" {
			return fmt.Errorf("%q: port %q is not a number from 1 to 65535", s, port)
		}
	}
	return nil
}

// validPeerListen checks an address to listen on: without a host, or with an IP address.
func validPeerListen(s string) error {
	if err := validListen(s); err != nil {
		return err
	}
	host, port, _ := net.SplitHostPort(s)
	if _, err := netip.ParseAddr(host); host != "" && err != nil {
		return fmt.Errorf("%q: %q is not an IP address; without one it listens where the other gateways are", s, strings.TrimSpace(host))
	}
	if port == "0" {
		return fmt.Errorf("%q: the other gateways have to know the port", s)
	}
	return nil
}
