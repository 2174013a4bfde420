package main

// The caller's end of a connection: whether it is still there while its
// request is being answered.
//
// net/http looks for that with a goroutine for every request, which starts to
// read the connection at once and has to be called back before the answer is
// complete. Most answers are ready long before a caller can lose its patience.
// So that read is turned down, and the look is made up for when it is wanted.

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// A callerWatch is the state of one connection's look for the caller's end.
type callerWatch struct {
	raw syscall.RawConn // nil: net/http looks by itself

	mu     sync.Mutex
	put    bool          // net/http's look at the request in hand was turned down
	wanted bool          // and if it has not come yet, is let through
	done   chan struct{} // closed at the end of our own look; nil without one
}

type callerKey struct{}

// withCaller is the http.Server.ConnContext of a server whose handlers watch
// their callers: it makes conn known to callerOf, and keeps net/http from
// looking at once.
func withCaller(ctx context.Context, conn net.Conn) context.Context {
	c, ok := conn.(*strictConn)
	if !ok {
		return ctx
	}
	if sc, ok := c.Conn.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			c.caller.raw = raw
		}
	}
	return context.WithValue(ctx, callerKey{}, c)
}

// callerOf returns nil if the request did not come by a strictListener.
func callerOf(ctx context.Context) *strictConn {
	c, _ := ctx.Value(callerKey{}).(*strictConn)
	return c
}

// turnDown reports whether the Read of p is net/http's look for a caller that
// has gone and can be put off. No other read has room for one byte only while
// a request that was read to its end is in hand.
func (c *strictConn) turnDown(p []byte) bool {
	if len(p) != 1 || c.caller.raw == nil || c.scan.inHand == 0 || c.scan.state != wireStart {
		return false
	}
	c.caller.mu.Lock()
	defer c.caller.mu.Unlock()
	c.caller.put = !c.caller.wanted
	return c.caller.put
}

// watch looks whether the caller closes the connection, until unwatch is
// called or the caller sends something. It calls gone if it does so, unless
// net/http looks itself: then the request's context ends.
func (c *strictConn) watch(gone func()) (unwatch func()) {
	w := &c.caller
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.put {
		w.wanted = true
		return c.unwatch
	}
	w.put = false
	done := make(chan struct{})
	w.done = done
	go func() {
		defer close(done)
		if c.callerGone() {
			gone()
		}
	}()
	return c.unwatch
}

// unwatch ends a look of ours that is under way, and leaves the connection
// without a read deadline then.
func (c *strictConn) unwatch() {
	w := &c.caller
	w.mu.Lock()
	done := w.done
	w.put, w.wanted, w.done = false, false, nil
	w.mu.Unlock()
	if done != nil {
		c.Conn.SetReadDeadline(time.Unix(1, 0))
		<-done
		c.Conn.SetReadDeadline(time.Time{})
	}
}

// callerGone waits for the caller to close the connection or to send
// something, which is left where it is, and reports whether it has closed.
func (c *strictConn) callerGone() bool {
	gone := false
	var b [1]byte
	err := c.caller.raw.Read(func(fd uintptr) bool {
		for {
			n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK)
			switch err {
			case syscall.EINTR:
				continue
			case syscall.EAGAIN:
				return false
			}
			gone = err != nil || n == 0
			return true
		}
	})
	return gone || err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
}
