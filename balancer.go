package main

// The choice of a replica: the least in flight, avoiding those that cannot be
// reached or fail more than their siblings.

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	ejectFirst = time.Second      // first ejection of a replica that cannot be reached
	ejectMost  = 30 * time.Second // longest one; it doubles each time

	silenceLeast = 100 * time.Millisecond // without a response before a replica with requests in flight is doubted
)

// A replica is one address of a function. It exists while the address is known;
// requests in flight on it may finish after that.
type replica struct {
	addr     string // host:port
	inflight atomic.Int64
	ejected  atomic.Bool
	failures atomic.Int32 // times in a row that it was ejected, or 1 if it was spared

	// A machine that was cut off is silent, and requests sent there are lost. So a
	// replica that is silent for too long is doubted: others are preferred until it
	// answers or accepts a connection.
	heard   atomic.Int64 // Unix nanoseconds: when it last did, or got a request while it had none
	took    atomic.Int64 // by its last answer
	doubted atomic.Bool

	outcomes

	retryAt time.Time // when an ejected one is tried again; under balancer.mu
}

// A balancer chooses among a function's replicas. The zero value has none.
type balancer struct {
	set atomic.Pointer[[]*replica]
	mu  sync.Mutex // of whoever changes set or ejects
}

func (b *balancer) replicas() []*replica {
	if set := b.set.Load(); set != nil {
		return *set
	}
	return nil
}

// pick returns the replica with the least in flight that is not in tried, and
// counts one more in flight on it. It picks an ejected outlier only if no other is
// left, then a doubted replica, then one that cannot be reached. Ties are broken at
// random. It returns nil if none is left.
func (b *balancer) pick(tried []*replica, now time.Time) *replica {
	var best *replica
	var least int64
	ties := 1
	replicas := b.replicas()
	for _, r := range replicas {
		if slices.Contains(tried, r) {
			continue
		}
		load := r.inflight.Load()
		switch {
		case r.ejected.Load():
			load |= 1 << 62
		case r.doubted.Load():
			load |= 1 << 61
		case r.until.Load() != 0 && r.passedOver(len(replicas), now):
			load |= 1 << 60
		}
		switch {
		case best == nil || load < least:
			best, least, ties = r, load, 1
		case load == least:
			if ties++; rand.IntN(ties) == 0 {
				best = r
			}
		}
	}
	if best != nil {
		best.inflight.Add(1)
		best.picked(now)
	}
	return best
}

// ready counts the replicas that are not ejected.
func (b *balancer) ready() int {
	n := 0
	for _, r := range b.replicas() {
		if !r.ejected.Load() {
			n++
		}
	}
	return n
}

// update sets the replicas to addrs and returns the addresses that left. Replicas
// that stay keep their state.
func (b *balancer) update(addrs []string) (left []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.replicas()
	set := make([]*replica, 0, len(addrs))
	for _, addr := range addrs {
		if i := slices.IndexFunc(old, func(r *replica) bool { return r.addr == addr }); i >= 0 {
			set = append(set, old[i])
		} else {
			set = append(set, &replica{addr: addr})
		}
	}
	for _, r := range old {
		if !slices.Contains(addrs, r.addr) {
			left = append(left, r.addr)
		}
	}
	b.set.Store(&set)
	return left
}

// failed notes that a replica could not be reached and ejects it, for longer each
// time, unless all others are ejected. All callers that were dialling when it was
// ejected count once: they met the same failure.
func (b *balancer) failed(r *replica, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case r.ejected.Load() && now.Before(r.retryAt):
		return
	case !r.ejected.Load() && b.ready() <= 1:
		r.failures.Store(1)
		return
	}
	failures := r.failures.Add(1)
	r.retryAt = now.Add(min(ejectFirst<<min(failures-1, 10), ejectMost))
	r.ejected.Store(true)
}

// answered notes that a replica answered a request that it had got at sent.
func (b *balancer) answered(r *replica, status int, sent time.Time) {
	now := time.Now()
	r.took.Store(int64(now.Sub(sent)))
	b.outcome(r, isFailure(status), sent, now)
	b.reached(r, now)
}

// doubt reports whether r, which has just been picked, has been silent for too
// long: twice the time of its last response, with older requests in flight. It
// reports that once until the replica is reached.
func (r *replica) doubt(now time.Time) bool {
	if r.inflight.Load() == 1 {
		r.heard.Store(now.UnixNano()) // there was nothing to answer
		return false
	}
	silence := now.UnixNano() - r.heard.Load()
	return silence > max(int64(silenceLeast), 2*r.took.Load()) && r.doubted.CompareAndSwap(false, true)
}

// reached notes that a replica accepts connections, which ends its doubt and
// ejection.
func (b *balancer) reached(r *replica, now time.Time) {
	r.heard.Store(now.UnixNano())
	if r.doubted.Load() {
		r.doubted.Store(false)
	}
	if r.failures.Load() == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	r.failures.Store(0)
	r.ejected.Store(false)
}

// allFailed reports whether no replica could be reached when it was last
// tried.
func (b *balancer) allFailed() bool {
	for _, r := range b.replicas() {
		if r.failures.Load() == 0 {
			return false
		}
	}
	return true
}

// toProbe returns the doubted replicas, and the ejected ones whose time has come to
// be tried again.
func (b *balancer) toProbe(now time.Time) []*replica {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []*replica
	for _, r := range b.replicas() {
		if ejected := r.ejected.Load(); ejected && !now.Before(r.retryAt) || !ejected && r.doubted.Load() {
			list = append(list, r)
		}
	}
	return list
}
