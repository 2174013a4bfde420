package scale

// The autoscaler's state of one function from tick to tick.

import (
	"context"
	"errors"
	"time"
)

const (
	// echoTime is how long the registry may still show the number of replicas from
	// before our own change.
	echoTime = 5 * time.Second

	// If two ticks are further apart, the machine or the process was suspended, and
	// the time between them says nothing about the load.
	longestTick = panicWindow

	// doubtTime is how long another gateway may take to say that it has set a
	// number of replicas. Who says nothing has not: it was set by hand.
	doubtTime = time.Second
)

// A track belongs to the autoscaler's loop alone.
type track struct {
	d        State
	history  history
	sampled  time.Duration // when the last sample was taken
	replicas int           // wanted, as last set or seen

	echoUntil  time.Duration // ignore what the registry shows until then
	panicUntil time.Duration
	downAfter  time.Duration // no step down before
	idleFrom   time.Duration // idling counts from here at the earliest

	held     bool    // set by hand, and the load has not fallen since
	heldLoad float64 // highest stable mean since

	shared    bool          // there may be other gateways
	doubt     bool          // replicas is a number that this gateway did not set, and none has said yet that it did
	doubtFrom time.Duration // since when
	doubted   int           // replicas before it

	cancel   context.CancelFunc // of the update under way; nil: none is
	failures int                // updates in a row
	retryAt  time.Duration
	tried    int   // replicas that a failed update may have set after all; -1: none
	reported error // why updates fail, as it was logged; nil: they do not
}

func newTrack(now time.Duration, d State) *track {
	return &track{d: d, replicas: d.Replicas, sampled: now, idleFrom: now, tried: -1}
}

// is reports whether d is the function that the track is of, and not another
// that took its name.
func (t *track) is(d State) bool {
	return t.d.Service == d.Service && t.d.Created.Equal(d.Created)
}

// look reads the function's load and returns the input of decide. At a tick it also
// records a sample; it may be called between ticks.
//
// Parts of the input that depend on the number of replicas use the last number set
// or seen; decideAgain corrects them with the provider's number.
func (t *track) look(now time.Duration, d State, totals Totals, ready int, tick bool) (in input, byHand bool) {
	if now-t.sampled > longestTick || t.d.Limits.Kind != d.Limits.Kind {
		t.forget()
		t.idleFrom = now
	}
	if d.Limits != t.d.Limits {
		t.held = false // new labels override it
	}
	t.d = d
	if now >= t.echoUntil && d.Replicas != t.replicas {
		byHand = t.differs(now, d.Replicas)
	}
	if t.doubt && now-t.doubtFrom >= doubtTime {
		t.doubt = false
		byHand = t.found(now, t.replicas)
	}

	s := d.Limits
	in = input{
		limits:   s,
		inFlight: totals.InFlight,
		stable:   t.history.mean(totals.At, totals, s.Kind, stableWindow),
		short:    t.history.mean(totals.At, totals, s.Kind, panicWindow),
		surge:    t.history.mean(totals.At, totals, s.Kind, surgeWindow),
	}
	if tick {
		t.history.record(totals.At, totals, s.Kind)
		t.sampled = now
	}
	t.heldLoad = max(t.heldLoad, in.stable)
	if t.held && max(in.short, in.stable) <= t.heldLoad-s.Target {
		// The load has fallen by what a replica takes.
		t.held = false
		t.downAfter = now + stableWindow
	}
	in.replicas = t.replicas
	in.peak = max(t.history.peak(now), in.short)
	in.idle = now - max(totals.LastActive, t.idleFrom)
	in.panicking = now < t.panicUntil
	in.settled = now >= t.downAfter && t.history.full(now)
	in.held = t.held || t.doubt
	in.none = ready == 0
	return in, byHand
}

// forget resets the windows.
func (t *track) forget() {
	t.history.reset()
	t.panicUntil = 0
}

// differs notes a number of replicas that the loop did not set, and reports whether it
// is known that this was done by hand.
func (t *track) differs(now time.Duration, replicas int) bool {
	if !t.shared {
		return t.found(now, replicas)
	}
	if !t.doubt {
		t.doubt, t.doubted = true, t.replicas
	}
	t.doubtFrom, t.replicas = now, replicas
	return false
}

// trust notes that another gateway has set the number in doubt, for the load that this
// one sees, too.
func (t *track) trust(now time.Duration) {
	t.doubt = false
	t.changed(now, t.doubted, t.replicas)
}

// found notes a number of replicas that was set by somebody else, and reports
// whether that was done by hand.
func (t *track) found(now time.Duration, replicas int) bool {
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
func (t *track) applied(now time.Duration, in input, from, to int) (byHand bool) {
	if from != in.replicas {
		byHand = t.differs(now, from)
	}
	t.tried = -1
	t.echoUntil = now + echoTime
	t.replicas = to
	t.changed(now, from, to)
	return byHand
}

// changed notes that the load has changed the number.
func (t *track) changed(now time.Duration, from, to int) {
	switch {
	case to > from:
		t.held, t.doubt = false, false // the load asked for more than somebody had set
		t.downAfter = now + stableWindow
	case to < from:
		t.downAfter = now + panicWindow
	}
	if to == 0 {
		t.forget() // the next caller does not get the replicas of an earlier load
	}
}

// failed notes that an update which may have set tried ended in err, and is not to
// be retried before retryAt. It reports whether the error is new.
func (t *track) failed(tried int, err error, retryAt time.Duration) (news bool) {
	t.failures++
	t.tried = tried
	t.retryAt = retryAt
	if t.reported != nil && errors.Is(t.reported, ErrRollout) == errors.Is(err, ErrRollout) {
		return false
	}
	t.reported = err
	return true
}

// rolledOut reports whether d shows the end of a rollout that kept the function
// from being scaled.
func (t *track) rolledOut(d State) bool {
	return t.d.Rollout && !d.Rollout && errors.Is(t.reported, ErrRollout)
}

// recovered ends a row of failures and reports whether there was one.
func (t *track) recovered() bool {
	had := t.reported != nil
	t.failures, t.retryAt, t.reported = 0, 0, nil
	return had
}

// drop cancels the update of a function that is gone.
func (t *track) drop() {
	if t.cancel != nil {
		t.cancel()
	}
}
