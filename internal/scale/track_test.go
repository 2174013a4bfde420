package scale

import (
	"math"
	"testing"
	"time"
)

func TestStepUpAndDown(t *testing.T) {
	// Whatever part of a tick the step falls on.
	for offset := time.Duration(0); offset < tickInterval; offset += virtualStep {
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
	limits.Kind, limits.Target = RPS, 50
	v := newVirtual(limits, 1)
	v.run(60*time.Second, steady(5))
	v.run(60*time.Second, steady(200))
	if at := v.reached(4, 0) - 60*time.Second; at < 0 || at > 2*time.Second {
		t.Errorf("4 replicas %v after the step, want at most 2s", at)
	}
	v.run(60*time.Second, steady(5))
	if v.d.Replicas != 1 {
		t.Errorf("60 s after its end: got %d replicas, want 1", v.d.Replicas)
	}
}

func TestAtMostHalvesPerStep(t *testing.T) {
	v := newVirtual(testLimits(), 1)
	v.run(60*time.Second, steady(195))
	v.run(60*time.Second, steady(0))
	if v.d.Replicas != 1 {
		t.Fatalf("got %d replicas, want 1", v.d.Replicas)
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

func TestScaleToZeroAndBack(t *testing.T) {
	limits := testLimits()
	limits.Zero, limits.ZeroDuration = true, 5*time.Second
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
	if v.d.Replicas != 1 {
		t.Errorf("with one request in flight for an hour: got %d replicas, want 1", v.d.Replicas)
	}
}

// A function that went to zero starts from what its callers need then: the
// stable window may still hold a load from before.
func TestLoadBeforeZeroIsForgotten(t *testing.T) {
	limits := testLimits()
	limits.Zero, limits.ZeroDuration = true, 5*time.Second
	v := newVirtual(limits, 1)
	v.run(60*time.Second, steady(80))
	v.run(10*time.Second, steady(0))
	if v.d.Replicas != 0 {
		t.Fatalf("got %d replicas after idling, want none", v.d.Replicas)
	}
	called := len(v.changes)
	v.run(60*time.Second, steady(2))
	if got := v.changes[called:]; len(got) != 1 || got[0].to != 1 {
		t.Errorf("got changes %v for two callers, want one, to 1", got)
	}
}

func TestFirstReplicaStartsAlone(t *testing.T) {
	for name, start := range map[string]time.Duration{"as quick as Swarm": time.Second, "a slow image": 25 * time.Second} {
		t.Run(name, func(t *testing.T) {
			v := newVirtual(testLimits(), 0)
			v.run(30*time.Second, steady(0))
			called := v.now
			v.ready = func() int {
				if v.now < called+start {
					return 0
				}
				return 1
			}
			v.run(tickInterval, steady(1)) // one is the first to come
			v.run(start+10*time.Second, steady(200))
			if len(v.changes) < 2 || v.changes[0].at != called || v.changes[0].to != 1 {
				t.Fatalf("got changes %v, want one replica at once, and others", v.changes)
			}
			if after := v.changes[1].at - called; after < start || after > start+2*tickInterval {
				t.Errorf("others ordered after %v, want between %v and %v", after, start, start+2*tickInterval)
			}
			if v.d.Replicas != 20 {
				t.Errorf("got %d replicas in the end, want 20", v.d.Replicas)
			}
		})
	}
}

func TestReplicasOfABurstFromZeroStayForAWindow(t *testing.T) {
	limits := testLimits()
	limits.Zero = true
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
	if most < 4 || v.d.Replicas != 1 {
		t.Errorf("got %d replicas at most and %d in the end, want at least 4 and 1: %v", most, v.d.Replicas, v.changes)
	}
}

func TestNewFunctionHasNotIdledSinceTheProcessStarted(t *testing.T) {
	limits := testLimits()
	limits.Zero, limits.ZeroDuration = true, time.Minute
	v := newVirtual(limits, 1)
	v.now = 10 * time.Hour // the gateway has run for long, the function has not
	v.track = newTrack(v.now, v.d)
	v.run(2*time.Minute, steady(0))
	if at := v.reached(0, 0); at != 10*time.Hour+time.Minute {
		t.Errorf("got no replica at %v, want a minute after the function was seen", at)
	}
}

func TestSuspendedMachineStartsTheWindowsAnew(t *testing.T) {
	limits := testLimits()
	limits.Zero, limits.ZeroDuration = true, time.Minute
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
	if len(v.changes) != 1 || v.changes[0].to != 1 {
		t.Errorf("got changes %v, want one replica and no more before it is ready", v.changes)
	}
	v.ready = nil
	v.run(2*time.Second, steady(300))
	if v.d.Replicas != 20 {
		t.Errorf("once one is ready: got %d replicas, want 20", v.d.Replicas)
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
			limits.Target, limits.Max = target, 100
			v := newVirtual(limits, 1)
			v.run(5*time.Minute, steady(load))
			settled := len(v.changes)
			v.run(20*time.Minute, steady(load))
			if got := len(v.changes) - settled; got != 0 {
				t.Errorf("constant %v at target %v: got %d changes in 20 minutes, want none", load, target, got)
			}
			if want := max(replicasFor(load, target), 1); v.d.Replicas != want {
				t.Errorf("constant %v at target %v: got %d replicas, want %d", load, target, v.d.Replicas, want)
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
	d := State{Name: "f", Replicas: 1, Limits: testLimits()}
	track := newTrack(0, d)
	var l Load
	now := time.Duration(0)
	b.ReportAllocs()
	for b.Loop() {
		now += tickInterval
		in, _ := track.look(now, d, l.Totals(now), 1, true)
		decide(in)
	}
}
