package main

// Who may come in: the limit of invocations in flight, and the line of callers
// that wait while a function has no ready replica.

import (
	"container/list"
	"context"
	"fmt"
	"sync"
	"time"

	"faas/internal/scale"
)

// epoch is where monotonic time begins.
var epoch = time.Now()

func sinceEpoch() time.Duration { return time.Since(epoch) }

// admission counts one function's invocations. Its load is what the autoscaler
// reads.
type admission struct {
	mu       sync.Mutex
	load     scale.Load
	inflight int       // admitted and not yet ended, those that wait included
	reserved int       // of the limit, for other gateways
	line     list.List // of place, first come first
	since    time.Time // when the line began

	trouble  *trouble  // why the line stands, as far as is known
	failed   time.Time // when the replicas were last found to keep failing
	reported bool      // that they do, and no replica has been ready since
}

// A place is that of one caller in the line.
type place struct {
	turn  chan error // gets why the caller does not go on, or is closed if it does
	since time.Time
}

// reserve keeps so much of the limit for other gateways.
func (a *admission) reserve(n int) {
	a.mu.Lock()
	a.reserved = n
	a.mu.Unlock()
}

// enter admits one invocation, or says errTooMany. Each enter without an error
// wants one leave. limit 0 is none.
func (a *admission) enter(now time.Time, limit int) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if limit > 0 && a.inflight+a.reserved >= limit {
		return fmt.Errorf("%w: %d in flight", errTooMany, limit)
	}
	a.inflight++
	a.load.Add(now.Sub(epoch), 1, 1)
	return nil
}

func (a *admission) leave(now time.Time) {
	a.mu.Lock()
	a.inflight--
	a.load.Add(now.Sub(epoch), -1, 0)
	a.mu.Unlock()
}

// wait holds an admitted invocation until release is called. It calls joined
// when the caller stands in line, and says whether nobody stood there before.
// errTooMany: the line has limit callers. A trouble: the replicas keep failing,
// and another caller waits for one already, or this one has waited long. A
// caller whose ctx ends leaves the line with the context's cause.
func (a *admission) wait(ctx context.Context, limit int, joined func(first bool)) error {
	turn := make(chan error, 1)
	a.mu.Lock()
	if a.trouble.isFailing() && a.line.Len() > 0 {
		defer a.mu.Unlock()
		return a.trouble
	}
	if a.line.Len() >= limit {
		a.mu.Unlock()
		return fmt.Errorf("%w: %d wait for a replica", errTooMany, limit)
	}
	mine := a.line.PushBack(place{turn, time.Now()})
	first := a.line.Len() == 1
	if first {
		a.since = time.Now()
	}
	a.mu.Unlock()
	joined(first)
	select {
	case err := <-turn:
		return err
	case <-ctx.Done():
		a.mu.Lock()
		defer a.mu.Unlock()
		select {
		case err := <-turn:
			return err
		default:
			a.line.Remove(mine)
			return context.Cause(ctx)
		}
	}
}

// release lets everybody in line go on, in the order in which they came, and
// returns for how long the line stood; 0 if there was none. It ends a trouble,
// and says whether that had been reported.
func (a *admission) release() (stood time.Duration, reported bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	reported = a.reported
	a.trouble, a.failed, a.reported = nil, time.Time{}, false
	if a.line.Len() == 0 {
		return 0, reported
	}
	for e := a.line.Front(); e != nil; e = a.line.Front() {
		close(a.line.Remove(e).(place).turn)
	}
	return time.Since(a.since), reported
}

// blame notes why the line stands; nil is not known. Where the replicas keep
// failing, one caller stays in line, as a probe for which they are looked up,
// and for no longer than troubleAfter; all others are turned away. It reports
// whether that is news: the first such trouble since a replica was ready.
func (a *admission) blame(t *trouble) (news bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	switch {
	case a.line.Len() == 0:
		return false // released in the meantime
	case t.isFailing():
		a.failed = now
	case now.Sub(a.failed) < troubleAfter:
		return false // just another try, so far
	}
	a.trouble = t
	if !t.isFailing() {
		return false
	}
	probe := false
	for e := a.line.Front(); e != nil; {
		caller := e
		e = e.Next()
		if p := caller.Value.(place); !probe && now.Sub(p.since) < troubleAfter {
			probe = true
		} else {
			a.line.Remove(caller)
			p.turn <- t
		}
	}
	news = !a.reported
	a.reported = true
	return news
}

// noReplica returns errNoReplica, with the reason if it is known.
func (a *admission) noReplica() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.trouble != nil {
		return a.trouble
	}
	return errNoReplica
}

// failing reports whether the replicas keep failing.
func (a *admission) failing() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.trouble.isFailing()
}

func (a *admission) counts() (inflight, waiting int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.inflight, a.line.Len()
}
