package main

// Replicas that fail more than their siblings. One that fails at once has nothing
// in flight, so by load alone it would get nearly all calls. Here it gets its even
// share at most, and is ejected if it keeps failing. Envoy's outlier detection and
// Finagle's failure accrual are the models.

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"
)

const (
	aloneFirst = time.Second     // first ejection of an outlier
	aloneMost  = 5 * time.Second // longest one; it doubles each time and bounds how late a recovery is noticed

	outcomeWeight = 1.0 / 16    // of the latest outcome in a replica's share of failures
	outlierMargin = 0.25        // see standsOut
	outcomeMemory = time.Minute // without an outcome, after which the share counts half

	onTrial = 1 // a value of outcomes.until
)

// outcomes tracks how a replica's calls end. The zero value is a healthy replica.
type outcomes struct {
	// until is 0 for a replica that is not an outlier. onTrial: it gets its even
	// share at most. Otherwise it is ejected until then, in Unix nanoseconds, and
	// after that gets one call a second, until one succeeds.
	until   atomic.Int64
	watched atomic.Bool // failing is above 0, and so a success changes something

	// What follows is under balancer.mu.

	failing float64   // share of failures among the latest outcomes
	noted   time.Time // when failing last changed
	since   time.Time // when until last became 0, onTrial, or another while
	strikes int       // whiles in a row; a minute without one ends the row

	reported time.Time // when it was last logged as an outlier
	open     bool      // it was, and its end was not
}

// isFailure reports whether a status counts as a failure of the replica. 503 does:
// whether it cannot start its process or sheds load, its siblings may do better,
// and if not, it does not stand out. 501 and 505 do not: no replica supports what
// the request needs.
func isFailure(status int) bool {
	return status >= 500 && status != http.StatusNotImplemented && status != http.StatusHTTPVersionNotSupported
}

// outcome notes how a call that r got at sent ended. While everything succeeds it
// takes no lock.
func (b *balancer) outcome(r *replica, failed bool, sent, now time.Time) {
	if !failed && !r.watched.Load() {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	r.note(failed, now)
	fresh := sent.After(r.since) // calls from before say nothing new
	switch until := r.until.Load(); {
	case !b.standsOut(r):
		if until != 0 {
			r.enter(0, now)
		}
	case until == 0:
		if now.Sub(r.since) > outcomeMemory {
			r.strikes = 0
		}
		r.enter(onTrial, now)
	// An outlier gets few calls, so that each of them says more.
	case fresh && failed:
		r.failing = (r.failing + 1) / 2
		r.enter(now.Add(alone(r.strikes)).UnixNano(), now)
		r.strikes++
	case fresh && until != onTrial:
		r.failing /= 2
		r.enter(onTrial, now)
	}
	if !failed {
		return
	}
	// If all fail alike, none is ejected.
	for _, other := range b.replicas() {
		if other != r && other.until.Load() != 0 && !b.standsOut(other) {
			other.enter(0, now)
		}
	}
}

// note updates the share of failures with the latest outcome.
func (o *outcomes) note(failed bool, now time.Time) {
	for ; o.failing > 0 && now.Sub(o.noted) >= outcomeMemory; o.noted = o.noted.Add(outcomeMemory) {
		o.failing /= 2
	}
	o.failing -= o.failing * outcomeWeight
	if failed {
		o.failing += outcomeWeight
	} else if o.failing < outcomeWeight/4 {
		o.failing = 0
	}
	o.noted = now
	o.watched.Store(o.failing > 0)
}

func (o *outcomes) enter(until int64, now time.Time) {
	o.until.Store(until)
	o.since = now
}

// alone returns the length of an outlier's next ejection.
func alone(strikes int) time.Duration { return min(aloneFirst<<min(strikes, 10), aloneMost) }

// standsOut reports whether r succeeds less often, by more than outlierMargin, than
// its siblings that are called as usual. Their shares are squared: if each fails
// half of its calls, none can stand out, and chance alone hardly ever makes one.
// The last usable replica has no such sibling and never stands out.
func (b *balancer) standsOut(r *replica) bool {
	sum, n := 0.0, 0.0
	for _, other := range b.replicas() {
		if other != r && !other.ejected.Load() && other.until.Load() == 0 {
			sum += (1 - other.failing) * (1 - other.failing)
			n++
		}
	}
	return n > 0 && sum/n > 1-r.failing+outlierMargin
}

// passedOver reports whether another of n replicas is to be picked instead of
// an outlier, if there is one.
func (o *outcomes) passedOver(n int, now time.Time) bool {
	return o.until.Load() > now.UnixNano() || rand.IntN(n) != 0
}

// picked notes that the replica gets a call. If that is a trial after an ejection,
// it is the only one for a while.
func (o *outcomes) picked(now time.Time) {
	if until := o.until.Load(); until > onTrial && until <= now.UnixNano() {
		o.until.CompareAndSwap(until, now.Add(aloneFirst).UnixNano())
	}
}

// outliers counts the replicas that get fewer calls for failing.
func (b *balancer) outliers() int {
	n := 0
	for _, r := range b.replicas() {
		if r.until.Load() != 0 {
			n++
		}
	}
	return n
}

// reportOutliers logs which of the function's replicas have been ejected since the
// last time, and which are back: each at most once a minute.
func (r *registry) reportOutliers(f *function, now time.Time) {
	f.balancer.mu.Lock()
	defer f.balancer.mu.Unlock()
	for _, rep := range f.balancer.replicas() {
		switch until := rep.until.Load(); {
		case rep.open && until == 0:
			rep.open = false
			r.log.Info("replica no longer ejected", "function", f.name, "replica", rep.addr, "after", now.Sub(rep.reported).Round(time.Millisecond))
		case !rep.open && until > onTrial && now.Sub(rep.reported) >= outcomeMemory:
			rep.open, rep.reported = true, now
			r.log.Warn("replica ejected: it fails more than its siblings", "function", f.name, "replica", rep.addr, "failing", fmt.Sprintf("%.0f%%", 100*rep.failing))
		}
	}
}

// An answerBody is the body of a response. It notes when the response breaks off
// through the replica's fault, not the caller's.
type answerBody struct {
	io.ReadCloser
	ctx context.Context // of the invocation
}

// watchAnswer makes a failure of resp's body count against inv's replica.
func (inv *invocation) watchAnswer(ctx context.Context, resp *http.Response) {
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return // the body is the connection
	}
	inv.answer = answerBody{resp.Body, ctx}
	resp.Body = &inv.answer
}

func (a *answerBody) Read(p []byte) (int, error) {
	n, err := a.ReadCloser.Read(p)
	if err != nil && err != io.EOF && a.ctx.Err() == nil {
		inv := invocationOf(a.ctx)
		if inv.body.failure() == nil {
			inv.f.balancer.outcome(inv.replica, true, inv.start, time.Now())
		}
	}
	return n, err
}
