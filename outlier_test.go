package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"
)

// fail lets r fail so many calls that it gets one after the other from now on,
// a millisecond each, and returns the time afterwards.
func fail(b *balancer, r *replica, times int, now time.Time) time.Time {
	for range times {
		b.outcome(r, true, now.Add(time.Microsecond), now.Add(time.Millisecond))
		now = now.Add(time.Millisecond)
	}
	return now
}

// picksOf counts how many of n calls that come one by one r gets.
func picksOf(b *balancer, r *replica, n int, now time.Time) int {
	got := 0
	for range n {
		picked := b.pick(nil, now)
		picked.inflight.Add(-1)
		if picked == r {
			got++
		}
	}
	return got
}

func leftAlone(b *balancer) int {
	n := 0
	for _, r := range b.replicas() {
		if r.until.Load() > onTrial {
			n++
		}
	}
	return n
}

func TestAnOutlierGetsItsEvenShareAndIsThenLeftAlone(t *testing.T) {
	now := time.Now()
	b := balancerOf("a", "b", "c")
	r := b.replicas()[0]
	for _, other := range b.replicas()[1:] {
		other.inflight.Add(10) // by load alone, all calls are a's
	}
	if now = fail(b, r, 4, now); picksOf(b, r, 300, now) != 300 {
		t.Error("an outlier after 4 failures, want 5 to make one")
	}
	if now = fail(b, r, 1, now); b.outliers() != 1 || leftAlone(b) != 0 {
		t.Error("after 5 failures: ejected at once, want an even share first")
	}
	if got := picksOf(b, r, 3000, now); got < 750 || got > 1250 {
		t.Errorf("after 5 failures: got %d of 3000 calls, want about 1000", got)
	}
	b.outcome(r, true, now.Add(-time.Second), now)
	if leftAlone(b) != 0 {
		t.Error("a call that was inside before has it ejected, want one that came later")
	}
	now = now.Add(time.Millisecond)
	for _, want := range []time.Duration{1, 2, 4, 5, 5} {
		now = fail(b, r, 1, now)
		until := now.Add(want * time.Second)
		if got := picksOf(b, r, 100, until.Add(-1)); got != 0 || leftAlone(b) != 1 {
			t.Fatalf("got %d calls and %d outliers before %d s have passed, want 0 and 1", got, leftAlone(b), want)
		}
		if got := picksOf(b, r, 100, until); got != 1 {
			t.Fatalf("got %d calls after %d s, want one to try it", got, want)
		}
		now = until
	}
	if r := b.pick(b.replicas()[1:], now); r == nil {
		t.Error("got none, want the outlier rather than none")
	}
}

func TestAnOutlierThatIsWellIsCalledAgain(t *testing.T) {
	now := time.Now()
	b := balancerOf("a", "b", "c")
	r := b.replicas()[0]
	now = fail(b, r, 6, now)
	b.outcome(r, false, now.Add(-time.Second), now)
	if leftAlone(b) != 1 {
		t.Error("an answer to a call from before ends it, want one that came later")
	}
	now = now.Add(aloneFirst)
	for i := 0; r.until.Load() != 0; i++ {
		if i == 20 {
			t.Fatal("still an outlier after 20 good answers in a row")
		}
		b.outcome(r, false, now.Add(time.Microsecond), now.Add(time.Millisecond))
		if leftAlone(b) != 0 {
			t.Fatal("ejected after a good answer")
		}
		now = now.Add(time.Millisecond)
	}
	for range 100 {
		b.outcome(r, false, now, now)
	}
	if r.watched.Load() {
		t.Error("a success still takes a lock after 100 of them")
	}

	// Within a minute, the whiles grow on; later they begin anew.
	now = fail(b, r, 6, now)
	if got, want := time.Unix(0, r.until.Load()).Sub(now), 2*aloneFirst; got != want {
		t.Errorf("got ejected for %s the second time, want %s", got, want)
	}
	now = now.Add(10 * aloneMost)
	for range 100 {
		b.outcome(r, false, now, now.Add(time.Millisecond))
		now = now.Add(time.Millisecond)
	}
	now = fail(b, r, 6, now.Add(outcomeMemory))
	if got := time.Unix(0, r.until.Load()).Sub(now); got != aloneFirst {
		t.Errorf("got ejected for %s after a minute, want %s", got, aloneFirst)
	}
}

func TestWhereAllFailAlikeNoneIsLeftAlone(t *testing.T) {
	now := time.Now()
	b := balancerOf("a", "b", "c")
	set := b.replicas()
	now = fail(b, set[0], 30, now)
	now = fail(b, set[1], 30, now)
	if got := leftAlone(b); got != 2 {
		t.Fatalf("two of three fail: got %d ejected, want 2", got)
	}
	now = fail(b, set[2], 30, now)
	if got := leftAlone(b); got != 0 {
		t.Errorf("all fail: got %d ejected, want 0", got)
	}

	// Replicas may fail one after the other: the last one is never ejected.
	b = balancerOf("a", "b", "c", "d", "e")
	for i, r := range b.replicas() {
		now = fail(b, r, 7, now)
		if got, want := leftAlone(b), i+1; got != want && want < 5 {
			t.Errorf("%d of five fail: got %d ejected, want %d", i+1, got, want)
		}
	}
	now = fail(b, b.replicas()[4], 20, now)
	if got := leftAlone(b); got != 0 {
		t.Errorf("five of five fail: got %d ejected, want 0", got)
	}

	b = balancerOf("a")
	now = fail(b, b.replicas()[0], 20, now)
	if got := leftAlone(b); got != 0 {
		t.Errorf("a single one: got %d ejected, want 0", got)
	}

	b = balancerOf("a", "b")
	b.failed(b.replicas()[1], now)
	fail(b, b.replicas()[0], 20, now)
	if got := leftAlone(b); got != 0 {
		t.Errorf("the only one that can be reached: got %d ejected, want 0", got)
	}
}

// Replicas that fail alike, each now and then, are hardly ever told apart. The
// first calls do not count: one may get several of them before its siblings get
// any.
func TestChanceMakesNoOutlier(t *testing.T) {
	const calls = 100000
	for _, c := range []struct {
		replicas int
		failing  float64
		most     int
	}{
		{2, .01, 3}, {2, .05, 5}, {2, .2, 40}, {2, .5, 30}, {2, 1, 0},
		{3, .05, 5}, {3, .2, 20}, {3, .5, 10}, {3, 1, 0},
		{20, .05, 5}, {20, .2, 5}, {20, .5, 5}, {20, 1, 0},
	} {
		b := balancerOf(strings.Fields("a b c d e f g h i j k l m n o p q r s t")[:c.replicas]...)
		chance := rand.New(rand.NewPCG(1, 1))
		now, times := time.Now(), 0
		for n := range calls {
			now = now.Add(10 * time.Millisecond)
			r := b.pick(nil, now)
			r.inflight.Add(-1)
			before := r.strikes
			if b.outcome(r, chance.Float64() < c.failing, now, now.Add(time.Millisecond)); r.strikes > before && n >= 100 {
				times++
			}
		}
		t.Logf("%d replicas that fail %.0f %%: ejected %d times in %d calls", c.replicas, 100*c.failing, times, calls)
		if times > c.most {
			t.Errorf("%d replicas that fail %.0f %%: got one ejected %d times in %d calls, want at most %d", c.replicas, 100*c.failing, times, calls, c.most)
		}
	}
}

func TestOldFailuresAreForgotten(t *testing.T) {
	now := time.Now()
	b := balancerOf("a", "b")
	r := b.replicas()[0]
	now = fail(b, r, 4, now).Add(10 * outcomeMemory)
	if fail(b, r, 4, now); r.until.Load() != 0 {
		t.Error("4 failures count together with 4 of ten minutes ago, want them forgotten")
	}
}

func TestWhatCountsAsAFailure(t *testing.T) {
	for status, want := range map[int]bool{
		101: false, 200: false, 404: false, 429: false, 500: true, 501: false, 502: true, 503: true, 504: true, 505: false, 599: true,
	} {
		if got := isFailure(status); got != want {
			t.Errorf("%d: got %v, want %v", status, got, want)
		}
	}
}

// An operator reads once that a replica is ejected, and once that it is not.
func TestOutliersAreLoggedOnceAMinute(t *testing.T) {
	const alone, back = "replica ejected: it fails more than its siblings", "replica no longer ejected"
	p := newMemoryProvider()
	p.set("f", nil, "10.0.0.1:8080", "10.0.0.2:8080")
	r, logged := newTestRegistry(p, accepts)
	mustLoad(t, r)
	f := r.function("f")
	r.lookUp(t.Context(), f)
	bad := f.balancer.replicas()[0]
	for minute := range 3 {
		now := time.Now().Add(time.Duration(minute) * outcomeMemory)
		for range 5 { // it flaps
			fail(&f.balancer, bad, 30, now)
			for range 3 {
				r.reportOutliers(f, now)
			}
			for range 100 {
				f.balancer.outcome(bad, false, now.Add(time.Second), now.Add(time.Second))
			}
			r.reportOutliers(f, now)
		}
		for _, message := range []string{alone, back} {
			if got := logged.count(message, "function=f", "replica="+bad.addr); got != minute+1 {
				t.Errorf("minute %d: got %d times %q, want %d", minute, got, message, minute+1)
			}
		}
	}
}

// An answer that breaks off speaks against its replica unless its caller is to
// blame.
func TestAnAnswerThatBreaksOffIsAFailure(t *testing.T) {
	for _, c := range []struct {
		name         string
		gone, upload bool
		want         bool
	}{
		{"by the replica", false, false, true},
		{"with the caller", true, false, false},
		{"with the caller's upload", false, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &function{name: "f"}
			f.balancer.update([]string{"a", "b"})
			inv := &invocation{f: f, replica: f.balancer.replicas()[0], body: new(replayBody)}
			ctx, cancel := context.WithCancel(context.WithValue(t.Context(), invocationKey{}, inv))
			defer cancel()
			if c.upload {
				inv.body.err = io.ErrUnexpectedEOF
			}
			if c.gone {
				cancel()
			}
			resp := &http.Response{StatusCode: 200, Body: io.NopCloser(iotest.ErrReader(io.ErrUnexpectedEOF))}
			inv.watchAnswer(ctx, resp)
			if _, err := io.ReadAll(resp.Body); err != io.ErrUnexpectedEOF {
				t.Errorf("got %v, want the error of the body", err)
			}
			if got := inv.replica.watched.Load(); got != c.want {
				t.Errorf("got a failure of the replica: %v, want %v", got, c.want)
			}
		})
	}
}

// Before outcomes were watched, one of three replicas that failed at once got
// nearly all calls.
func TestAReplicaThatFailsAtOnceDoesNotGetTheLoad(t *testing.T) {
	bothTransports(t, func(t *testing.T, args ...string) {
		for name, fails := range map[string]http.HandlerFunc{
			"500": func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) },
			"broken off": func(w http.ResponseWriter, r *http.Request) {
				http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			},
		} {
			t.Run(name, func(t *testing.T) { testFailsAtOnce(t, fails, args...) })
		}
	})
}

func testFailsAtOnce(t *testing.T, fails http.HandlerFunc, args ...string) {
	var ill atomic.Bool
	var again atomic.Int64
	ill.Store(true)
	odd := func(w http.ResponseWriter, r *http.Request) {
		if ill.Load() {
			fails(w, r)
			return
		}
		again.Add(1)
	}
	well := func(w http.ResponseWriter, r *http.Request) { time.Sleep(10 * time.Millisecond) }
	p := newMemoryProvider()
	p.set("f", nil, startReplica(t, well), startReplica(t, odd), startReplica(t, well))
	base := startGateway(t, p, args...)
	const callers, each = 6, 50
	run := func() int64 {
		var failed atomic.Int64
		var wg sync.WaitGroup
		for range callers {
			wg.Go(func() {
				for range each {
					resp, err := http.Post(base+"/function/f", "text/plain", nil)
					if err == nil {
						_, err = io.ReadAll(resp.Body)
						resp.Body.Close()
					}
					if err != nil || resp.StatusCode != 200 {
						failed.Add(1)
					}
				}
			})
		}
		wg.Wait()
		return failed.Load()
	}
	if got := run(); got < 3 || got > callers*each/5 {
		t.Errorf("got %d of %d calls failed, want a few, and less than a fifth", got, callers*each)
	}
	waitForMetric(t, base, `gateway_service_outlier_count{function_name="f"} 1`)
	ill.Store(false)
	again.Store(0)
	for deadline := time.Now().Add(30 * time.Second); again.Load() < callers*each; {
		if time.Now().After(deadline) {
			t.Fatalf("got %d calls within 30 s of being well, want many", again.Load())
		}
		if got := run(); got != 0 {
			t.Errorf("got %d calls failed where all are well, want 0", got)
		}
	}
	waitForMetric(t, base, `gateway_service_outlier_count{function_name="f"} 0`)
}

func BenchmarkOutcome(b *testing.B) {
	bal := balancerOf("a", "b", "c")
	r, now := bal.replicas()[0], time.Now()
	for _, failing := range []bool{false, true} {
		b.Run(fmt.Sprint("failing ", failing), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				bal.outcome(r, failing, now, now)
			}
		})
	}
}
