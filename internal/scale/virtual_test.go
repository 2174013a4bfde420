package scale

// A function in virtual time, without the loop.

import (
	"math"
	"time"
)

// testLimits are the defaults of the gateway's settings.
func testLimits() Limits {
	return Limits{Kind: Capacity, Target: 10, Min: 1, Max: 20, ZeroDuration: 15 * time.Minute, Factor: 20}
}

// virtual is one function whose load follows a shape in virtual time. Its
// replicas are what decide says, at once and without an error.
type virtual struct {
	now     time.Duration
	d       State
	load    Load
	track   *track
	ready   func() int // nil: all replicas are
	changes []virtualChange
}

type virtualChange struct {
	at       time.Duration
	from, to int
	reason   string
}

// virtualStep is how often a shape is read.
const virtualStep = 50 * time.Millisecond

func newVirtual(limits Limits, replicas int) *virtual {
	v := &virtual{d: State{Name: "f", Service: "f", Replicas: replicas, Limits: limits}}
	v.track = newTrack(0, v.d)
	return v
}

// run lets time pass, with as many requests in flight as shape says. By rate,
// shape is the requests started per second, and each takes no time.
func (v *virtual) run(length time.Duration, shape func(at time.Duration) float64) {
	start, end := v.now, v.now+length
	rate := v.d.Limits.Kind == RPS
	due := 0.0
	for ; v.now < end; v.now += virtualStep {
		want := shape(v.now - start)
		if rate {
			due += want * virtualStep.Seconds()
			v.load.Add(v.now, 0, int(due))
			due -= math.Floor(due)
		} else {
			delta := int(math.Round(want)) - v.load.current
			v.load.Add(v.now, delta, max(delta, 0))
		}
		if v.now%tickInterval == 0 {
			ready := v.d.Replicas
			if v.ready != nil {
				ready = v.ready()
			}
			v.tick(v.load.Totals(v.now), ready)
		}
	}
}

func (v *virtual) tick(totals Totals, ready int) {
	in, _ := v.track.look(v.now, v.d, totals, ready, true)
	got := decide(in)
	if got.panic {
		v.track.panicUntil = v.now + stableWindow
	}
	if got.reason == reasonNone {
		return
	}
	v.changes = append(v.changes, virtualChange{v.now, in.replicas, got.replicas, got.reason})
	v.d.Replicas = got.replicas
	v.track.applied(v.now, in, in.replicas, got.replicas)
}

// byHand sets the number of replicas as an operator does.
func (v *virtual) byHand(replicas int) { v.d.Replicas = replicas }

// reached returns when replicas were first wanted at or after from, -1 if never.
func (v *virtual) reached(replicas int, from time.Duration) time.Duration {
	for _, c := range v.changes {
		if c.at >= from && c.to == replicas {
			return c.at
		}
	}
	return -1
}

func steady(load float64) func(time.Duration) float64 {
	return func(time.Duration) float64 { return load }
}
