package main

// The autoscaler: watches what every function is doing and asks the provider
// for as many replicas as that needs. decision.go says how many those are.

import (
	"context"
	"errors"
	"log/slog"
	"math"
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

// scalable is a function as the autoscaler sees it. Its methods are called
// from several goroutines and must not block.
type scalable interface {
	definition() definition
	totals(now time.Duration) loadTotals
	ready() int // replicas that can be called now
}

// scaler is the part of a provider that the autoscaler needs.
type scaler interface {
	scale(ctx context.Context, d definition, decide func(current int) int) error
}

// An autoscaler keeps the replicas of all functions in step with their load.
type autoscaler struct {
	functions func() []scalable
	provider  scaler
	now       func() time.Duration
	random    func() float64
	changed   func(name string, from, to int, reason string)
	log       *slog.Logger

	wakeOnly bool        // scale from none and leave all else to others
	draining atomic.Bool // see drain

	wakes   chan string
	answers chan struct{} // the provider answers again
	results chan scaleResult

	// The loop's own.
	tracks   map[string]*scaleTrack
	updating int
}

// newAutoscaler makes an autoscaler that run starts.
//
// functions returns every function there is. now reads the monotonic clock
// that the loads are kept by. random returns numbers from 0 up to 1, to spread
// retries. changed, which may be nil, is told of every change made, from the
// loop's goroutine.
func newAutoscaler(functions func() []scalable, provider scaler, now func() time.Duration, random func() float64,
	changed func(name string, from, to int, reason string), log *slog.Logger) *autoscaler {
	if changed == nil {
		changed = func(string, int, int, string) {}
	}
	return &autoscaler{
		functions: functions,
		provider:  provider,
		now:       now,
		random:    random,
		changed:   changed,
		log:       log,
		wakes:     make(chan string, 64),
		answers:   make(chan struct{}, 1),
		results:   make(chan scaleResult, maxUpdates),
		tracks:    make(map[string]*scaleTrack),
	}
}

// wake asks for a look at one function at once, as a caller waits for it and
// it has no replica. It never blocks: when very many are asked for at the same
// moment, the next tick sees to the rest.
func (a *autoscaler) wake(name string) {
	select {
	case a.wakes <- name:
	default:
	}
}

// answering ends the waits after failures: the provider answers again. It
// never blocks.
func (a *autoscaler) answering() {
	select {
	case a.answers <- struct{}{}:
	default:
	}
}

// drain ends scaling down: this gateway sees fewer and fewer of the calls, and
// that says nothing about the load.
func (a *autoscaler) drain() { a.draining.Store(true) }

// permit returns d, or that nothing is to be done where the autoscaler may not
// do that.
func (a *autoscaler) permit(d decision, current int) decision {
	if a.wakeOnly && d.reason != reasonWake || a.draining.Load() && d.replicas < current {
		return decision{replicas: current}
	}
	return d
}

// run scales until ctx is done, and returns nil when the updates under way
// have ended, too.
func (a *autoscaler) run(ctx context.Context) error {
	var updates sync.WaitGroup
	defer updates.Wait()
	ticker := time.NewTicker(scaleTick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			a.tick(ctx, &updates)
		case name := <-a.wakes:
			for _, f := range a.functions() {
				if f.definition().name == name {
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

// tick samples every function and drops what it knew of those that are gone.
func (a *autoscaler) tick(ctx context.Context, updates *sync.WaitGroup) {
	there := make(map[string]bool, len(a.tracks))
	for _, f := range a.functions() {
		there[f.definition().name] = true
		a.consider(ctx, updates, f, true)
	}
	for name, t := range a.tracks {
		if !there[name] {
			t.drop()
			delete(a.tracks, name)
		}
	}
}

// consider looks at one function and starts an update if it needs one.
func (a *autoscaler) consider(ctx context.Context, updates *sync.WaitGroup, f scalable, tick bool) {
	now, d := a.now(), f.definition()
	t := a.tracks[d.name]
	if t != nil && !t.is(d) {
		t.drop()
		t = nil
	}
	if t == nil {
		t = newScaleTrack(now, d)
		a.tracks[d.name] = t
	}

	before := t.replicas
	in, byHand := t.look(now, d, f.totals(now), f.ready(), tick)
	if byHand {
		a.log.Info("function scaled by hand", "function", d.name, "from", before, "to", in.replicas)
	}
	wanted := a.permit(decide(in), in.replicas)
	if wanted.panic {
		t.panicUntil = now + stableWindow
		in.panicking = true
	}
	// A caller waits, and the registry shows no replica. Where we know better,
	// somebody may have taken them away behind our own last change.
	taken := !tick && d.replicas == 0 && d.scale.scales()
	if wanted.reason == reasonNone && !taken || t.cancel != nil || now < t.retryAt || a.updating == maxUpdates {
		return
	}

	ctx, t.cancel = context.WithTimeout(ctx, scaleTimeout)
	a.updating++
	updates.Go(func() { a.results <- a.update(ctx, f, t, d, in) })
}

// scaleResult is how an update ended.
type scaleResult struct {
	track    *scaleTrack
	input    scaleInput // that led to the update
	from     int
	decision decision
	err      error
}

// update has the provider set the number of replicas. It runs beside the loop
// and so carries t along without looking at it.
func (a *autoscaler) update(ctx context.Context, f scalable, t *scaleTrack, d definition, in scaleInput) scaleResult {
	r := scaleResult{track: t, input: in, from: in.replicas, decision: decision{replicas: in.replicas}}
	r.err = a.provider.scale(ctx, d, func(current int) int {
		now := a.now()
		r.from = current
		r.decision = a.permit(in.decideAgain(now, f.totals(now), current), current)
		return r.decision.replicas
	})
	return r
}

// finish takes the result of an update over into what the loop knows.
func (a *autoscaler) finish(r scaleResult) {
	t, now := r.track, a.now()
	a.updating--
	t.cancel()
	t.cancel = nil
	name := t.d.name
	if a.tracks[name] != t {
		return // removed, or replaced by a namesake, while it was scaled
	}
	if r.err != nil {
		wait := a.backoff(t.failures + 1)
		t.failed(r.decision.replicas, now+wait)
		if !errors.Is(r.err, errNotFound) && !errors.Is(r.err, context.Canceled) {
			a.log.Warn("function not scaled", "function", name, "error", r.err, "failures", t.failures, "retry_in", wait)
		}
		return
	}
	to := r.decision
	if t.applied(now, r.input, r.from, to.replicas) {
		a.log.Info("function scaled by hand", "function", name, "from", r.input.replicas, "to", r.from)
	}
	if to.replicas == r.from {
		return
	}
	a.log.Info("function scaled", "function", name, "from", r.from, "to", to.replicas, "reason", to.reason,
		"load", math.Round(to.load*100)/100, "target", r.input.limits.target, "window", to.window)
	a.changed(name, r.from, to.replicas, to.reason)
}

// backoff returns how long to wait after so many failures in a row: twice as
// long each time, up to lastRetry, and by chance down to half of that, so that
// functions that failed together do not come back together.
func (a *autoscaler) backoff(failures int) time.Duration {
	wait := lastRetry
	if doublings := failures - 1; doublings < 6 {
		wait = min(wait, firstRetry<<doublings)
	}
	return wait/2 + time.Duration(a.random()*float64(wait/2))
}
