package main

// What the autoscaler remembers of one function from tick to tick.

import (
	"context"
	"time"
)

const (
	// echoTime is how long the registry may go on showing a number of
	// replicas from before our own change.
	echoTime = 5 * time.Second

	// Between two ticks that lie further apart, the machine or the process
	// was suspended, and the time between them says nothing about the load.
	longestTick = panicWindow
)

// A scaleTrack belongs to the autoscaler's loop alone.
type scaleTrack struct {
	d        definition
	history  loadHistory
	sampled  time.Duration // when the last sample was taken
	replicas int           // wanted, as last set or seen

	echoUntil  time.Duration // ignore what the registry shows until then
	panicUntil time.Duration
	downAfter  time.Duration // no step down before
	idleFrom   time.Duration // idling counts from here at the earliest
	startedAt  time.Duration // since when no replica has been ready

	held     bool    // set by hand, and the load has not fallen since
	heldLoad float64 // highest stable mean since

	cancel   context.CancelFunc // of the update under way; nil: none is
	failures int                // updates in a row
	retryAt  time.Duration
	tried    int // replicas that a failed update may have set after all; -1: none
}

func newScaleTrack(now time.Duration, d definition) *scaleTrack {
	return &scaleTrack{d: d, replicas: d.replicas, sampled: now, idleFrom: now, startedAt: now, tried: -1}
}

// is reports whether d is the function that the track is of, and not another
// that took its name.
func (t *scaleTrack) is(d definition) bool {
	return t.d.service == d.service && t.d.created.Equal(d.created)
}

// look takes in what the function is doing and returns what decide needs. It
// is a tick, which leaves a sample, or else a look between two of them.
//
// In the input, what depends on the number of replicas goes by what was last
// set or seen; decideAgain puts it right when the provider knows better.
func (t *scaleTrack) look(now time.Duration, d definition, totals loadTotals, ready int, tick bool) (in scaleInput, byHand bool) {
	if now-t.sampled > longestTick || t.d.scale.kind != d.scale.kind {
		t.forget()
		t.idleFrom = now
		t.startedAt = now
	}
	if d.scale != t.d.scale {
		t.held = false // the labels are the later word
	}
	t.d = d
	if now >= t.echoUntil && d.replicas != t.replicas {
		byHand = t.found(now, d.replicas)
	}

	s := d.scale
	in = scaleInput{
		limits:   s,
		inFlight: totals.current,
		stable:   t.history.mean(now, totals, s.kind, stableWindow),
		short:    t.history.mean(now, totals, s.kind, panicWindow),
		surge:    t.history.mean(now, totals, s.kind, surgeWindow),
	}
	if tick {
		t.history.record(now, totals, s.kind)
		t.sampled = now
	}
	t.heldLoad = max(t.heldLoad, in.stable)
	if t.held && max(in.short, in.stable) <= t.heldLoad-s.target {
		// The load has fallen by what a replica takes.
		t.held = false
		t.downAfter = now + stableWindow
	}
	if ready > 0 || t.replicas == 0 {
		t.startedAt = now
	}

	in.replicas = t.replicas
	in.peak = max(t.history.peak(now), in.short)
	in.idle = now - max(totals.lastActive, t.idleFrom)
	in.panicking = now < t.panicUntil
	in.settled = now >= t.downAfter && t.history.full(now)
	in.held = t.held
	none := ready == 0 && t.replicas > 0
	in.alone = none && now-t.startedAt <= startAlone
	in.stuck = none && now-t.startedAt > stuckAfter
	return in, byHand
}

// forget starts the windows anew.
func (t *scaleTrack) forget() {
	t.history.reset()
	t.panicUntil = 0
}

// found notes a number of replicas that the loop did not set, and reports
// whether that was done by hand.
func (t *scaleTrack) found(now time.Duration, replicas int) bool {
	t.replicas = replicas
	t.idleFrom = now
	if replicas == t.tried {
		return false // a call that failed on the way back
	}
	t.held = true
	t.heldLoad = 0
	t.forget() // whoever set it knew that load
	return true
}

// applied notes that the provider had from replicas and now has to. in is what
// the autoscaler went by when it asked for the change. It reports whether from
// had been set by hand.
func (t *scaleTrack) applied(now time.Duration, in scaleInput, from, to int) (byHand bool) {
	if from != in.replicas {
		byHand = t.found(now, from)
	}
	t.failures = 0
	t.tried = -1
	t.echoUntil = now + echoTime
	t.replicas = to
	if from == 0 {
		t.startedAt = now
	}
	switch {
	case to > from:
		t.held = false // the load asked for more than somebody had set
		t.downAfter = now + stableWindow
	case to < from:
		t.downAfter = now + panicWindow
	}
	if to == 0 {
		t.forget() // who calls next does not get what an earlier load needed
	}
	return byHand
}

// failed notes that an update which may have set tried ended in an error, and
// is not to be repeated before retryAt.
func (t *scaleTrack) failed(tried int, retryAt time.Duration) {
	t.failures++
	t.tried = tried
	t.retryAt = retryAt
}

// drop ends what is under way for the function, which is gone.
func (t *scaleTrack) drop() {
	if t.cancel != nil {
		t.cancel()
	}
}
