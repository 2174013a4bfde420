package scale

// How many replicas a function should have: a pure function of its load, its
// limits and what it has now.

import "time"

// Limits says how a function's replicas follow its load.
type Limits struct {
	Kind         string  // Capacity or RPS
	Target       float64 // load that one replica takes, above 0
	Min, Max     int     // replicas; equal: never scaled
	Zero         bool    // to no replica after ZeroDuration without a request
	ZeroDuration time.Duration
	Factor       int  // percent of max per step of /system/alert; 0: not scaled
	Fixed        bool // not scalable at all, as a global service
}

// What is counted as load: the Kind of Limits.
const (
	Capacity = "capacity" // requests in flight or waiting
	RPS      = "rps"      // requests started per second
)

// panicRatio is how far the short window's load may exceed what the replicas take
// before it counts as a surge, which cannot wait for the stable window. It is large
// enough to ignore the noise of a steady load.
const panicRatio = 1.2

// The reasons of a decision. A closed set: it labels a metric.
const (
	reasonNone   = ""
	reasonWake   = "wake"   // a caller waits and there is no replica
	reasonPanic  = "panic"  // the short window shows a surge
	reasonLoad   = "load"   // the stable window's mean needs more
	reasonCalm   = "calm"   // the stable window's peak needs fewer
	reasonIdle   = "idle"   // no request for the zero duration
	reasonLimits = "limits" // outside the minimum and the maximum
)

// input is everything that a decision depends on. Loads are in the unit
// of limits.kind.
type input struct {
	limits   Limits
	replicas int // wanted now
	inFlight int // requests in flight and waiting at this moment

	stable float64 // mean load over the stable window
	short  float64 // mean over the panic window
	surge  float64 // mean over the surge window
	peak   float64 // highest short in the stable window

	idle time.Duration // since the last request, or the last change by hand

	panicking bool // a surge showed within the last stable window
	settled   bool // the windows are full and no step down was just made
	held      bool // somebody set replicas by hand, and the load is as it was
	none      bool // no replica is ready
}

// A decision is the number of replicas to have, with what led to it.
type decision struct {
	replicas int
	reason   string        // reasonNone: leave it as it is
	load     float64       // that asked for it
	window   time.Duration // over which load was measured; 0: this moment
	panic    bool          // a surge shows now, whether or not it leads to more
}

// Scales reports whether the function follows its load at all.
func (s Limits) Scales() bool {
	return !s.Fixed && s.Min < s.Max && s.Factor > 0
}

// floor is the fewest replicas of a function in use. Only idling for the zero
// duration goes below it, so a minimum of 0 is a minimum of 1.
func (s Limits) floor() int { return max(s.Min, 1) }

// decide says how many replicas there should be.
//
// Up, it follows the stable window's mean, or, in a surge, the surge window's
// at once, but only once a replica is ready. Down, it keeps what the busiest
// panic window of the stable window needed and what the requests of this moment
// need, and at most halves.
func decide(in input) decision {
	s := in.limits
	keep := decision{replicas: in.replicas}
	if !s.Scales() {
		return keep
	}
	within := func(load float64) int {
		return min(max(replicasFor(load, s.Target), s.floor()), s.Max)
	}

	// now is the current load. A request in flight corresponds to no known rate, so
	// by rate it only counts as not zero.
	now := 0.0
	if s.Kind == Capacity {
		now = float64(in.inFlight)
	}

	if in.replicas == 0 {
		// Whoever scaled it to zero, it stays there until it is called.
		if in.inFlight == 0 {
			return keep
		}
		return decision{replicas: s.floor(), reason: reasonWake, load: max(now, in.surge)}
	}
	if s.Zero && in.inFlight == 0 && in.idle >= s.ZeroDuration {
		return decision{reason: reasonIdle, window: s.ZeroDuration}
	}

	keep.panic = in.short > panicRatio*s.Target*float64(in.replicas)
	// Callers that wait for a first replica are load, too. But further replicas
	// that start on the same machines delay it, and an image that cannot start once
	// cannot start twenty times.
	if !in.none {
		up := decision{replicas: in.replicas}
		ask := func(load float64, reason string, window time.Duration) {
			// A minimum is not load: compare before it raises the number.
			if replicasFor(load, s.Target) > in.replicas && within(load) > up.replicas {
				up = decision{within(load), reason, load, window, keep.panic}
			}
		}
		ask(in.stable, reasonLoad, stableWindow)
		if in.panicking || keep.panic {
			ask(in.surge, reasonPanic, surgeWindow)
		}
		if up.reason != reasonNone {
			return up
		}
	}
	if in.held {
		return keep
	}
	if n := min(max(in.replicas, s.floor()), s.Max); n != in.replicas {
		return decision{replicas: n, reason: reasonLimits, panic: keep.panic}
	}

	if in.panicking || keep.panic || !in.settled {
		return keep
	}
	asked := max(in.peak, in.stable, now)
	down := max(within(asked), (in.replicas+1)/2)
	if down >= in.replicas {
		return keep
	}
	return decision{replicas: down, reason: reasonCalm, load: asked, window: stableWindow}
}

// decideAgain decides for the number of replicas that the provider has at this
// moment, and for the requests since the input was taken. When the number is
// not the one that the input knew, somebody has just set it by hand.
func (in input) decideAgain(now time.Duration, totals Totals, current int) decision {
	in.inFlight = totals.InFlight
	in.idle = min(in.idle, now-totals.LastActive)
	if current != in.replicas {
		in.replicas = current
		in.held = true
		in.idle = 0
	}
	return decide(in)
}
