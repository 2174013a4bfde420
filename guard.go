package main

// What ends an invocation early: its limit, or a caller that goes away.

import (
	"context"
	"net/http"
	"sync"
	"time"
)

// guardDelay is how long an invocation goes unguarded. Timers, deadlines on
// the caller's connection and a goroutine that looks for its end cost more
// than all else that the gateway adds to a call, and most calls are over
// before any of it can matter.
const guardDelay = 10 * time.Millisecond

// A guard ends the context of one invocation when its limit is reached or its
// caller has gone. It also bounds how long the caller's connection may be read
// and written: a caller that is slow costs itself the limit, and no more.
type guard struct {
	request  context.Context // the caller's
	w        http.ResponseWriter
	deadline time.Time
	end      context.CancelCauseFunc

	mu      sync.Mutex
	timer   *time.Timer
	reading bool // the request's body is still to be read
	armed   bool
	over    bool
	unwatch func()
	unhook  func() bool

	endMu sync.Mutex // of what follows; taken last
	ended bool
	then  func() // called once the context has ended; nil for none
}

// finish ends the context, and then has done what waits for that.
func (g *guard) finish(cause error) {
	g.end(cause)
	g.endMu.Lock()
	defer g.endMu.Unlock()
	g.ended = true
	if g.then != nil {
		go g.then()
		g.then = nil
	}
}

// onEnd and offEnd make the guard an endNotifier.
func (g *guard) onEnd(f func()) {
	g.endMu.Lock()
	defer g.endMu.Unlock()
	if g.ended {
		go f()
		return
	}
	g.then = f
}

func (g *guard) offEnd() bool {
	g.endMu.Lock()
	defer g.endMu.Unlock()
	inTime := g.then != nil
	g.then = nil
	return inTime
}

// begin begins to guard what end ends, limit before the deadline. reading says
// that there is a body. Each begin wants one stop.
func (g *guard) begin(w http.ResponseWriter, reading bool, limit time.Duration, end context.CancelCauseFunc) {
	g.w, g.reading, g.end = w, reading, end
	g.mu.Lock()
	g.timer = time.AfterFunc(min(guardDelay, limit), g.due)
	g.mu.Unlock()
}

// due arms the guard, and when it is called again ends the invocation.
func (g *guard) due() {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.over:
	case g.armed:
		g.finish(context.DeadlineExceeded)
	default:
		g.arm()
	}
}

// lateBy is by how much a caller's connection may outlive the context: the 504
// still has to be written.
const lateBy = time.Second

func (g *guard) arm() {
	g.armed = true
	g.timer.Reset(time.Until(g.deadline))
	control := http.NewResponseController(g.w)
	control.SetWriteDeadline(g.deadline.Add(lateBy))
	if g.reading {
		// Reading the body ends with the context, or just behind it: net/http
		// takes a deadline that passes for a caller that goes away.
		control.SetReadDeadline(g.deadline.Add(50 * time.Millisecond))
	} else {
		control.SetReadDeadline(g.deadline.Add(lateBy))
	}
	g.unhook = context.AfterFunc(g.request, func() { g.finish(context.Cause(g.request)) })
	if caller := callerOf(g.request); caller != nil {
		g.unwatch = caller.watch(func() { g.finish(context.Canceled) })
	}
}

// bodyRead tells that all of the request's body has been read.
func (g *guard) bodyRead() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.reading = false
	if g.armed && !g.over {
		http.NewResponseController(g.w).SetReadDeadline(g.deadline.Add(lateBy))
	}
}

// stop returns when nothing of the guard is left.
func (g *guard) stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.over = true
	g.timer.Stop()
	if g.unhook != nil {
		g.unhook()
	}
	if g.unwatch != nil {
		g.unwatch()
	}
	g.finish(context.Canceled)
}
