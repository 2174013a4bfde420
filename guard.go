package main

// What ends an invocation early: its limit, or a caller that goes away. A
// connection that switched protocols with a 101, such as WebSocket, ends when no
// byte has passed for as long as the limit, or when the gateway shuts down.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"faas/internal/wire"
)

// guardDelay is how long an invocation is unguarded. Timers, deadlines on the
// caller's connection and a goroutine that watches for its end cost more than
// everything else that the gateway adds to a call, and most calls are over before
// any of it matters.
const guardDelay = 10 * time.Millisecond

// A guard ends the context of one invocation when its limit is reached or its
// caller has gone. It also bounds reads and writes on the caller's connection, so
// that a slow caller cannot exceed the limit. On an upgraded connection, see
// upgradedConn, the limit is the longest idle time.
type guard struct {
	request  context.Context // the caller's
	w        http.ResponseWriter
	limit    time.Duration
	deadline time.Time
	end      context.CancelCauseFunc

	mu      sync.Mutex
	timer   *time.Timer
	reading bool // the request's body is still to be read
	refused bool // nothing more of it is sent on; see readUntil
	armed   bool
	answers bool // the gateway answers by itself; see answer
	over    bool
	unwatch func()
	unhook  func() bool

	upgraded atomic.Bool
	lastByte atomic.Int64 // on an upgraded connection: time.Duration after deadline
}

// begin starts to guard an invocation. limit is its length; end ends its context.
// reading says that there is a body. Call stop once per begin.
func (g *guard) begin(w http.ResponseWriter, reading bool, limit time.Duration, end context.CancelCauseFunc) {
	g.w, g.reading, g.limit, g.end = w, reading, limit, end
	g.mu.Lock()
	g.timer = time.AfterFunc(min(guardDelay, limit), g.tick)
	g.mu.Unlock()
}

// tick is the timer's func: it arms the guard, and later ends the invocation when
// the limit is reached.
func (g *guard) tick() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.over {
		return
	}
	if !g.armed {
		g.arm()
	}
	if left := g.left(); left > 0 {
		g.timer.Reset(left)
	} else {
		g.end(context.DeadlineExceeded)
	}
}

// left returns the rest of the limit. The timer is not reset for each byte: tick
// checks here when it fires.
func (g *guard) left() time.Duration {
	if g.upgraded.Load() {
		return g.limit - (time.Since(g.deadline) - time.Duration(g.lastByte.Load()))
	}
	return time.Until(g.deadline)
}

// lateBy is how long a caller's connection may outlive the context, so that the 504
// can be written.
const lateBy = time.Second

func (g *guard) arm() {
	g.armed = true
	g.unhook = context.AfterFunc(g.request, func() { g.callerGone(context.Cause(g.request)) })
	if g.upgraded.Load() {
		return // whoever copies sees the caller go
	}
	control := http.NewResponseController(g.w)
	if !g.answers {
		control.SetWriteDeadline(g.deadline.Add(lateBy))
	}
	switch {
	case g.refused:
	case g.reading:
		// Reading the body ends with the context or just after it: to net/http an
		// expired deadline means that the caller has gone.
		control.SetReadDeadline(g.deadline.Add(50 * time.Millisecond))
	default:
		control.SetReadDeadline(g.deadline.Add(lateBy))
	}
	g.unwatch = wire.WatchCaller(g.request, func() { g.callerGone(context.Canceled) })
}

// callerGone ends the invocation of a caller that has gone. On a machine that stood
// still, the deadlines on the caller's connection may pass before tick has run, and
// look like that; then it was the limit.
func (g *guard) callerGone(cause error) {
	// Without the lock: stop holds it while it waits for WatchCaller's call of this.
	if !g.upgraded.Load() && !time.Now().Before(g.deadline) {
		cause = context.DeadlineExceeded
	}
	g.end(cause)
}

// answer gives the gateway's own answer its time on the caller's connection, however
// late it comes.
func (g *guard) answer(control *http.ResponseController) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.answers = true
	control.SetWriteDeadline(time.Now().Add(lateBy))
}

// readUntil makes reads of the caller's connection end at t, in place of the limit.
// It may be called before begin.
func (g *guard) readUntil(control *http.ResponseController, t time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refused = true
	control.SetReadDeadline(t)
}

// bodyRead notes that the whole request body has been read.
func (g *guard) bodyRead() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.reading = false
	if g.armed && !g.over && !g.upgraded.Load() {
		http.NewResponseController(g.w).SetReadDeadline(g.deadline.Add(lateBy))
	}
}

// upgrade makes the limit count from the last byte. It must be called before
// the caller's connection is taken from net/http, which clears what arm has set.
func (g *guard) upgrade() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.upgraded.Store(true)
	g.passed()
}

// passed notes that a byte has passed on an upgraded connection.
func (g *guard) passed() { g.lastByte.Store(int64(time.Since(g.deadline))) }

// stop ends the guard and waits until nothing of it runs.
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
	g.end(context.Canceled)
}

// An upgradedConn is the connection to the function. ReverseProxy copies
// between it and the caller's with a goroutine for each direction: what Read
// returns is written to the caller, and then Read is called again; what was
// read from the caller goes to Write. So every byte of both is seen here.
type upgradedConn struct {
	io.ReadWriteCloser
	guard *guard
}

func (c *upgradedConn) Read(p []byte) (int, error) {
	c.guard.passed() // the caller has taken what was read before
	n, err := c.ReadWriteCloser.Read(p)
	if n > 0 {
		c.guard.passed()
	}
	return n, err
}

func (c *upgradedConn) Write(p []byte) (int, error) {
	c.guard.passed()
	n, err := c.ReadWriteCloser.Write(p)
	if n > 0 {
		c.guard.passed()
	}
	return n, err
}

// CloseWrite passes on that the caller will send no more.
func (c *upgradedConn) CloseWrite() error {
	half, ok := c.ReadWriteCloser.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	return half.CloseWrite()
}

// Close is called when the invocation's context ends. A copying goroutine may also
// be waiting for a caller that neither reads nor sends.
func (c *upgradedConn) Close() error {
	err := c.ReadWriteCloser.Close()
	control := http.NewResponseController(c.guard.w)
	past := time.Unix(1, 0)
	control.SetReadDeadline(past)
	control.SetWriteDeadline(past)
	return err
}

// settle closes the connection to the function for good: ReverseProxy does not if
// it rejects the switch of protocols. It returns the error to log; cause is that of
// the invocation's context.
func (c *upgradedConn) settle(cause error) error {
	c.ReadWriteCloser.Close()
	if errors.Is(cause, context.DeadlineExceeded) {
		return fmt.Errorf("upgraded connection: no byte passed for %v", c.guard.limit)
	}
	return cause
}
