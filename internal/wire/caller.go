package wire

// Callers that go away while their request is being answered.
//
// net/http notices with a goroutine per request, which starts to read the
// connection at once and has to be stopped before the response is complete. Most
// responses are ready long before a caller gives up. So that read is deferred until
// WatchCaller asks for it.

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// A callerWatch watches one connection for a caller that goes away.
type callerWatch struct {
	raw syscall.RawConn // nil: net/http watches by itself

	mu       sync.Mutex
	deferred bool          // net/http's read during the request in hand was deferred
	wanted   bool          // if it has not come yet, it is let through
	done     chan struct{} // closed at the end of our own watch; nil without one
}

type connKey struct{}

// ConnContext is for the http.Server.ConnContext of a server whose handlers
// call WatchCaller. From then on net/http does not watch by itself.
func (l *Listener) ConnContext(ctx context.Context, conn net.Conn) context.Context {
	c, ok := conn.(*checkedConn)
	if !ok {
		return ctx
	}
	if sc, ok := c.Conn.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			c.caller.raw = raw
		}
	}
	return context.WithValue(ctx, connKey{}, c)
}

// WatchCaller watches whether the caller of the request whose context is ctx closes
// its connection, until stop is called or the caller sends something. If the caller
// closes it, gone is called, unless net/http itself watches: then ctx ends. Call
// stop before the handler returns. A request that did not come through a Listener
// is not watched.
func WatchCaller(ctx context.Context, gone func()) (stop func()) {
	c, ok := ctx.Value(connKey{}).(*checkedConn)
	if !ok {
		return func() {}
	}
	return c.watch(gone)
}

// deferRead reports whether the Read of p is net/http's watch for a caller that
// has gone and can be deferred. No other read has room for one byte only while
// a request that was read to its end is in hand.
func (c *checkedConn) deferRead(p []byte) bool {
	if len(p) != 1 || c.caller.raw == nil || c.scan.inHand == 0 || c.scan.state != stateStart {
		return false
	}
	c.caller.mu.Lock()
	defer c.caller.mu.Unlock()
	c.caller.deferred = !c.caller.wanted
	return c.caller.deferred
}

func (c *checkedConn) watch(gone func()) (stop func()) {
	w := &c.caller
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.deferred {
		w.wanted = true
		return c.unwatch
	}
	w.deferred = false
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

// unwatch ends our own watch, if there is one, and clears the read deadline.
func (c *checkedConn) unwatch() {
	w := &c.caller
	w.mu.Lock()
	done := w.done
	w.deferred, w.wanted, w.done = false, false, nil
	w.mu.Unlock()
	if done != nil {
		c.Conn.SetReadDeadline(time.Unix(1, 0))
		<-done
		c.Conn.SetReadDeadline(time.Time{})
	}
}

// callerGone waits for the caller to close the connection or to send something,
// which stays unread, and reports whether it has closed.
func (c *checkedConn) callerGone() bool {
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
