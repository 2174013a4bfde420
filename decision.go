package main

// How many replicas a function should have: a pure function of its load, its
// limits and what it has now.

import "time"

const (
	// panicRatio is how far the short window's load may lie above what the
	// replicas take before it is a surge that cannot wait for the stable
	// window: far enough that the noise of a steady load stays below.
	panicRatio = 1.2

	// startAlone is how long a function's first replica has the machines to
	// itself: others that start beside it on the same ones delay it, and with
	// it the first answer. A start that takes longer is not Swarm's, but the
	// image's, and those who wait do not wait for one start after another.
	startAlone = 3 * time.Second

	// stuckAfter is how long a function may have replicas wanted and none
	// ready before its load no longer asks for more of them: an image that
	// cannot start does not start better twenty times.
	stuckAfter = 10 * time.Second
)

// Why a decision was taken. A closed set: it labels a metric.
const (
	reasonNone   = ""
	reasonWake   = "wake"   // a caller waits and there is no replica
	reasonPanic  = "panic"  // the short window shows a surge
	reasonLoad   = "load"   // the stable window's mean needs more
	reasonCalm   = "calm"   // the stable window's peak needs fewer
	reasonIdle   = "idle"   // no request for the zero duration
	reasonLimits = "limits" // outside the minimum and the maximum
)

// scaleInput is everything that a decision depends on. Loads are in the unit
// of limits.kind.
type scaleInput struct {
	limits   scaleLimits
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
	alone     bool // the first replica starts: no others for startAlone
	stuck     bool // no replica got ready within stuckAfter
}

// A decision is the number of replicas to have, with what led to it.
type decision struct {
	replicas int
	reason   string        // reasonNone: leave it as it is
	load     float64       // that asked for it
	window   time.Duration // over which load was measured; 0: this moment
	panic    bool          // a surge shows now, whether or not it leads to more
}

// scales reports whether the function follows its load at all.
func (s scaleLimits) scales() bool {
	return !s.fixed && s.min < s.max && s.factor > 0
}

// floor is the fewest replicas of a function in use. Only the zero duration
// takes one below it, so a minimum of 0 is a minimum of 1.
func (s scaleLimits) floor() int { return max(s.min, 1) }

// decide says how many replicas there should be.
//
// Up, it follows the stable window's mean, or, in a surge, the surge window's
// at once. Down, it keeps what the busiest panic window of the stable window
// needed and what the requests of this moment need, and at most halves.
func decide(in scaleInput) decision {
	s := in.limits
	keep := decision{replicas: in.replicas}
	if !s.scales() {
		return keep
	}
	within := func(load float64) int {
		return min(max(replicasFor(load, s.target), s.floor()), s.max)
	}

	// now is the load of this moment. Nothing says which rate a request in
	// flight stands for, so by rate it counts only for not being zero.
	now := 0.0
	if s.kind == scaleCapacity {
		now = float64(in.inFlight)
	}

	if in.replicas == 0 {
		// Whoever put it there, it stays there until it is called.
		if in.inFlight == 0 {
			return keep
		}
		return decision{replicas: s.floor(), reason: reasonWake, load: max(now, in.surge)}
	}
	if s.zero && in.inFlight == 0 && in.idle >= s.zeroDuration {
		return decision{reason: reasonIdle, window: s.zeroDuration}
	}

	keep.panic = in.short > panicRatio*s.target*float64(in.replicas)
	if !in.alone && !in.stuck {
		up := decision{replicas: in.replicas}
		ask := func(load float64, reason string, window time.Duration) {
			// A minimum is no load: compare before it raises the number.
			if replicasFor(load, s.target) > in.replicas && within(load) > up.replicas {
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
	if n := min(max(in.replicas, s.floor()), s.max); n != in.replicas {
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
func (in scaleInput) decideAgain(now time.Duration, totals loadTotals, current int) decision {
	in.inFlight = totals.current
	in.idle = min(in.idle, now-totals.lastActive)
	if current != in.replicas {
		in.replicas = current
		in.held = true
		in.idle = 0
	}
	return decide(in)
}
