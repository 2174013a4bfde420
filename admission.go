package main

// Who may come in: the limit of invocations in flight, and the line of callers
// that wait while a function has no ready replica.

import (
	"container/list"
	"context"
	"fmt"
	"sync"
	"time"
)

// epoch is where monotonic time begins.
var epoch = time.Now()

func sinceEpoch() time.Duration { return time.Since(epoch) }

// admission counts one function's invocations. Its load is what the autoscaler
// reads.
type admission struct {
	mu       sync.Mutex
	load     load
	inflight int       // admitted and not yet ended, those that wait included
	line     list.List // of chan struct{}, first come first
	since    time.Time // when the line began
}

// enter admits one invocation, or says errTooMany. Each enter without an error
// wants one leave. limit 0 is none.
func (a *admission) enter(now time.Time, limit int) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if limit > 0 && a.inflight >= limit {
		return fmt.Errorf("%w: %d in flight", errTooMany, limit)
	}
	a.inflight++
	a.load.add(now.Sub(epoch), 1, 1)
	return nil
}

func (a *admission) leave(now time.Time) {
	a.mu.Lock()
	a.inflight--
	a.load.add(now.Sub(epoch), -1, 0)
	a.mu.Unlock()
}

// wait holds an admitted invocation until release is called. It calls joined
// when the caller stands in line, and says whether nobody stood there before.
// errTooMany: the line has limit callers. A
// caller whose ctx ends leaves the line with the context's cause.
func (a *admission) wait(ctx context.Context, limit int, joined func(first bool)) error {
	ready := make(chan struct{})
	a.mu.Lock()
	if a.line.Len() >= limit {
		a.mu.Unlock()
		return fmt.Errorf("%w: %d wait for a replica", errTooMany, limit)
	}
	place := a.line.PushBack(ready)
	first := a.line.Len() == 1
	if first {
		a.since = time.Now()
	}
	a.mu.Unlock()
	joined(first)
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
		a.mu.Lock()
		defer a.mu.Unlock()
		select {
		case <-ready:
			return nil
		default:
			a.line.Remove(place)
			return context.Cause(ctx)
		}
	}
}

// release lets everybody in line go on, in the order in which they came, and
// returns for how long the line stood; 0 if there was none.
func (a *admission) release() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.line.Len() == 0 {
		return 0
	}
	for place := a.line.Front(); place != nil; place = a.line.Front() {
		close(a.line.Remove(place).(chan struct{}))
	}
	return time.Since(a.since)
}

func (a *admission) counts() (inflight, waiting int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.inflight, a.line.Len()
}
