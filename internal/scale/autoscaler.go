// Package scale keeps the replicas of functions in step with their load: what to
// count (Load), how many replicas that needs, and a loop that asks for them.
package scale

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxUpdates = 8 // calls of the provider at once

	// scaleTimeout bounds one call of the provider. A Swarm that has lost
	// its leader takes up to 12 s to answer, and then does.
	scaleTimeout = 20 * time.Second

	firstRetry = 500 * time.Millisecond
	lastRetry  = 30 * time.Second
)

// Errors of a Scaler that the autoscaler distinguishes.
var (
	// ErrNotFound: the function has gone.
	ErrNotFound = errors.New("not found")

	// ErrRollout: a new version of the function is being rolled out, which a
	// change of its replicas would disturb.
	ErrRollout = errors.New("a rollout is under way or paused")
)

// A State is a snapshot of what is known of one function.
type State struct {
	Name     string
	Service  string // with created distinguishes the function from another that took its name
	Created  time.Time
	Limits   Limits
	Replicas int  // wanted, as whoever runs it last said
	Rollout  bool // one is under way or paused: ErrRollout
}

// A Function is the autoscaler's view of a function. Its methods are called from
// several goroutines and must not block.
type Function interface {
	State() State
	Totals(now time.Duration) Totals
	Ready() int // replicas that can be called now
}

// A Scaler sets the number of replicas.
type Scaler interface {
	// Scale reads how many replicas the function has, asks decide for the new
	// number and sets it. Errors are ErrNotFound, ErrRollout, or others.
	Scale(ctx context.Context, f State, decide func(current int) int) error
}

// An Autoscaler keeps the replicas of all functions in step with their load.
type Autoscaler struct {
	options   Options
	functions func() []Function
	scaler    Scaler

	draining atomic.Bool // see drain

	wakes   chan string
	answers chan struct{} // the provider answers again
	results chan result

	// The loop's own.
	tracks   map[string]*track
	updating int
}

// Options configure an Autoscaler. Now and Log are required.
type Options struct {
	Now      func() time.Duration                           // the monotonic clock that the loads are kept by
	Random   func() float64                                 // numbers from 0 up to 1, which spread retries; nil: math/rand's
	Changed  func(name string, from, to int, reason string) // told of every change made, from the loop's goroutine; may be nil
	WakeOnly bool                                           // scale up from zero only
	Leave    func(name string) bool                         // somebody else scales this one now, but for waking it; nil: nobody does
	Others   Others                                         // nil: there are none
	Log      *slog.Logger
}

// New makes an autoscaler that Run starts. functions returns every
// function there is.
func New(functions func() []Function, to Scaler, o Options) *Autoscaler {
	if o.Changed == nil {
		o.Changed = func(string, int, int, string) {}
	}
	if o.Random == nil {
		o.Random = rand.Float64
	}
	if o.Others == nil {
		o.Others = alone{}
	}
	return &Autoscaler{
		options:   o,
		functions: functions,
		scaler:    to,
		wakes:     make(chan string, 64),
		answers:   make(chan struct{}, 1),
		results:   make(chan result, maxUpdates),
		tracks:    make(map[string]*track),
	}
}

// Wake has the autoscaler check one function at once, because a caller waits for it
// and it has no replica. It never blocks: if very many are requested at the same
// moment, the next tick handles the rest.
func (a *Autoscaler) Wake(name string) {
	select {
	case a.wakes <- name:
	default:
	}
}

// Answering ends the waits after failures, because the provider answers again. It
// never blocks.
func (a *Autoscaler) Answering() {
	select {
	case a.answers <- struct{}{}:
	default:
	}
}

// Drain stops scaling down: this process sees fewer and fewer of the calls, which
// says nothing about the load.
func (a *Autoscaler) Drain() { a.draining.Store(true) }

// permit returns d, or a decision to change nothing if the autoscaler may not apply
// d.
func (a *Autoscaler) permit(d decision, current int) decision {
	others := a.options.Others
	follows := a.options.WakeOnly || !others.Acting()
	down := d.replicas < current && (a.draining.Load() || !others.Complete())
	if follows && d.reason != reasonWake || down {
		return decision{replicas: current, panic: d.panic}
	}
	return d
}

// Run scales until ctx is done, and returns nil once the updates in progress have
// ended.
func (a *Autoscaler) Run(ctx context.Context) error {
	var updates sync.WaitGroup
	defer updates.Wait()
	ticker := time.NewTicker(tickInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			a.tick(ctx, &updates)
		case name := <-a.wakes:
			for _, f := range a.functions() {
				if f.State().Name == name {
					a.consider(ctx, &updates, f, false)
				}
			}
		case r := <-a.results:
			a.finish(r)
		case <-a.answers:
			for _, t := range a.tracks {
				t.failures, t.retryAt = 0, 0
			}
		}
	}
}

// tick samples every function and drops the tracks of those that are gone.
func (a *Autoscaler) tick(ctx context.Context, updates *sync.WaitGroup) {
	a.options.Others.Sample(a.options.Now())
	there := make(map[string]bool, len(a.tracks))
	for _, f := range a.functions() {
		there[f.State().Name] = true
		a.consider(ctx, updates, f, true)
	}
	for name, t := range a.tracks {
		if !there[name] {
			t.drop()
			delete(a.tracks, name)
		}
	}
}

// consider checks one function and starts an update if it needs one.
func (a *Autoscaler) consider(ctx context.Context, updates *sync.WaitGroup, f Function, tick bool) {
	now, d := a.options.Now(), f.State()
	t := a.tracks[d.Name]
	if t != nil && !t.is(d) {
		t.drop()
		t = nil
	}
	if t == nil {
		t = newTrack(now, d)
		t.shared = a.options.Others != alone{}
		a.tracks[d.Name] = t
	}

	if t.rolledOut(d) {
		a.recovered(t)
	}
	before := t.replicas
	if t.doubt {
		before = t.doubted
		if set, ok := a.options.Others.Set(d.Name, echoTime); ok && set == t.replicas {
			t.trust(now)
		}
	}
	in, byHand := t.look(now, d, f.Totals(now), f.Ready(), tick)
	if a.options.Others.Joined(d.Name, stableWindow) {
		in.panicking = true // what it does is not yet in the stable window
	}
	if byHand {
		a.options.Log.Info("function scaled by hand", "function", d.Name, "from", before, "to", in.replicas)
	}
	wanted := a.permit(decide(in), in.replicas)
	asks := wanted.reason != reasonNone || wanted.panic
	if a.options.Leave != nil && asks && wanted.reason != reasonWake && a.options.Leave(d.Name) {
		wanted = decision{replicas: in.replicas}
	}
	if wanted.panic {
		t.panicUntil = now + stableWindow
		in.panicking = true
	}
	// A caller waits, and the registry shows no replica. If we have set more,
	// somebody may have removed them after our last change.
	taken := !tick && d.Replicas == 0 && d.Limits.Scales()
	if wanted.reason == reasonNone && !taken || t.cancel != nil || now < t.retryAt || a.updating == maxUpdates {
		return
	}

	ctx, t.cancel = context.WithTimeout(ctx, scaleTimeout)
	a.updating++
	updates.Go(func() { a.results <- a.update(ctx, f, t, d, in) })
}

// result is how an update ended.
type result struct {
	track    *track
	input    input // that led to the update
	from     int
	decision decision
	err      error
}

// update has the provider set the number of replicas. It runs concurrently with the
// loop, so it passes t on without reading it.
func (a *Autoscaler) update(ctx context.Context, f Function, t *track, d State, in input) result {
	r := result{track: t, input: in, from: in.replicas, decision: decision{replicas: in.replicas}}
	r.err = a.scaler.Scale(ctx, d, func(current int) int {
		now := a.options.Now()
		r.from = current
		r.decision = a.permit(in.decideAgain(now, f.Totals(now), current), current)
		return r.decision.replicas
	})
	return r
}

// finish records the result of an update in the loop's state.
func (a *Autoscaler) finish(r result) {
	t, now := r.track, a.options.Now()
	a.updating--
	t.cancel()
	t.cancel = nil
	name := t.d.Name
	if a.tracks[name] != t {
		return // removed, or replaced by a namesake, while it was scaled
	}
	if r.err != nil {
		wait := a.backoff(t.failures + 1)
		news := t.failed(r.decision.replicas, r.err, now+wait)
		switch {
		case errors.Is(r.err, ErrNotFound), errors.Is(r.err, context.Canceled):
		case news:
			a.options.Log.Warn("function not scaled", "function", name, "error", r.err)
		default:
			a.options.Log.Debug("function still not scaled", "function", name, "error", r.err, "failures", t.failures, "retry_in", wait)
		}
		return
	}
	to := r.decision
	if to.replicas != r.from || !errors.Is(t.reported, ErrRollout) {
		a.recovered(t) // an update that changes nothing succeeds during a rollout, too
	}
	if t.applied(now, r.input, r.from, to.replicas) {
		a.options.Log.Info("function scaled by hand", "function", name, "from", r.input.replicas, "to", r.from)
	}
	if to.replicas == r.from {
		return
	}
	a.options.Log.Info("function scaled", "function", name, "from", r.from, "to", to.replicas, "reason", to.reason,
		"load", math.Round(to.load*100)/100, "target", r.input.limits.Target, "window", to.window)
	a.options.Changed(name, r.from, to.replicas, to.reason)
}

// recovered notes that the function can be scaled again.
func (a *Autoscaler) recovered(t *track) {
	if t.recovered() {
		a.options.Log.Info("function can be scaled again", "function", t.d.Name)
	}
}

// backoff returns how long to wait after so many failures in a row: twice as long
// each time, up to lastRetry, with jitter down to half of that, so that functions
// that failed together are not retried together.
func (a *Autoscaler) backoff(failures int) time.Duration {
	wait := lastRetry
	if doublings := failures - 1; doublings < 6 {
		wait = min(wait, firstRetry<<doublings)
	}
	return wait/2 + time.Duration(a.options.Random()*float64(wait/2))
}
