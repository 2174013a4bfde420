package main

// The load signal: what one function is doing, integrated over time, so that
// a request much shorter than a sample counts for as long as it ran. load
// does the integrating where requests pass; loadHistory keeps samples of it
// and answers for windows.

import (
	"math"
	"time"
)

// Times in this file are readings of a monotonic clock, as the time since the
// process started. They never go back and do not follow the calendar.

// A load adds up the requests of one function, in flight and waiting alike.
// It is on the way of every request: plain fields, nothing allocated, and no
// lock of its own. The function's mutex, which admission holds already,
// guards it. The zero value is ready to use.
type load struct {
	at      time.Duration // of the last change
	busy    time.Duration // one for each request and second, up to at
	active  time.Duration // when there last was a request, up to at
	started uint64
	current int
}

// add notes at now that delta requests came (above 0) or ended (below 0) and
// that started of them count as new. A request that moves from the queue to a
// replica is load before and after: it changes nothing here.
func (l *load) add(now time.Duration, delta, started int) {
	// The clock was read before the lock was taken: of two callers the
	// later reading may arrive first.
	now = max(now, l.at)
	l.busy += time.Duration(l.current) * (now - l.at)
	l.at = now
	if l.current > 0 || delta > 0 || started > 0 {
		l.active = now
	}
	l.current += delta
	l.started += uint64(started)
}

// totals returns the sums up to now.
func (l *load) totals(now time.Duration) loadTotals {
	now = max(now, l.at)
	t := loadTotals{
		busy:       l.busy + time.Duration(l.current)*(now-l.at),
		started:    l.started,
		current:    l.current,
		lastActive: l.active,
	}
	if l.current > 0 {
		t.lastActive = now
	}
	return t
}

// loadTotals is a reading of a load. Only differences between two of them
// mean anything: busy may wrap after years under load, which a difference
// survives.
type loadTotals struct {
	busy       time.Duration // request-seconds since the beginning
	started    uint64        // requests since the beginning
	current    int           // in flight and waiting at this moment
	lastActive time.Duration // when the last request ended; now if there is one
}

const (
	scaleTick    = 250 * time.Millisecond // between samples
	stableWindow = 30 * time.Second       // what steps down have to wait for
	panicWindow  = 3 * time.Second        // what shows a surge

	// surgeWindow is what a surge is measured by once it has shown: half
	// the window that fills with it, and so twice as fast.
	surgeWindow = panicWindow / 2

	// A few more than fill the stable window, as ticks come late.
	historySize = int(stableWindow/scaleTick) + 8
)

// loadHistory is the samples of one function's load, as many as the stable
// window needs. The zero value is empty.
type loadHistory struct {
	ring  [historySize]loadSample
	count int // ever recorded; the newest is ring[(count-1)%historySize]
	began time.Duration
}

type loadSample struct {
	at      time.Duration
	busy    time.Duration
	started uint64
	short   float64 // mean over the panic window that ends here
}

// reset forgets all samples.
func (h *loadHistory) reset() { h.count = 0 }

// record keeps a sample. kind is scaleCapacity or scaleRPS and the same for
// all samples between two resets.
func (h *loadHistory) record(now time.Duration, t loadTotals, kind string) {
	if h.count == 0 {
		h.began = now
	}
	h.ring[h.count%historySize] = loadSample{
		at:      now,
		busy:    t.busy,
		started: t.started,
		short:   h.mean(now, t, kind, panicWindow),
	}
	h.count++
}

// mean returns the load over the window that ends now with t: the requests in
// flight and waiting on average, or the requests started per second. What
// happened before the first sample counts as no load.
func (h *loadHistory) mean(now time.Duration, t loadTotals, kind string, window time.Duration) float64 {
	if h.count == 0 {
		return 0
	}
	from := h.ring[(h.count-1)%historySize]
	for i := 2; i <= min(h.count, historySize) && from.at > now-window; i++ {
		from = h.ring[(h.count-i)%historySize]
	}
	span := max(window, now-from.at).Seconds()
	if kind == scaleRPS {
		return float64(t.started-from.started) / span
	}
	return (t.busy - from.busy).Seconds() / span
}

// peak returns the load of the busiest panic window of the stable window.
func (h *loadHistory) peak(now time.Duration) float64 {
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
func (h *loadHistory) full(now time.Duration) bool {
	return h.count > 0 && now-h.began >= stableWindow
}

// replicasFor returns how many replicas take the load at target each. A load
// that exceeds a whole number by no more than rounding does is that number.
func replicasFor(load, target float64) int {
	n := math.Ceil(load/target - 1e-9)
	return int(min(max(n, 0), maxScale))
}
