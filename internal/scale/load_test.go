package scale

import (
	"math"
	"testing"
	"time"
)

func TestLoadTotals(t *testing.T) {
	type change struct {
		at             time.Duration
		delta, started int
	}
	const s = time.Second
	tests := []struct {
		name    string
		changes []change
		now     time.Duration
		want    Totals
	}{
		{"nothing ever", nil, 9 * s, Totals{At: 9 * s}},
		{"one that still runs", []change{{2 * s, 1, 1}}, 5 * s,
			Totals{Busy: 3 * s, Started: 1, InFlight: 1, LastActive: 5 * s, At: 5 * s}},
		{"one that has ended", []change{{2 * s, 1, 1}, {4 * s, -1, 0}}, 9 * s,
			Totals{Busy: 2 * s, Started: 1, LastActive: 4 * s, At: 9 * s}},
		{"two at once count twice", []change{{0, 1, 1}, {1 * s, 1, 1}, {3 * s, -1, 0}, {4 * s, -1, 0}}, 4 * s,
			Totals{Busy: 6 * s, Started: 2, LastActive: 4 * s, At: 4 * s}},
		{"a waiting one that is then served is one", []change{{0, 1, 1}, {1 * s, 0, 0}, {2 * s, -1, 0}}, 2 * s,
			Totals{Busy: 2 * s, Started: 1, LastActive: 2 * s, At: 2 * s}},
		{"nothing of a change", []change{{0, 1, 1}, {1 * s, -1, 0}, {2 * s, 0, 0}}, 3 * s,
			Totals{Busy: 1 * s, Started: 1, LastActive: 1 * s, At: 3 * s}},
		{"clock readings out of order", []change{{2 * s, 1, 1}, {1 * s, 1, 1}}, 1 * s,
			Totals{Started: 2, InFlight: 2, LastActive: 2 * s, At: 2 * s}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var l Load
			for _, c := range tt.changes {
				l.Add(c.at, c.delta, c.started)
			}
			if got := l.Totals(tt.now); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestHistoryCountsRequestsShorterThanATick(t *testing.T) {
	var l Load
	var h history
	// A request of 5 ms every 10 ms: none runs when the samples are taken.
	now := time.Duration(0)
	for now < 40*time.Second {
		if now%tickInterval == 0 {
			h.record(now, l.Totals(now), Capacity)
		}
		l.Add(now+time.Millisecond, 1, 1)
		l.Add(now+6*time.Millisecond, -1, 0)
		now += 10 * time.Millisecond
	}
	for _, window := range []time.Duration{surgeWindow, panicWindow, stableWindow} {
		if got := h.mean(now, l.Totals(now), Capacity, window); math.Abs(got-0.5) > 0.01 {
			t.Errorf("in flight over %v: got %v, want 0.5", window, got)
		}
		if got := h.mean(now, l.Totals(now), RPS, window); math.Abs(got-100) > 1 {
			t.Errorf("started per second over %v: got %v, want 100", window, got)
		}
	}
	if got := h.peak(now); math.Abs(got-0.5) > 0.01 {
		t.Errorf("peak: got %v, want 0.5", got)
	}
}

func TestHistoryWindows(t *testing.T) {
	var l Load
	var h history
	sample := func(until, now time.Duration) time.Duration {
		for ; now <= until; now += tickInterval {
			h.record(now, l.Totals(now), Capacity)
		}
		return now - tickInterval
	}
	mean := func(now, window time.Duration) float64 {
		return h.mean(now, l.Totals(now), Capacity, window)
	}

	if got := mean(0, panicWindow); got != 0 {
		t.Errorf("without a sample: got %v, want 0", got)
	}
	l.Add(0, 30, 30)
	now := sample(time.Second, 0)
	if got := mean(now, panicWindow); got != 10 {
		t.Errorf("30 in flight for 1 s of 3 s: got %v, want 10", got)
	}
	if got := mean(now, stableWindow); got != 1 {
		t.Errorf("30 in flight for 1 s of 30 s: got %v, want 1", got)
	}
	if h.full(now) {
		t.Error("full after 1 s: got true, want false")
	}

	now = sample(4*time.Second, now+tickInterval)
	l.Add(now, -30, 0)
	now = sample(33*time.Second, now+tickInterval)
	if got := mean(now, panicWindow); got != 0 {
		t.Errorf("panic window long after the load: got %v, want 0", got)
	}
	if got := h.peak(now); got != 30 {
		t.Errorf("peak 29 s after the load: got %v, want 30", got)
	}
	if !h.full(now) {
		t.Error("full after 33 s: got false, want true")
	}
	now = sample(40*time.Second, now+tickInterval)
	if got := h.peak(now); got != 0 {
		t.Errorf("peak 36 s after the load: got %v, want 0", got)
	}

	h.reset()
	if h.full(now) || mean(now, stableWindow) != 0 || h.peak(now) != 0 {
		t.Error("after a reset: got a history, want none")
	}
}

func TestHistorySurvivesTotalsThatWrap(t *testing.T) {
	l := Load{busy: math.MaxInt64 - time.Second}
	var h history
	l.Add(0, 4, 0)
	h.record(0, l.Totals(0), Capacity)
	now := panicWindow
	if got := h.mean(now, l.Totals(now), Capacity, panicWindow); got != 4 {
		t.Errorf("got %v, want 4", got)
	}
}

func TestReplicasFor(t *testing.T) {
	tests := []struct {
		load, target float64
		want         int
	}{
		{0, 10, 0}, {0.1, 10, 1}, {10, 10, 1}, {10.1, 10, 2}, {40, 10, 4},
		{0.3, 0.1, 3}, // 0.3/0.1 is a little more than 3 in binary
		{-1, 10, 0}, {1e12, 1e-3, MaxReplicas},
	}
	for _, tt := range tests {
		if got := replicasFor(tt.load, tt.target); got != tt.want {
			t.Errorf("replicasFor(%v, %v): got %d, want %d", tt.load, tt.target, got, tt.want)
		}
	}
}

func BenchmarkLoadAdd(b *testing.B) {
	var l Load
	now := time.Duration(0)
	b.ReportAllocs()
	for b.Loop() {
		l.Add(now, 1, 1)
		l.Add(now+time.Microsecond, -1, 0)
		now += 2 * time.Microsecond
	}
}
