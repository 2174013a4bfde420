package scale

// Replicas that somebody else has set.

import (
	"context"
	"math"
	"testing"
	"time"
)

func TestSetByHand(t *testing.T) {
	t.Run("held while the load is as it was", func(t *testing.T) {
		v := newVirtual(testLimits(), 1)
		v.run(60*time.Second, steady(3))
		v.byHand(5)
		v.run(time.Hour, func(at time.Duration) float64 { return 3 + 3*math.Sin(at.Seconds()) })
		if v.d.Replicas != 5 || len(v.changes) != 0 {
			t.Errorf("got %d replicas and changes %v, want 5 and none", v.d.Replicas, v.changes)
		}
	})
	t.Run("more where the load needs more", func(t *testing.T) {
		v := newVirtual(testLimits(), 1)
		v.run(60*time.Second, steady(0))
		v.byHand(2)
		v.run(60*time.Second, steady(40))
		if v.d.Replicas != 4 {
			t.Errorf("got %d replicas, want 4", v.d.Replicas)
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
		if v.d.Replicas != 5 {
			t.Errorf("under it: got %d replicas, want 5", v.d.Replicas)
		}
		v.run(60*time.Second, steady(0))
		if v.d.Replicas != 1 {
			t.Errorf("after it: got %d replicas, want 1", v.d.Replicas)
		}
	})
	t.Run("let go once the load it was set at is gone", func(t *testing.T) {
		v := newVirtual(testLimits(), 1)
		v.run(60*time.Second, steady(40))
		v.byHand(8)
		v.run(10*time.Minute, steady(40))
		if v.d.Replicas != 8 {
			t.Errorf("under the load: got %d replicas, want 8", v.d.Replicas)
		}
		v.run(2*time.Minute, steady(0))
		if v.d.Replicas != 1 {
			t.Errorf("after it: got %d replicas, want 1", v.d.Replicas)
		}
	})
	t.Run("outside the limits", func(t *testing.T) {
		v := newVirtual(testLimits(), 1)
		v.run(60*time.Second, steady(3))
		v.byHand(30)
		v.run(10*time.Minute, steady(3))
		if v.d.Replicas != 30 {
			t.Errorf("above the maximum: got %d replicas, want 30", v.d.Replicas)
		}
		v.byHand(0)
		v.run(10*time.Minute, steady(0))
		if v.d.Replicas != 0 {
			t.Errorf("at zero: got %d replicas, want 0", v.d.Replicas)
		}
		v.run(time.Second, steady(1))
		if v.d.Replicas != 1 {
			t.Errorf("at zero and called: got %d replicas, want 1", v.d.Replicas)
		}
	})
	t.Run("new labels are the later word", func(t *testing.T) {
		v := newVirtual(testLimits(), 1)
		v.run(60*time.Second, steady(3))
		v.byHand(5)
		v.run(60*time.Second, steady(3))
		v.d.Limits.Min = 2
		v.run(10*time.Second, steady(3))
		if v.d.Replicas != 2 {
			t.Errorf("got %d replicas, want 2", v.d.Replicas)
		}
	})
	t.Run("idling counts from then", func(t *testing.T) {
		limits := testLimits()
		limits.Zero, limits.ZeroDuration = true, time.Minute
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

func TestRegistryThatLagsIsNotAHand(t *testing.T) {
	v := newVirtual(testLimits(), 1)
	v.run(60*time.Second, steady(40))
	if v.d.Replicas != 4 {
		t.Fatalf("got %d replicas, want 4", v.d.Replicas)
	}
	in, _ := v.track.look(v.now, v.d, v.load.Totals(v.now), 4, true)
	v.track.applied(v.now, in, 4, 6)
	for _, shown := range []int{4, 6} {
		v.d.Replicas = shown
		v.now += tickInterval
		in, byHand := v.track.look(v.now, v.d, v.load.Totals(v.now), 4, true)
		if byHand || in.held || in.replicas != 6 {
			t.Errorf("shown %d: got by hand %v, held %v, %d replicas; want our own 6", shown, byHand, in.held, in.replicas)
		}
	}
	v.d.Replicas = 4
	v.now += echoTime
	if in, byHand := v.track.look(v.now, v.d, v.load.Totals(v.now), 4, true); !byHand || !in.held || in.replicas != 4 {
		t.Errorf("after the echo: got by hand %v, held %v, %d replicas; want somebody's 4", byHand, in.held, in.replicas)
	}
}

func TestCallThatFailedOnTheWayBackIsNotAHand(t *testing.T) {
	v := newVirtual(testLimits(), 1)
	v.run(30*time.Second, steady(0))
	v.track.failed(4, context.DeadlineExceeded, v.now)
	v.d.Replicas = 4 // it had been done all the same
	in, byHand := v.track.look(v.now, v.d, v.load.Totals(v.now), 1, true)
	if byHand || in.held || in.replicas != 4 {
		t.Errorf("got by hand %v, held %v, %d replicas; want our own 4", byHand, in.held, in.replicas)
	}
}
