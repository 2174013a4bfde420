package main

// The domain: what a function is, where it comes from, and what can go wrong
// with an invocation.

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"faas/internal/peers"
	"faas/internal/scale"
)

// A definition is what a provider knows about one function. It is immutable: a
// change creates a new one, in a new snapshot of the registry.
type definition struct {
	name    string    // as callers write it; valid by validName
	service string    // the provider's own handle: on Swarm the service's name
	created time.Time // the older of two claimants keeps a name or a route

	port        int           // where its replicas listen
	timeout     time.Duration // longest invocation
	maxInflight int           // 0: no limit
	scale       scale.Limits

	claims map[string][]string // what it is to be found by, by label; never written to

	replicas int  // wanted, as the provider last said
	rollout  bool // a rollout is under way or paused: scale.ErrRollout

	problems []string // labels that did not parse: their defaults hold
}

// A function is the state of one function across snapshots: what is in flight, its
// replicas, its counters.
type function struct {
	name      string
	def       atomic.Pointer[definition]
	admission admission
	balancer  balancer
	metrics   *functionMetrics
	history   atomic.Pointer[history] // nil: it was never called

	refreshed  atomic.Int64 // when its replicas were last looked up, nanoseconds since epoch
	refreshing atomic.Bool  // a look-up is due or under way
	asking     atomic.Bool  // a question for its trouble is due or under way
	reached    atomic.Bool  // one of its replicas accepted a connection, since it last had none
	gone       atomic.Bool  // no snapshot holds it any more

	explanation atomic.Pointer[explanation]
	explaining  atomic.Bool // a question for it is due or under way

	// Of other gateways that call it, too. others and sum are nil if there are none.
	others  *gateways
	sum     *peers.Sum
	set     atomic.Uint64 // how often this gateway has set the replicas, and, in the low 16 bits, to what
	stirs   atomic.Bool   // it is among the gateways' stirring
	stirred atomic.Int64  // when something but a call last changed, in monotonic time

	// Of its look-ups, of which there is one at a time.
	noneSince time.Time // since when they found no replica, though one is wanted
	asked     time.Time // when its trouble was last asked for
}

func (f *function) definition() definition { return *f.def.Load() }

// Ready counts the replicas that can be called now, by this gateway or another one that
// knows better as it has just called them.
func (f *function) Ready() int {
	own := f.ownReady()
	if f.others == nil {
		return own
	}
	now := sinceEpoch()
	l := f.sum.Others(now)
	if l.Ready > own && (l.Idle <= peers.InUse || now-f.ownTotals(now).LastActive > peers.InUse) {
		return l.Ready
	}
	return own
}

// ownReady counts them as this gateway knows. A replica counts only after it
// has accepted a connection: one that keeps crashing is in DNS for a moment each
// time.
func (f *function) ownReady() int {
	if !f.reached.Load() {
		return 0
	}
	return f.balancer.ready()
}

// State returns the input of the autoscaler, with the load's totals.
func (f *function) State() scale.State {
	d := f.def.Load()
	return scale.State{Name: d.name, Service: d.service, Created: d.created, Limits: d.scale, Replicas: d.replicas, Rollout: d.rollout}
}

// Totals returns the load at all gateways.
func (f *function) Totals(now time.Duration) scale.Totals {
	t := f.ownTotals(now)
	if f.others != nil {
		if sum, at, ok := f.sum.Sampled(); ok {
			t.Busy, t.Started, t.At = sum.Busy, sum.Started, at
		}
		l := f.sum.Others(now)
		t.InFlight += l.InFlight
		t.LastActive = max(t.LastActive, now-l.Idle)
	}
	return t
}

func (f *function) ownTotals(now time.Duration) scale.Totals {
	f.admission.mu.Lock()
	defer f.admission.mu.Unlock()
	return f.admission.load.Totals(now)
}

// stale reports whether the replicas of a function in use should be looked up
// again.
func (f *function) stale(now time.Time) bool { return f.staleBy(now, refreshInterval) }

// staleBy reports whether the last look-up is older than age.
func (f *function) staleBy(now time.Time, age time.Duration) bool {
	return int64(now.Sub(epoch))-f.refreshed.Load() > int64(age)
}

// A provider is where functions run.
type provider interface {
	// list returns every function. The caller owns the slice.
	list(ctx context.Context) ([]definition, error)

	// watch calls changed once when it has subscribed, and then after each
	// change that may alter what list returns. It returns when the
	// subscription breaks, with the reason, or when ctx is done. changed
	// must not block.
	watch(ctx context.Context, changed func()) error

	// addresses returns host:port of every ready replica of the function,
	// none without an error when it is known to have none. It takes a few
	// milliseconds, or as long as ctx lasts.
	addresses(ctx context.Context, d definition) ([]string, error)

	// scale reads how many replicas are wanted now, asks decide for the new number
	// and sets it. If somebody else changed the function in between, it reads and
	// asks again. It writes nothing if decide returns the current number. It
	// returns scale.ErrRollout if a new version of the function is being rolled
	// out, which a change of replicas would disturb, unless the number is 0.
	scale(ctx context.Context, d definition, decide func(current int) int) error
}

// The errors of an invocation; outcome turns them into responses.
var (
	errNotFound    = scale.ErrNotFound
	errTooMany     = errors.New("too many requests")
	errNoReplica   = errors.New("no replica became ready")
	errUnreachable = errors.New("no replica could be reached")
	errStalledBody = errors.New("the caller sends its body no further, and no replica was sent any of the request")
)
