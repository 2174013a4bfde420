package main

// The domain: what a function is, where it comes from, and what can go wrong
// with an invocation.

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// A definition is what a provider knows about one function. It is immutable:
// a change makes a new one, with a new snapshot of the registry.
type definition struct {
	name    string    // as callers write it; valid by validName
	service string    // the provider's own handle: on Swarm the service's name
	created time.Time // the older of two claimants keeps a name or a route

	port        int           // where its replicas listen
	timeout     time.Duration // longest invocation
	maxInflight int           // 0: no limit
	scale       scaleLimits

	routes       []string // http.ServeMux patterns
	intents      []string // Alexa intents besides its own name
	applications []string // Alexa skill IDs

	replicas int // wanted, as the provider last said

	problems []string // labels that did not parse: their defaults hold
}

// scaleLimits says how a function's replicas follow its load.
type scaleLimits struct {
	kind         string  // scaleCapacity or scaleRPS
	target       float64 // load that one replica takes, above 0
	min, max     int     // replicas; equal: never scaled
	zero         bool    // to no replica after zeroDuration without a request
	zeroDuration time.Duration
	factor       int  // percent of max per step of /system/alert; 0: not scaled
	fixed        bool // not scalable at all, as a global service
}

const (
	scaleCapacity = "capacity" // requests in flight or waiting
	scaleRPS      = "rps"      // requests started per second
)

// A function is what the gateway keeps of one function across snapshots: what
// is in flight, which replicas there are, what was counted.
type function struct {
	name      string
	def       atomic.Pointer[definition]
	admission admission
	balancer  balancer
	metrics   *functionMetrics

	refreshed  atomic.Int64 // when its replicas were last looked up, nanoseconds since epoch
	refreshing atomic.Bool  // a look-up is due or under way
	gone       atomic.Bool  // no snapshot holds it any more
}

func (f *function) definition() definition { return *f.def.Load() }

// ready counts the replicas that can be called now.
func (f *function) ready() int { return f.balancer.ready() }

// totals is what the autoscaler goes by.
func (f *function) totals(now time.Duration) loadTotals {
	f.admission.mu.Lock()
	defer f.admission.mu.Unlock()
	return f.admission.load.totals(now)
}

// stale reports whether the replicas of a function in use should be looked up
// again.
func (f *function) stale(now time.Time) bool {
	return int64(now.Sub(epoch))-f.refreshed.Load() > int64(refreshInterval)
}

// A provider is where functions run.
type provider interface {
	// list returns every function. The slice is the caller's.
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

	// scale reads how many replicas are wanted now, asks decide for the new
	// number and sets it. When somebody else changed the function in
	// between, it reads and asks again. Nothing is written if decide
	// returns the current number. errRollout: a new version of the function
	// is being rolled out, which a change of replicas would disturb; from 0
	// that is no reason.
	scale(ctx context.Context, d definition, decide func(current int) int) error
}

// What callers of an invocation tell apart; outcome turns them into answers.
var (
	errNotFound    = errors.New("not found")
	errTooMany     = errors.New("too many requests")
	errNoReplica   = errors.New("no replica became ready")
	errUnreachable = errors.New("no replica could be reached")
	errRollout     = errors.New("a rollout is under way or paused")
)

const maxNameLen = 63

// validName reports whether name can be a function's: a letter or digit, then
// letters, digits, dots, underscores and hyphens, 63 bytes at most. Whatever
// else a caller sends is refused before it gets near a look-up.
func validName(name string) bool {
	if name == "" || len(name) > maxNameLen {
		return false
	}
	for i := range len(name) {
		c := name[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case i > 0 && (c == '.' || c == '_' || c == '-'):
		default:
			return false
		}
	}
	return true
}
