package main

// What the gateway remembers of calls: buckets, quantiles, rates, the curve.

import (
	"math"
	"slices"
	"testing"
	"time"
)

func TestTimeBuckets(t *testing.T) {
	for i := range timeBuckets {
		if got := timeBucket(bucketStart(i)); got != i {
			t.Errorf("bucket %d starts with %v, which is in bucket %d", i, bucketStart(i), got)
		}
		if i > 0 && timeBucket(bucketStart(i)-1) != i-1 {
			t.Errorf("just below bucket %d is bucket %d", i, timeBucket(bucketStart(i)-1))
		}
	}
	for _, d := range []time.Duration{-time.Second, 0, 999} {
		if got := timeBucket(d); got != 0 {
			t.Errorf("%v: got bucket %d, want 0", d, got)
		}
	}
	for _, d := range []time.Duration{2*time.Minute + 30*time.Second, time.Hour, math.MaxInt64} {
		if got := timeBucket(d); got != timeBuckets-1 {
			t.Errorf("%v: got bucket %d, want the last, %d", d, got, timeBuckets-1)
		}
	}
}

func TestQuantile(t *testing.T) {
	var none times
	if got := none.quantile(.5); got != 0 {
		t.Errorf("without calls: got %v, want 0", got)
	}
	var all times
	for i := range 1000 { // 1 ms to 1 s
		all[timeBucket(time.Duration(i+1)*time.Millisecond)]++
	}
	for q, want := range map[float64]time.Duration{.01: 10 * time.Millisecond, .5: 500 * time.Millisecond, .99: 990 * time.Millisecond, 1: time.Second} {
		if got := all.quantile(q); math.Abs(float64(got-want)) > float64(want)/8 {
			t.Errorf("quantile %v: got %v, want %v within an eighth", q, got, want)
		}
	}
}

// A minute of ten calls a second, every fifth of which fails, then none.
func TestHistory(t *testing.T) {
	var h history
	var calls tally
	tick := 7 // whenever the first call came
	step := func(n int) {
		for i := range n {
			code := 200
			if i%5 == 0 {
				code = 503
			}
			calls.ended(code, 30*time.Millisecond)
		}
		tick++
		h.sample(tick, &calls)
	}
	for range 30 {
		step(20)
	}
	p := h.past(&calls)
	if p.calls != 10 || p.failures != 2 {
		t.Errorf("got %v calls and %v failures a second, want 10 and 2", p.calls, p.failures)
	}
	if p.p50 < 26*time.Millisecond || p.p99 > 34*time.Millisecond {
		t.Errorf("got p50 %v, p99 %v, want about 30ms", p.p50, p.p99)
	}
	if got := p.curve[curvePoints-5:]; len(p.curve) != curvePoints || !slices.Equal(got, []uint64{100, 100, 100, 100, 100}) {
		t.Errorf("got curve %v, want 100 calls in each of the last points", p.curve)
	}
	if got := p.failed[curvePoints-2:]; !slices.Equal(got, []uint64{20, 20}) {
		t.Errorf("got failures %v, want 20 in each of the last points", p.failed)
	}
	if p.curve[0] != 0 {
		t.Errorf("got %d calls five minutes ago, want none", p.curve[0])
	}
	for range rateTicks {
		step(0)
	}
	if p = h.past(&calls); p.calls != 0 || p.failures != 0 || p.p50 == 0 || p.curve == nil {
		t.Errorf("after 10 s without calls: got %+v, want no rates, and quantiles and a curve still", p)
	}
	for range timePoints * pointTicks {
		step(0)
	}
	if p = h.past(&calls); p.p50 != 0 || p.p99 != 0 || p.curve == nil {
		t.Errorf("after a minute without calls: got p50 %v, p99 %v, curve %v, want a curve alone", p.p50, p.p99, p.curve)
	}
	for range (curvePoints + 1) * pointTicks {
		step(0)
	}
	if p = h.past(&calls); p.curve != nil || p.failed != nil {
		t.Errorf("after five minutes without calls: got curve %v, want none", p.curve)
	}
}
