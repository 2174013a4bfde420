package main

// What became of each function's calls in the last minutes: rates, quantiles and
// a curve, for whoever looks. Prometheus keeps more, and for longer.

import (
	"context"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

const (
	historyTick = 2 * time.Second // between two samples

	rateTicks   = 5  // of the rates: 10 s
	pointTicks  = 5  // of one point of the curve: 10 s
	curvePoints = 30 // five minutes
	timePoints  = 6  // of the quantiles: a minute

	// Run times are counted in buckets, four for each power of two microseconds,
	// so that a quantile is off by an eighth at most. The last bucket holds all
	// above two minutes.
	timeBuckets = 104
)

// timeBucket returns the bucket of a run time.
func timeBucket(d time.Duration) int {
	us := uint64(max(d, 0) / time.Microsecond)
	if us < 4 {
		return int(us)
	}
	shift := bits.Len64(us) - 3
	return min(shift*4+int(us>>shift), timeBuckets-1)
}

// bucketStart returns the shortest time of a bucket.
func bucketStart(i int) time.Duration {
	if i < 8 {
		return time.Duration(i) * time.Microsecond
	}
	shift := i/4 - 1
	return time.Duration(uint64(4+i%4)<<shift) * time.Microsecond
}

// times are run times by bucket. They wrap: only differences count.
type times [timeBuckets]uint32

// quantile returns the time that a share q of the calls in t did not exceed,
// between the ends of its bucket. 0: there are no calls.
func (t *times) quantile(q float64) time.Duration {
	total := 0.0
	for _, n := range t {
		total += float64(n)
	}
	rank := q * total
	for i, n := range t {
		if n > 0 && rank <= float64(n) {
			low, high := bucketStart(i), bucketStart(i+1)
			return low + time.Duration(float64(high-low)*rank/float64(n))
		}
		rank -= float64(n)
	}
	return 0
}

// A tally counts a function's calls that ended, since it is known.
type tally struct {
	calls    atomic.Uint64 // whatever their status
	failures atomic.Uint64 // of them, those with a status from 500 on
	times    [timeBuckets]atomic.Uint32
}

func (t *tally) ended(code int, d time.Duration) {
	t.calls.Add(1)
	if code >= 500 {
		t.failures.Add(1)
	}
	t.times[timeBucket(d)].Add(1)
}

// A count is what a tally had counted at one time.
type count struct{ calls, failures uint64 }

// A history is what a tally had counted at several times. Before the first call
// that is 0, as in the zero history.
type history struct {
	mu     sync.Mutex
	tick   int                    // of the last sample
	recent [rateTicks + 1]count   // by tick
	points [curvePoints + 1]count // by tick/pointTicks
	times  [timePoints + 1]times  // likewise
}

// sample notes what t has counted by tick. Each tick has a sample, from the first
// call on.
func (h *history) sample(tick int, t *tally) {
	now := count{t.calls.Load(), t.failures.Load()}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tick = tick
	h.recent[tick%len(h.recent)] = now
	if tick%pointTicks != 0 {
		return
	}
	point := tick / pointTicks
	h.points[point%len(h.points)] = now
	at := &h.times[point%len(h.times)]
	for i := range at {
		at[i] = t.times[i].Load()
	}
}

// A recentPast is what a history tells.
type recentPast struct {
	calls, failures float64       // per second, in the last 10 s
	p50, p99        time.Duration // in the last minute; 0: no calls
	curve, failed   []uint64      // calls and failures in each 10 s of the last five minutes; nil: none
}

// past tells what h knows. t is the tally that it samples.
func (h *history) past(t *tally) recentPast {
	h.mu.Lock()
	defer h.mu.Unlock()
	var p recentPast
	last, first := h.recent[h.tick%len(h.recent)], h.recent[(h.tick+1)%len(h.recent)]
	const seconds = rateTicks * float64(historyTick) / float64(time.Second)
	p.calls, p.failures = float64(last.calls-first.calls)/seconds, float64(last.failures-first.failures)/seconds

	point := h.tick / pointTicks
	oldest := &h.times[(point+1)%len(h.times)]
	var minute times
	for i := range minute {
		minute[i] = t.times[i].Load() - oldest[i]
	}
	p.p50, p.p99 = minute.quantile(.5), minute.quantile(.99)

	curve, failed := make([]uint64, curvePoints), make([]uint64, curvePoints)
	for i := range curvePoints {
		before, after := h.points[(point+1+i)%len(h.points)], h.points[(point+2+i)%len(h.points)]
		if curve[i] = after.calls - before.calls; curve[i] > 0 {
			p.curve = curve
		}
		if failed[i] = after.failures - before.failures; failed[i] > 0 {
			p.failed = failed
		}
	}
	return p
}

// past is the function's; that of one that was never called is the zero value.
func (f *function) past() recentPast {
	if h := f.history.Load(); h != nil {
		return h.past(&f.metrics.tally)
	}
	return recentPast{}
}

// remember samples every function until ctx is done. A function that was never
// called costs nothing.
func (r *registry) remember(ctx context.Context) {
	ticker := time.NewTicker(historyTick)
	defer ticker.Stop()
	for tick := 1; ; tick++ {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		for _, f := range r.functions() {
			if f.metrics.tally.calls.Load() == 0 {
				continue
			}
			if f.history.Load() == nil {
				f.history.Store(new(history))
			}
			f.history.Load().sample(tick, &f.metrics.tally)
		}
	}
}
