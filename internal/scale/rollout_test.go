package scale

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A rollout that paused by a failure stays so until somebody ends it. That it
// keeps the function from being scaled was logged every few seconds.
func TestAutoscalerSaysOnceThatARolloutIsInItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newScaleWorld()
		f := w.add("f", testLimits(), 1)
		w.fail(func(context.Context, string) error { return ErrRollout })
		s := startScaling(t, w)
		want := func(when string, warnings, ends, replicas int) {
			t.Helper()
			synctest.Wait()
			w.expect(t, "f", replicas)
			_, log := s.seen()
			if got := strings.Count(log, "level=WARN"); got != warnings {
				t.Errorf("%s: got %d warnings, want %d:\n%s", when, got, warnings, log)
			}
			if got := strings.Count(log, "can be scaled again"); got != ends {
				t.Errorf("%s: got %d lines about the end, want %d:\n%s", when, got, ends, log)
			}
		}
		time.Sleep(time.Minute)
		f.call(40)
		time.Sleep(3 * time.Second)
		w.rollOut("f", true) // the list shows it later than the first try
		time.Sleep(10 * time.Minute)
		if calls := len(w.callsOf("f")); calls < 20 {
			t.Errorf("got %d tries in ten minutes, want 20 or more", calls)
		}
		want("paused under load", 1, 0, 1)
		w.fail(func(context.Context, string) error { return errors.New("no leader") })
		time.Sleep(10 * time.Minute)
		want("and now for another reason", 2, 0, 1)
		w.fail(func(context.Context, string) error { return ErrRollout })
		time.Sleep(10 * time.Minute)
		want("and again for the rollout", 3, 0, 1)

		w.rollOut("f", false)
		w.fail(nil)
		time.Sleep(2 * tickInterval) // in the middle of a pause of 15 s or more
		want("ended", 3, 1, 4)
	})
}

// While a rollout is paused, the load may come and go.
func TestAutoscalerSaysThatARolloutHasEndedWhenItHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newScaleWorld()
		f := w.add("f", testLimits(), 1)
		w.rollOut("f", true)
		w.fail(func(context.Context, string) error { return ErrRollout })
		s := startScaling(t, w)
		for range 5 {
			f.call(40)
			time.Sleep(time.Minute)
			f.call(-40)
			time.Sleep(time.Minute)
		}
		ends := func() int {
			_, log := s.seen()
			if got := strings.Count(log, "level=WARN"); got != 1 {
				t.Errorf("got %d warnings, want 1:\n%s", got, log)
			}
			return strings.Count(log, "can be scaled again")
		}
		if got := ends(); got != 0 {
			t.Errorf("got %d lines about the end of a rollout that is paused, want none", got)
		}
		w.rollOut("f", false)
		time.Sleep(2 * tickInterval)
		if got := ends(); got != 1 {
			t.Errorf("got %d lines about the end, want one although there is no load now", got)
		}
	})
}
