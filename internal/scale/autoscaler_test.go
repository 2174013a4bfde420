package scale

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestAutoscalerFollowsTwoFunctions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newScaleWorld()
		busy, idle := w.add("busy", testLimits(), 1), w.add("idle", testLimits(), 1)
		s := startScaling(t, w)
		time.Sleep(time.Minute)
		busy.call(40)
		idle.call(2)
		time.Sleep(3 * time.Second)
		w.expect(t, "busy", 4)
		time.Sleep(time.Minute)
		w.expect(t, "busy", 4)
		busy.call(-40)
		time.Sleep(time.Minute)
		w.expect(t, "busy", 1)
		w.expect(t, "idle", 1)
		if calls := w.callsOf("idle"); len(calls) != 0 {
			t.Errorf("got %d calls for the function without a change, want none", len(calls))
		}

		changes, log := s.seen()
		if len(changes) == 0 || !strings.HasSuffix(changes[0], "panic") || changes[len(changes)-1] != "busy 2->1 calm" {
			t.Errorf("got changes %q, want the first in panic and the last busy 2->1 calm", changes)
		}
		if got := strings.Count(log, "msg=\"function scaled\""); got != len(changes) {
			t.Errorf("got %d log lines for %d changes:\n%s", got, len(changes), log)
		}
		for _, key := range []string{"function=busy", "from=2", "to=1", "reason=calm", "load=0", "target=10", "window=30s"} {
			if !strings.Contains(log, key) {
				t.Errorf("log: got no %s in\n%s", key, log)
			}
		}
	})
}

func TestAutoscalerWakesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newScaleWorld()
		f := w.add("f", testLimits(), 0)
		s := startScaling(t, w)
		time.Sleep(time.Minute + 100*time.Millisecond) // between two ticks
		f.call(25)
		s.Wake("f")
		s.Wake("nobody")
		called := w.now()
		synctest.Wait()
		w.expect(t, "f", 1)
		if calls := w.callsOf("f"); len(calls) != 1 || calls[0] != called {
			t.Errorf("got calls at %v, want one at %v", calls, called)
		}
		s.Wake("f") // more callers while it starts
		synctest.Wait()
		if calls := w.callsOf("f"); len(calls) != 1 {
			t.Errorf("got %d calls, want 1", len(calls))
		}
	})
}

// What was set a moment ago counts, also when the registry does not show it
// yet. But somebody may have set it to none since.
func TestAutoscalerWakesWhatWasTakenAwayAMomentAgo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newScaleWorld()
		f := w.add("f", testLimits(), 0)
		s := startScaling(t, w)
		time.Sleep(time.Minute)
		f.call(1)
		s.Wake("f")
		synctest.Wait()
		w.expect(t, "f", 1)
		f.call(-1)
		time.Sleep(echoTime / 2)
		w.set("f", 0)
		time.Sleep(tickInterval)
		f.call(1)
		s.Wake("f")
		synctest.Wait()
		w.expect(t, "f", 1)
		if _, log := s.seen(); strings.Count(log, "function scaled by hand") != 1 {
			t.Errorf("got the log\n%s\nwant one line about the hand that took it away", log)
		}
	})
}

func TestAutoscalerWakesEvenWithoutBeingAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newScaleWorld()
		f := w.add("f", testLimits(), 0)
		startScaling(t, w)
		time.Sleep(time.Minute)
		f.call(1)
		time.Sleep(tickInterval)
		synctest.Wait()
		w.expect(t, "f", 1)
	})
}

func TestWakeNeverBlocks(t *testing.T) {
	w := newScaleWorld()
	a := New(w.functions, w, Options{Now: w.now, Log: slog.New(slog.DiscardHandler)})
	for range 10_000 {
		a.Wake("f") // nobody runs a
	}
	if got := len(a.wakes); got > cap(a.wakes) || got == 0 {
		t.Errorf("got %d wakes kept, want 1 to %d", got, cap(a.wakes))
	}
}

func TestAutoscalerDecidesAgainOnAConflict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newScaleWorld()
		f := w.add("f", testLimits(), 1)
		s := startScaling(t, w)
		time.Sleep(time.Minute)
		// Somebody is faster, and sets more than the load needs.
		w.fail(func(context.Context, string) error { w.set("f", 6); return nil })
		f.call(40)
		time.Sleep(time.Minute)
		w.expect(t, "f", 6)
		changes, log := s.seen()
		if len(changes) != 0 {
			t.Errorf("got changes %q, want none", changes)
		}
		if !strings.Contains(log, "by hand") {
			t.Errorf("got log %q, want a line on the change by hand", log)
		}
		if calls := w.callsOf("f"); len(calls) != 1 {
			t.Errorf("got %d calls, want 1", len(calls))
		}
	})
}

func TestAutoscalerBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newScaleWorld()
		f := w.add("f", testLimits(), 0)
		w.fail(func(context.Context, string) error { return errors.New("no leader") })
		s := startScaling(t, w)
		time.Sleep(time.Minute)
		f.call(1)
		for range 600 { // a caller every second for ten minutes
			s.Wake("f")
			time.Sleep(time.Second)
		}
		calls := w.callsOf("f")
		if len(calls) < 20 || len(calls) > 40 {
			t.Errorf("got %d calls in ten minutes, want 20 to 40", len(calls))
		}
		for i := 6; i+1 < len(calls); i++ {
			if wait := calls[i+1] - calls[i]; wait < lastRetry/2 || wait > lastRetry+tickInterval {
				t.Errorf("call %d came after %v, want %v to %v", i+1, wait, lastRetry/2, lastRetry)
			}
		}
		w.fail(nil)
		time.Sleep(lastRetry)
		w.expect(t, "f", 1)
		_, log := s.seen()
		if strings.Count(log, "level=WARN") != 1 || !strings.Contains(log, "no leader") || strings.Count(log, "can be scaled again") != 1 {
			t.Errorf("got the log\n%s\nwant one warning with the reason for %d failed calls, and one line when it works", log, len(calls))
		}
	})
}

func TestAutoscalerGoesOnBesideASlowProvider(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newScaleWorld()
		slow, quick := w.add("slow", testLimits(), 1), w.add("quick", testLimits(), 1)
		w.fail(func(ctx context.Context, name string) error {
			if name == "slow" {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		})
		startScaling(t, w)
		time.Sleep(time.Minute)
		slow.call(40)
		quick.call(40)
		time.Sleep(3 * time.Second)
		w.expect(t, "quick", 4)
		w.expect(t, "slow", 1)
		if calls := w.callsOf("slow"); len(calls) != 1 {
			t.Errorf("got %d calls for the slow one, want 1 at a time", len(calls))
		}
		w.fail(nil)
		time.Sleep(scaleTimeout + firstRetry)
		w.expect(t, "slow", 4)
	})
}

func TestAutoscalerBoundsItsCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newScaleWorld()
		var all []*worldFunction
		for i := range 50 {
			all = append(all, w.add(fmt.Sprintf("f%d", i), testLimits(), 0))
		}
		w.fail(func(context.Context, string) error { time.Sleep(10 * time.Millisecond); return nil })
		s := startScaling(t, w)
		time.Sleep(time.Minute)
		for _, f := range all {
			f.call(1)
			s.Wake(f.d.Name)
		}
		time.Sleep(2 * time.Second)
		for _, f := range all {
			w.expect(t, f.d.Name, 1)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.most != maxUpdates {
			t.Errorf("got %d calls at once, want %d", w.most, maxUpdates)
		}
	})
}

func TestAutoscalerDropsWhatIsRemovedWhileScaling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newScaleWorld()
		f := w.add("f", testLimits(), 1)
		w.fail(func(ctx context.Context, _ string) error {
			select {
			case <-time.After(5 * time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		s := startScaling(t, w)
		time.Sleep(time.Minute)
		f.call(40)
		time.Sleep(3 * time.Second) // the call is under way
		w.remove("f")
		time.Sleep(time.Second)
		w.add("f", testLimits(), 2) // a namesake
		time.Sleep(time.Minute)
		if changes, log := s.seen(); len(changes) != 1 || changes[0] != "f 2->1 calm" || strings.Contains(log, "WARN") {
			t.Errorf("got changes %q and log\n%s\nwant the namesake scaled by its own load, and no warning", changes, log)
		}
	})
}

func TestAutoscalerWaitsForItsCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newScaleWorld()
		f := w.add("f", testLimits(), 0)
		ended := false
		w.fail(func(ctx context.Context, _ string) error {
			<-ctx.Done()
			time.Sleep(time.Second) // the connection takes its time to close
			ended = true
			return ctx.Err()
		})
		s := startScaling(t, w)
		f.call(1)
		s.Wake("f")
		synctest.Wait()
		s.stop()
		if !ended {
			t.Error("run returned before the call ended")
		}
	})
}

func TestAutoscalerLeavesAlone(t *testing.T) {
	fixed, equal, off := testLimits(), testLimits(), testLimits()
	fixed.Fixed = true
	equal.Min, equal.Max = 2, 2
	off.Factor = 0
	for name, limits := range map[string]Limits{"fixed": fixed, "equal": equal, "factor 0": off} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newScaleWorld()
				f := w.add("f", limits, 1)
				startScaling(t, w)
				f.call(100)
				time.Sleep(2 * time.Minute)
				f.call(-100)
				time.Sleep(2 * time.Minute)
				if calls := w.callsOf("f"); len(calls) != 0 {
					t.Errorf("got %d calls, want none", len(calls))
				}
			})
		})
	}
}

// A gateway that drains sees its callers leave for another one.
func TestDrainingScalesUpOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newScaleWorld()
		f := w.add("f", Limits{Kind: Capacity, Target: 10, Min: 1, Max: 20, Zero: true, ZeroDuration: 30 * time.Second, Factor: 20}, 1)
		s := startScaling(t, w)
		f.call(40)
		time.Sleep(time.Minute)
		s.Drain()
		f.call(-40)
		time.Sleep(3 * time.Minute)
		if n, _ := w.get("f"); n != 4 {
			t.Errorf("its calls went elsewhere: got %d replicas, want the 4 that there were", n)
		}
		f.call(80)
		time.Sleep(time.Minute)
		if n, _ := w.get("f"); n != 8 {
			t.Errorf("80 in flight: got %d replicas, want 8", n)
		}
		s.stop()
	})
}

func TestPermit(t *testing.T) {
	for _, c := range []struct {
		name               string
		wakeOnly, draining bool
		asked              decision
		current, want      int
	}{
		{"all", false, false, decision{replicas: 1, reason: reasonCalm}, 3, 1},
		{"draining, down", false, true, decision{replicas: 1, reason: reasonCalm}, 3, 3},
		{"draining, to none", false, true, decision{replicas: 0, reason: reasonIdle}, 3, 3},
		{"draining, up", false, true, decision{replicas: 5, reason: reasonLoad}, 3, 5},
		{"wakes only, up", true, false, decision{replicas: 5, reason: reasonLoad}, 3, 3},
		{"wakes only, down", true, false, decision{replicas: 1, reason: reasonCalm}, 3, 3},
		{"wakes only, from none", true, false, decision{replicas: 1, reason: reasonWake}, 0, 1},
	} {
		a := &Autoscaler{options: Options{WakeOnly: c.wakeOnly, Others: alone{}}}
		if c.draining {
			a.Drain()
		}
		if got := a.permit(c.asked, c.current).replicas; got != c.want {
			t.Errorf("%s: got %d replicas, want %d", c.name, got, c.want)
		}
	}
}

// After an outage a caller must not wait for what is left of a long pause.
func TestAnsweringEndsTheWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newScaleWorld()
		f := w.add("f", Limits{Kind: Capacity, Target: 10, Min: 1, Max: 20, Factor: 20}, 0)
		w.fail(func(context.Context, string) error { return errors.New("no quorum") })
		s := startScaling(t, w)
		f.call(1)
		time.Sleep(5 * time.Minute)
		calls := w.callsOf("f")
		time.Sleep(calls[len(calls)-1] + time.Second - w.now()) // just into a pause of 15 s or more
		w.fail(nil)
		s.Answering()
		time.Sleep(time.Second)
		if n, _ := w.get("f"); n != 1 {
			t.Errorf("a second after the provider answers: got %d replicas, want 1", n)
		}
		s.stop()
	})
}
