package scale

// The load signal: what one function is doing, integrated over time, so that
// a request much shorter than a sample counts for as long as it ran. load
// does the integrating where requests pass; history keeps samples of it
// and answers for windows.

import (
	"math"
	"time"
)

// Times in this file are readings of a monotonic clock, as the time since the
// process started. They never go back and do not follow the wall clock.

// A Load adds up the requests of one function, in flight and waiting alike. It is
// on the path of every request, so it has plain fields, no allocation and no lock
// of its own: the caller holds one already. The zero value is ready to use.
type Load struct {
	at      time.Duration // of the last change
	busy    time.Duration // one for each request and second, up to at
	active  time.Duration // when there last was a request, up to at
	started uint64
	current int
}

// Add notes at now that delta requests came (above 0) or ended (below 0) and
// that started of them count as new. A request that moves from the queue to a
// replica is load before and after: it changes nothing here.
func (l *Load) Add(now time.Duration, delta, started int) {
	// The clock was read before the lock was taken, so a later reading may arrive
	// first.
	now = max(now, l.at)
	l.busy += time.Duration(l.current) * (now - l.at)
	l.at = now
	if l.current > 0 || delta > 0 || started > 0 {
		l.active = now
	}
	l.current += delta
	l.started += uint64(started)
}

// Totals returns the sums up to now.
func (l *Load) Totals(now time.Duration) Totals {
	now = max(now, l.at)
	t := Totals{
		Busy:       l.busy + time.Duration(l.current)*(now-l.at),
		Started:    l.started,
		InFlight:   l.current,
		LastActive: l.active,
		At:         now,
	}
	if l.current > 0 {
		t.LastActive = now
	}
	return t
}

// Totals is a reading of a load. Only differences between two of them
// mean anything: Busy may wrap after years under load, which a difference
// survives.
type Totals struct {
	Busy       time.Duration // request-seconds since the beginning
	Started    uint64        // requests since the beginning
	InFlight   int           // in flight and waiting at this moment
	LastActive time.Duration // when the last request ended; now if there is one
	At         time.Duration // of Busy and Started
}

const (
	tickInterval = 250 * time.Millisecond // between samples
	stableWindow = 30 * time.Second       // what steps down have to wait for
	panicWindow  = 3 * time.Second        // what shows a surge

	// surgeWindow is the window that measures a surge once it was noticed: half the
	// panic window, and so twice as fast.
	surgeWindow = panicWindow / 2

	// A few more than fill the stable window, as ticks come late.
	historySize = int(stableWindow/tickInterval) + 8
)

// history is the samples of one function's load, as many as the stable
// window needs. The zero value is empty.
type history struct {
	ring  [historySize]sample
	count int // ever recorded; the newest is ring[(count-1)%historySize]
	began time.Duration
}

type sample struct {
	at      time.Duration
	busy    time.Duration
	started uint64
	short   float64 // mean over the panic window that ends here
}

// reset forgets all samples.
func (h *history) reset() { h.count = 0 }

// record keeps a sample. kind is Capacity or RPS and the same for
// all samples between two resets.
func (h *history) record(now time.Duration, t Totals, kind string) {
	if h.count == 0 {
		h.began = now
	}
	h.ring[h.count%historySize] = sample{
		at:      now,
		busy:    t.Busy,
		started: t.Started,
		short:   h.mean(now, t, kind, panicWindow),
	}
	h.count++
}

// mean returns the load over the window that ends now with t: the requests in
// flight and waiting on average, or the requests started per second. What
// happened before the first sample counts as no load.
func (h *history) mean(now time.Duration, t Totals, kind string, window time.Duration) float64 {
	if h.count == 0 {
		return 0
	}
	from := h.ring[(h.count-1)%historySize]
	for i := 2; i <= min(h.count, historySize) && from.at > now-window; i++ {
		from = h.ring[(h.count-i)%historySize]
	}
	span := max(window, now-from.at).Seconds()
	if kind == RPS {
		return float64(t.Started-from.started) / span
	}
	return (t.Busy - from.busy).Seconds() / span
}

// peak returns the load of the busiest panic window of the stable window.
func (h *history) peak(now time.Duration) float64 {
	peak := 0.0
	for i := 1; i <= min(h.count, historySize); i++ {
		s := h.ring[(h.count-i)%historySize]
		if s.at < now-stableWindow {
			break
		}
		peak = max(peak, s.short)
	}
	return peak
}

// full reports whether the samples reach over a whole stable window.
func (h *history) full(now time.Duration) bool {
	return h.count > 0 && now-h.began >= stableWindow
}

// MaxReplicas is the most replicas of one function; a larger number is taken for a
// typing error.
const MaxReplicas = 1000

// replicasFor returns how many replicas take the load at target each. A load
// that exceeds a whole number by no more than rounding does is that number.
func replicasFor(load, target float64) int {
	n := math.Ceil(load/target - 1e-9)
	return int(min(max(n, 0), MaxReplicas))
}
