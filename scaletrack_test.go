package main

import (
	"math"
	"testing"
	"time"
)

// virtual is one function whose load follows a shape in virtual time. Its
// replicas are what decide says, at once and without an error.
type virtual struct {
	now     time.Duration
	d       definition
	load    load
	track   *scaleTrack
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

func newVirtual(limits scaleLimits, replicas int) *virtual {
	v := &virtual{d: definition{name: "f", service: "f", replicas: replicas, scale: limits}}
	v.track = newScaleTrack(0, v.d)
	return v
}

// run lets time pass, with as many requests in flight as shape says. By rate,
// shape is the requests started per second, and each takes no time.
func (v *virtual) run(length time.Duration, shape func(at time.Duration) float64) {
	start, end := v.now, v.now+length
	rate := v.d.scale.kind == scaleRPS
	due := 0.0
	for ; v.now < end; v.now += virtualStep {
		want := shape(v.now - start)
		if rate {
			due += want * virtualStep.Seconds()
			v.load.add(v.now, 0, int(due))
			due -= math.Floor(due)
		} else {
			delta := int(math.Round(want)) - v.load.current
			v.load.add(v.now, delta, max(delta, 0))
		}
		if v.now%scaleTick == 0 {
			ready := v.d.replicas
			if v.ready != nil {
				ready = v.ready()
			}
			v.tick(v.load.totals(v.now), ready)
		}
	}
}

func (v *virtual) tick(totals loadTotals, ready int) {
	in, _ := v.track.look(v.now, v.d, totals, ready, true)
	got := decide(in)
	if got.panic {
		v.track.panicUntil = v.now + stableWindow
	}
	if got.reason == reasonNone {
		return
	}
	v.changes = append(v.changes, virtualChange{v.now, in.replicas, got.replicas, got.reason})
	v.d.replicas = got.replicas
	v.track.applied(v.now, in, in.replicas, got.replicas)
}

// byHand sets the number of replicas as an operator does.
func (v *virtual) byHand(replicas int) { v.d.replicas = replicas }

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

func TestStepUpAndDown(t *testing.T) {
	// Whatever part of a tick the step falls on.
	for offset := time.Duration(0); offset < scaleTick; offset += virtualStep {
		v := newVirtual(testLimits(), 1)
		v.run(60*time.Second+offset, steady(0))
		up := v.now
		v.run(90*time.Second, steady(40))
		down := v.now
		v.run(90*time.Second, steady(0))

		if at := v.reached(4, 0); at < 0 || at-up > 2*time.Second {
			t.Errorf("offset %v: 4 replicas %v after the step, want at most 2s", offset, at-up)
		}
		if at := v.reached(1, down); at < 0 || at-down > 45*time.Second {
			t.Errorf("offset %v: 1 replica %v after its end, want at most 45s", offset, at-down)
		}
		for _, c := range v.changes {
			if c.to > 4 || c.at > up+5*time.Second && c.at < down+stableWindow {
				t.Errorf("offset %v: got a change %+v, want none beyond 4, nor before a stable window has passed", offset, c)
			}
		}
	}
}

func TestStepByRate(t *testing.T) {
	limits := testLimits()
	limits.kind, limits.target = scaleRPS, 50
	v := newVirtual(limits, 1)
	v.run(60*time.Second, steady(5))
	v.run(60*time.Second, steady(200))
	if at := v.reached(4, 0) - 60*time.Second; at < 0 || at > 2*time.Second {
		t.Errorf("4 replicas %v after the step, want at most 2s", at)
	}
	v.run(60*time.Second, steady(5))
	if v.d.replicas != 1 {
		t.Errorf("60 s after its end: got %d replicas, want 1", v.d.replicas)
	}
}

func TestAtMostHalvesPerStep(t *testing.T) {
	v := newVirtual(testLimits(), 1)
	v.run(60*time.Second, steady(195))
	v.run(60*time.Second, steady(0))
	if v.d.replicas != 1 {
		t.Fatalf("got %d replicas, want 1", v.d.replicas)
	}
	last := time.Duration(0)
	for _, c := range v.changes {
		if c.to > c.from {
			continue
		}
		if c.to < c.from/2 {
			t.Errorf("at %v: from %d to %d, want at least half", c.at, c.from, c.to)
		}
		if last > 0 && c.at-last < panicWindow {
			t.Errorf("at %v: %v after the last step down, want at least %v", c.at, c.at-last, panicWindow)
		}
		last = c.at
	}
}

func TestSetByHand(t *testing.T) {
	t.Run("held while the load is as it was", func(t *testing.T) {
		v := newVirtual(testLimits(), 1)
		v.run(60*time.Second, steady(3))
		v.byHand(5)
		v.run(time.Hour, func(at time.Duration) float64 { return 3 + 3*math.Sin(at.Seconds()) })
		if v.d.replicas != 5 || len(v.changes) != 0 {
			t.Errorf("got %d replicas and changes %v, want 5 and none", v.d.replicas, v.changes)
		}
	})
	t.Run("more where the load needs more", func(t *testing.T) {
		v := newVirtual(testLimits(), 1)
		v.run(60*time.Second, steady(0))
		v.byHand(2)
		v.run(60*time.Second, steady(40))
		if v.d.replicas != 4 {
			t.Errorf("got %d replicas, want 4", v.d.replicas)
		}
	})
	t.Run("what the load was before says nothing", func(t *testing.T) {
		v := newVirtual(testLimits(), 1)
		v.run(60*time.Second, steady(40))
		v.run(time.Second, steady(0))
		settled := len(v.changes)
		v.byHand(1)
		v.run(10*time.Minute, steady(0))
		if got := v.changes[settled:]; len(got) != 0 {
			t.Errorf("got changes %v, want none: the load had ended before", got)
		}
	})
	t.Run("fewer than a load that goes on needs", func(t *testing.T) {
		v := newVirtual(testLimits(), 1)
		v.run(60*time.Second, steady(40))
		v.byHand(1)
		set := v.now
		v.run(60*time.Second, steady(40))
		if at := v.reached(4, set); at < 0 || at-set > 2*time.Second {
			t.Errorf("got 4 replicas %v later, want within 2s", at-set)
		}
	})
	t.Run("let go once a load has come and gone", func(t *testing.T) {
		v := newVirtual(testLimits(), 1)
		v.run(60*time.Second, steady(0))
		v.byHand(5)
		v.run(10*time.Minute, steady(30)) // 3 would do
		if v.d.replicas != 5 {
			t.Errorf("under it: got %d replicas, want 5", v.d.replicas)
		}
		v.run(60*time.Second, steady(0))
		if v.d.replicas != 1 {
			t.Errorf("after it: got %d replicas, want 1", v.d.replicas)
		}
	})
	t.Run("let go once the load it was set at is gone", func(t *testing.T) {
		v := newVirtual(testLimits(), 1)
		v.run(60*time.Second, steady(40))
		v.byHand(8)
		v.run(10*time.Minute, steady(40))
		if v.d.replicas != 8 {
			t.Errorf("under the load: got %d replicas, want 8", v.d.replicas)
		}
		v.run(2*time.Minute, steady(0))
		if v.d.replicas != 1 {
			t.Errorf("after it: got %d replicas, want 1", v.d.replicas)
		}
	})
	t.Run("outside the limits", func(t *testing.T) {
		v := newVirtual(testLimits(), 1)
		v.run(60*time.Second, steady(3))
		v.byHand(30)
		v.run(10*time.Minute, steady(3))
		if v.d.replicas != 30 {
			t.Errorf("above the maximum: got %d replicas, want 30", v.d.replicas)
		}
		v.byHand(0)
		v.run(10*time.Minute, steady(0))
		if v.d.replicas != 0 {
			t.Errorf("at zero: got %d replicas, want 0", v.d.replicas)
		}
		v.run(time.Second, steady(1))
		if v.d.replicas != 1 {
			t.Errorf("at zero and called: got %d replicas, want 1", v.d.replicas)
		}
	})
	t.Run("new labels are the later word", func(t *testing.T) {
		v := newVirtual(testLimits(), 1)
		v.run(60*time.Second, steady(3))
		v.byHand(5)
		v.run(60*time.Second, steady(3))
		v.d.scale.min = 2
		v.run(10*time.Second, steady(3))
		if v.d.replicas != 2 {
			t.Errorf("got %d replicas, want 2", v.d.replicas)
		}
	})
	t.Run("idling counts from then", func(t *testing.T) {
		limits := testLimits()
		limits.zero, limits.zeroDuration = true, time.Minute
		v := newVirtual(limits, 1)
		v.run(59*time.Second, steady(0))
		v.byHand(2)
		set := v.now
		v.run(2*time.Minute, steady(0))
		if at := v.reached(0, 0); at != set+time.Minute {
			t.Errorf("got no replica at %v, want at %v", at, set+time.Minute)
		}
	})
}

func TestScaleToZeroAndBack(t *testing.T) {
	limits := testLimits()
	limits.zero, limits.zeroDuration = true, 5*time.Second
	v := newVirtual(limits, 1)
	v.run(20*time.Second, steady(25))
	end := v.now
	v.run(time.Minute, steady(0))
	if at := v.reached(0, end); at < end+5*time.Second || at > end+6*time.Second {
		t.Errorf("no replica %v after the last request, want 5s to 6s", at-end)
	}
	called := v.now
	v.run(time.Second, steady(12))
	if at := v.reached(1, called); at != called {
		t.Errorf("a replica for 12 callers %v after they came, want at once", at-called)
	}
	v.run(time.Hour, steady(1))
	if v.d.replicas != 1 {
		t.Errorf("with one request in flight for an hour: got %d replicas, want 1", v.d.replicas)
	}
}

// A function that went to zero starts from what its callers need then: the
// stable window may still hold a load from before.
func TestLoadBeforeZeroIsForgotten(t *testing.T) {
	limits := testLimits()
	limits.zero, limits.zeroDuration = true, 5*time.Second
	v := newVirtual(limits, 1)
	v.run(60*time.Second, steady(80))
	v.run(10*time.Second, steady(0))
	if v.d.replicas != 0 {
		t.Fatalf("got %d replicas after idling, want none", v.d.replicas)
	}
	called := len(v.changes)
	v.run(60*time.Second, steady(2))
	if got := v.changes[called:]; len(got) != 1 || got[0].to != 1 {
		t.Errorf("got changes %v for two callers, want one, to 1", got)
	}
}

func TestFirstReplicaStartsAlone(t *testing.T) {
	for _, tt := range []struct {
		name    string
		start   time.Duration // of the first replica
		soonest time.Duration // that others are ordered, after the callers came
		latest  time.Duration
	}{
		{"as quick as Swarm", time.Second, time.Second, time.Second + 2*scaleTick},
		{"a slow image", 8 * time.Second, startAlone, startAlone + 2*scaleTick},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := newVirtual(testLimits(), 0)
			v.run(30*time.Second, steady(0))
			called := v.now
			v.ready = func() int {
				if v.now < called+tt.start {
					return 0
				}
				return 1
			}
			v.run(scaleTick, steady(1)) // one is the first to come
			v.run(20*time.Second, steady(200))
			if len(v.changes) < 2 || v.changes[0].at != called || v.changes[0].to != 1 {
				t.Fatalf("got changes %v, want one replica at once, and others", v.changes)
			}
			if after := v.changes[1].at - called; after < tt.soonest || after > tt.latest {
				t.Errorf("others ordered after %v, want between %v and %v", after, tt.soonest, tt.latest)
			}
			if v.d.replicas != 20 {
				t.Errorf("got %d replicas in the end, want 20", v.d.replicas)
			}
		})
	}
}

// The replicas were taken away by hand, which only the provider knew, and one
// is started again: that it is not ready is not the old one's fault.
func TestStartBehindAHandIsANewStart(t *testing.T) {
	v := newVirtual(testLimits(), 1)
	v.run(time.Minute, steady(0))
	v.ready = func() int { return 0 }
	v.run(stuckAfter+time.Second, steady(0))
	in, _ := v.track.look(v.now, v.d, v.load.totals(v.now), 0, false)
	v.track.applied(v.now, in, 0, 1)
	in, _ = v.track.look(v.now+time.Second, v.d, v.load.totals(v.now), 0, true)
	if !in.alone || in.stuck {
		t.Errorf("got alone %v and stuck %v, want the replica to start alone", in.alone, in.stuck)
	}
}

func TestReplicasOfABurstFromZeroStayForAWindow(t *testing.T) {
	limits := testLimits()
	limits.zero = true
	v := newVirtual(limits, 0)
	v.run(time.Minute, steady(0))
	called := v.now
	v.run(time.Second, steady(70)) // all served as soon as one replica is ready
	v.run(time.Minute, steady(2))
	most := 0
	for _, c := range v.changes {
		if c.to < c.from && c.at < called+stableWindow {
			t.Errorf("from %d to %d replicas %v after the burst, want fewer only after %v", c.from, c.to, c.at-called, stableWindow)
		}
		most = max(most, c.to)
	}
	if most < 4 || v.d.replicas != 1 {
		t.Errorf("got %d replicas at most and %d in the end, want at least 4 and 1: %v", most, v.d.replicas, v.changes)
	}
}

func TestNewFunctionHasNotIdledSinceTheProcessStarted(t *testing.T) {
	limits := testLimits()
	limits.zero, limits.zeroDuration = true, time.Minute
	v := newVirtual(limits, 1)
	v.now = 10 * time.Hour // the gateway has run for long, the function has not
	v.track = newScaleTrack(v.now, v.d)
	v.run(2*time.Minute, steady(0))
	if at := v.reached(0, 0); at != 10*time.Hour+time.Minute {
		t.Errorf("got no replica at %v, want a minute after the function was seen", at)
	}
}

func TestRegistryThatLagsIsNotAHand(t *testing.T) {
	v := newVirtual(testLimits(), 1)
	v.run(60*time.Second, steady(40))
	if v.d.replicas != 4 {
		t.Fatalf("got %d replicas, want 4", v.d.replicas)
	}
	in, _ := v.track.look(v.now, v.d, v.load.totals(v.now), 4, true)
	v.track.applied(v.now, in, 4, 6)
	for _, shown := range []int{4, 6} {
		v.d.replicas = shown
		v.now += scaleTick
		in, byHand := v.track.look(v.now, v.d, v.load.totals(v.now), 4, true)
		if byHand || in.held || in.replicas != 6 {
			t.Errorf("shown %d: got by hand %v, held %v, %d replicas; want our own 6", shown, byHand, in.held, in.replicas)
		}
	}
	v.d.replicas = 4
	v.now += echoTime
	if in, byHand := v.track.look(v.now, v.d, v.load.totals(v.now), 4, true); !byHand || !in.held || in.replicas != 4 {
		t.Errorf("after the echo: got by hand %v, held %v, %d replicas; want somebody's 4", byHand, in.held, in.replicas)
	}
}

func TestCallThatFailedOnTheWayBackIsNotAHand(t *testing.T) {
	v := newVirtual(testLimits(), 1)
	v.run(30*time.Second, steady(0))
	v.track.failed(4, v.now)
	v.d.replicas = 4 // it had been done all the same
	in, byHand := v.track.look(v.now, v.d, v.load.totals(v.now), 1, true)
	if byHand || in.held || in.replicas != 4 {
		t.Errorf("got by hand %v, held %v, %d replicas; want our own 4", byHand, in.held, in.replicas)
	}
}

func TestSuspendedMachineStartsTheWindowsAnew(t *testing.T) {
	limits := testLimits()
	limits.zero, limits.zeroDuration = true, time.Minute
	v := newVirtual(limits, 1)
	v.run(60*time.Second, steady(8))
	v.now += 3 * time.Hour // with 8 requests in flight
	resumed := v.now
	v.run(29*time.Second, steady(0))
	if len(v.changes) != 0 {
		t.Errorf("got changes %v, want none", v.changes)
	}
	v.run(time.Minute, steady(0))
	if at := v.reached(0, 0); at < resumed+time.Minute {
		t.Errorf("no replica %v after it resumed, want at least a minute", at-resumed)
	}
}

func TestImageThatCannotStartAsksForNoMore(t *testing.T) {
	v := newVirtual(testLimits(), 0)
	v.ready = func() int { return 0 }
	v.run(time.Second, steady(0))
	// Callers come all the time and wait for their 30 s.
	v.run(10*time.Minute, func(at time.Duration) float64 { return math.Min(at.Seconds(), 30) * 10 })
	late := 0
	for _, c := range v.changes {
		if c.at > 12*time.Second {
			late++
		}
	}
	if late > 0 {
		t.Errorf("got %d changes after %v without a ready replica, want none: %v", late, stuckAfter, v.changes)
	}
	v.ready = nil
	v.run(2*time.Second, steady(300))
	if v.d.replicas != 20 {
		t.Errorf("once one is ready: got %d replicas, want 20", v.d.replicas)
	}
}

// Changes of a load that repeats itself are few: none under a constant one,
// and at most one up and down in a period that is longer than the window.
func TestNoFlapping(t *testing.T) {
	sawtooth := func(period time.Duration, low, high float64) func(time.Duration) float64 {
		return func(at time.Duration) float64 {
			return low + (high-low)*float64(at%period)/float64(period)
		}
	}
	for _, target := range []float64{1, 3, 10} {
		for _, load := range []float64{1, 9, 10, 11, 39, 40, 41, 95} {
			limits := testLimits()
			limits.target, limits.max = target, 100
			v := newVirtual(limits, 1)
			v.run(5*time.Minute, steady(load))
			settled := len(v.changes)
			v.run(20*time.Minute, steady(load))
			if got := len(v.changes) - settled; got != 0 {
				t.Errorf("constant %v at target %v: got %d changes in 20 minutes, want none", load, target, got)
			}
			if want := max(replicasFor(load, target), 1); v.d.replicas != want {
				t.Errorf("constant %v at target %v: got %d replicas, want %d", load, target, v.d.replicas, want)
			}
		}
	}
	for _, period := range []time.Duration{time.Second, 4 * time.Second, 15 * time.Second, 25 * time.Second} {
		v := newVirtual(testLimits(), 1)
		v.run(5*time.Minute, sawtooth(period, 0, 80))
		settled := len(v.changes)
		v.run(20*time.Minute, sawtooth(period, 0, 80))
		if got := len(v.changes) - settled; got != 0 {
			t.Errorf("sawtooth of %v: got %d changes in 20 minutes, want none: %v", period, got, v.changes[settled:min(settled+9, len(v.changes))])
		}
	}
	for _, period := range []time.Duration{40 * time.Second, time.Minute, 5 * time.Minute} {
		v := newVirtual(testLimits(), 1)
		v.run(time.Hour, sawtooth(period, 0, 80))
		turns, up := 0, true
		for _, c := range v.changes {
			if up != (c.to > c.from) {
				turns++
				up = !up
			}
		}
		if most := 2 * int(time.Hour/period); turns > most {
			t.Errorf("sawtooth of %v: got %d turns in an hour, want at most %d", period, turns, most)
		}
	}
}

// BenchmarkScaleLook is what one tick costs for one function.
func BenchmarkScaleLook(b *testing.B) {
	d := definition{name: "f", replicas: 1, scale: testLimits()}
	track := newScaleTrack(0, d)
	var l load
	now := time.Duration(0)
	b.ReportAllocs()
	for b.Loop() {
		now += scaleTick
		in, _ := track.look(now, d, l.totals(now), 1, true)
		decide(in)
	}
}
