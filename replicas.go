package main

// The replicas of functions: where they are, and why there are none. The registry
// asks the provider in the background. Trouble is reported to callers, and once in
// the log and the metric.

import (
	"context"
	"sync"
	"time"
)

const (
	refreshInterval = time.Second            // between look-ups of the replicas of a function in use
	lookupTimeout   = 250 * time.Millisecond // of the addresses of a function
	pollTimeout     = 50 * time.Millisecond  // the same while callers wait: a hanging look-up finds nothing
	pollPause       = 10 * time.Millisecond  // between those
	maxLookups      = 64                     // at once
	maxDue          = 10000                  // look-ups that can be due

	// troubleAfter is how long a function may be without a ready replica before its
	// callers get 503 at once, if its replicas keep failing. It is also the longest
	// wait for a function known to fail.
	troubleAfter = 10 * time.Second

	troublePause   = time.Second     // between two questions about one function
	troubleTimeout = 5 * time.Second // of a question
	maxQuestions   = 4               // at once

	// failingPoll is the pollPause of a function whose replicas keep failing.
	failingPoll = 250 * time.Millisecond
)

// trouble says why a function has no ready replica. It is immutable. As an
// error it wraps errNoReplica.
type trouble struct {
	reason  string // for callers: nothing internal
	detail  string // for operators: the provider's own message
	failing bool   // its replicas keep failing, so waiting does not help
}

func (t *trouble) Error() string { return errNoReplica.Error() + ": " + t.reason }

func (t *trouble) Unwrap() error { return errNoReplica }

// isFailing is for a trouble that may be nil.
func (t *trouble) isFailing() bool { return t != nil && t.failing }

// A troubleshooter is a provider that knows why a function has no ready replica.
type troubleshooter interface {
	// trouble returns what keeps replicas of the function from becoming ready, or
	// nil if the provider knows of nothing: they may be starting. It takes as long
	// as a request to the provider.
	trouble(ctx context.Context, d definition) (*trouble, error)
}

// diagnose has the provider asked, in the background, why the function has no
// replica while callers wait. It is called with the result of each lookup.
func (r *registry) diagnose(f *function, ready, waiting bool) {
	now, d := time.Now(), f.definition()
	asleep := d.replicas == 0 && d.scale.Scales() && !waiting
	if ready || asleep {
		f.noneSince = time.Time{}
		if asleep {
			f.admission.release() // no caller waits; clear the trouble
		}
		return
	}
	if f.noneSince.IsZero() {
		f.noneSince = now
	}
	if !waiting || now.Sub(f.noneSince) < troubleAfter || now.Sub(f.asked) < troublePause || !f.asking.CompareAndSwap(false, true) {
		return
	}
	select {
	case r.questions <- f:
		f.asked = now
	default:
		f.asking.Store(false)
	}
}

// troubleshoot answers such questions until ctx is done.
func (r *registry) troubleshoot(ctx context.Context) {
	for {
		select {
		case f := <-r.questions:
			r.ask(ctx, f)
			f.asking.Store(false)
		case <-ctx.Done():
			return
		}
	}
}

func (r *registry) ask(ctx context.Context, f *function) {
	ctx, cancel := context.WithTimeout(ctx, troubleTimeout)
	defer cancel()
	t, err := r.trouble(ctx, f.definition())
	if err != nil {
		r.log.Debug("trouble unknown", "function", f.name, "error", err)
		return
	}
	if f.admission.blame(t) {
		r.log.Warn("function cannot start: callers get 503", "function", f.name, "reason", t.reason, "detail", t.detail)
	}
}

// trouble checks what the registry itself knows before it asks the provider.
func (r *registry) trouble(ctx context.Context, d definition) (*trouble, error) {
	if d.replicas == 0 && !d.scale.Scales() && !d.scale.Fixed { // how many a fixed one has is for the provider to say
		return &trouble{reason: "it has no replicas and is not scaled", detail: "0 replicas are wanted, and its labels turn scaling off", failing: true}, nil
	}
	if r.outage.Load() != nil {
		return &trouble{reason: "the provider of functions does not answer"}, nil
	}
	if p, ok := r.provider.(troubleshooter); ok {
		return p.trouble(ctx, d)
	}
	return nil, nil
}

// refresh schedules a lookup of the function's replicas. It never blocks; if too
// many lookups are queued, the next caller asks again.
func (r *registry) refresh(f *function) {
	if !f.refreshing.CompareAndSwap(false, true) {
		return
	}
	select {
	case r.lookups <- f:
	default:
		f.refreshing.Store(false)
	}
}

// lookUp brings the function's replicas up to date, and reports whether callers
// still wait for one.
func (r *registry) lookUp(ctx context.Context, f *function) (more bool) {
	if f.gone.Load() {
		f.admission.release() // callers that began to wait as it was removed
		return false
	}
	_, waiting := f.admission.counts()
	timeout := lookupTimeout
	if waiting > 0 {
		timeout = pollTimeout
	}
	look, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	addrs, err := r.provider.addresses(look, f.definition())
	f.refreshed.Store(int64(sinceEpoch()))
	if err != nil && !f.balancer.allFailed() {
		for _, known := range f.balancer.replicas() {
			addrs = append(addrs, known.addr)
		}
	}
	if waiting > 0 || f.admission.failing() {
		addrs = r.accepting(ctx, addrs)
		f.reached.Store(true)
	}
	if len(addrs) == 0 {
		f.reached.Store(false)
	}
	r.diagnose(f, len(addrs) > 0, waiting > 0)
	for _, addr := range f.balancer.update(addrs) {
		r.closeIdle(addr)
	}
	r.probe(ctx, f)
	r.reportOutliers(f, time.Now())
	if len(addrs) == 0 {
		return waiting > 0
	}
	waited, failed := f.admission.release()
	if failed {
		r.log.Info("function can start again", "function", f.name)
	}
	if waited > 0 {
		f.metrics.waited(waited)
		r.log.Info("function has replicas", "function", f.name, "replicas", len(addrs), "waited", waited.Round(time.Millisecond))
	}
	return false
}

// accepting returns those of addrs that accept a connection now: a task is
// known before its process listens.
func (r *registry) accepting(ctx context.Context, addrs []string) []string {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	accepted := make(chan string, len(addrs))
	var wg sync.WaitGroup
	for _, addr := range addrs {
		wg.Go(func() {
			if conn, err := r.dial(ctx, "tcp", addr); err == nil {
				conn.Close()
				accepted <- addr
				// The first one releases the callers; others are found by the next
				// lookup.
				time.AfterFunc(5*time.Millisecond, cancel)
			}
		})
	}
	wg.Wait()
	close(accepted)
	var ready []string
	for addr := range accepted {
		ready = append(ready, addr)
	}
	return ready
}

// probe dials the doubted replicas and those whose ejection is over, so that no
// caller has to.
func (r *registry) probe(ctx context.Context, f *function) {
	doubted := f.balancer.toProbe(time.Now())
	if len(doubted) == 0 {
		return
	}
	var wg sync.WaitGroup
	for _, rep := range doubted {
		wg.Go(func() {
			conn, err := r.dial(ctx, "tcp", rep.addr)
			if err != nil {
				f.balancer.failed(rep, time.Now())
				return
			}
			conn.Close()
			f.balancer.reached(rep, time.Now())
		})
	}
	wg.Wait()
}
