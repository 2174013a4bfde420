package transport

// Connections and the pools that keep idle ones.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A directConn belongs to one exchange, or to a pool while it is idle. Only
// close and abort may be called from elsewhere.
type directConn struct {
	net.Conn
	t      *Transport
	pool   *connPool
	raw    syscall.RawConn // nil if the connection is not a socket
	closed atomic.Bool

	unacked time.Duration // as limitUnacked has set it
	written resetNote     // of an upload

	reused bool
	sent   int     // bytes of the request's head, and of a body sent with it
	upload *upload // of the exchange, if its request's body is streamed
	idleAt uint32  // round of the sweep in which the connection became idle

	// What the next step sends and reads, and how it went. The two funcs
	// are made once, so that a request does not allocate them.
	out     []byte
	in      []byte
	n       int
	err     error
	stepper func(fd uintptr) bool
	abort   func() // ends an exchange whose context is done
}

func newDirectConn(conn net.Conn, t *Transport, pool *connPool) *directConn {
	c := &directConn{Conn: conn, t: t, pool: pool}
	if sc, ok := conn.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			c.raw = raw
		}
	}
	c.stepper = c.step
	c.abort = func() {
		c.close()
		if c.upload != nil {
			c.upload.closeBody()
		}
	}
	t.open.Add(1)
	c.limitUnacked(t.limits.Unacked)
	return c
}

// limitUnacked calls the function of that name unless the limit is d already.
// Without the limit a silent peer is only found later, so a failure to set it is
// ignored.
func (c *directConn) limitUnacked(d time.Duration) {
	if c.raw != nil && c.unacked != d && limitUnacked(c.raw, d) == nil {
		c.unacked = d
	}
}

// begin starts an exchange: the next read or flush sends out first.
func (c *directConn) begin(out []byte, u *upload) {
	c.out, c.sent, c.upload = out, 0, u
}

// Read sends what is still to be sent and then reads.
func (c *directConn) Read(p []byte) (int, error) {
	if len(c.out) == 0 {
		return c.Conn.Read(p)
	}
	if c.raw != nil {
		n, err := c.do(p)
		if n > 0 || err != nil || len(c.out) == 0 {
			return n, err
		}
	}
	if err := c.writeOut(); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

// flush sends what is still to be sent.
func (c *directConn) flush() error {
	if c.raw != nil {
		if _, err := c.do(nil); err != nil || len(c.out) == 0 {
			return err
		}
	}
	return c.writeOut()
}

// writeOut writes what is left of the head, waiting for the peer to take it.
func (c *directConn) writeOut() error {
	n, err := c.Conn.Write(c.out)
	c.sent += n
	c.out = c.out[n:]
	return err
}

func (c *directConn) do(p []byte) (int, error) {
	c.in, c.n, c.err = p, 0, nil
	err := c.raw.Read(c.stepper)
	c.in = nil
	if err == nil {
		err = c.err
	}
	return c.n, err
}

// step does one exchange inside a single RawConn.Read: check that an idle
// connection is still alive, write the request, wait, read the response. It reports
// whether that is done; false waits until there is something to read.
//
// A separate write and read cost one more system call and several more locks, since
// the read would first fail with EAGAIN. No data is missed: the poller's state is
// reset before the first call, thus before the write, and the check before the
// write found nothing.
func (c *directConn) step(fd uintptr) bool {
	if len(c.out) > 0 {
		if c.reused && c.sent == 0 && !c.quiet(fd) {
			c.err = errUnsolicited
			return true
		}
		n, err := ignoreEINTR(syscall.Write, fd, c.out)
		if n > 0 {
			c.sent += n
			c.out = c.out[n:]
		}
		switch {
		case err == syscall.EAGAIN:
			return true // the rest by writeOut, which can wait
		case err != nil:
			c.err = os.NewSyscallError("write", err)
			return true
		}
		return len(c.out) > 0 || len(c.in) == 0
	}
	n, err := ignoreEINTR(syscall.Read, fd, c.in)
	switch {
	case err == syscall.EAGAIN:
		return false
	case err != nil:
		c.err = os.NewSyscallError("read", err)
	case n == 0:
		c.err = io.EOF
	default:
		c.n = n
	}
	return true
}

// quiet reports whether nothing has come in, not even an end.
func (c *directConn) quiet(fd uintptr) bool {
	var b [1]byte
	_, err := ignoreEINTR(syscall.Read, fd, b[:])
	return err == syscall.EAGAIN
}

func ignoreEINTR(call func(fd int, p []byte) (int, error), fd uintptr, p []byte) (int, error) {
	for {
		n, err := call(int(fd), p)
		if err != syscall.EINTR {
			return n, err
		}
	}
}

func (c *directConn) close() {
	if c.closed.CompareAndSwap(false, true) {
		c.t.open.Add(-1)
		c.Conn.Close()
	}
}

func closeAll(conns []*directConn) {
	for _, c := range conns {
		c.close()
	}
}

// A connPool keeps the idle connections to one address, the most recently used
// last.
type connPool struct {
	t *Transport

	mu     sync.Mutex
	conns  []*directConn
	used   uint32 // round of the sweep in which the pool was last used
	closed bool   // no longer in the transport: keep nothing
}

// getConn returns the connection to addr that was used last, or a new one.
func (t *Transport) getConn(ctx context.Context, addr string) (*directConn, error) {
	p := t.pool(addr)
	if c := p.take(); c != nil {
		return c, nil
	}
	conn, err := t.dial(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return newDirectConn(conn, t, p), nil
}

// putConn keeps c for another request, or closes it if there is no room. A
// connection on which the system has backed off is not kept: that happens after
// large uploads.
func (t *Transport) putConn(c *directConn) {
	c.out, c.upload = nil, nil
	if limit := t.limits.BackOff; limit > 0 && c.raw != nil && c.unacked != t.limits.Unacked && waitsLong(c.raw, limit) {
		c.close()
		return
	}
	c.limitUnacked(t.limits.Unacked)
	if t.idle.Add(1) > int64(t.limits.Idle) || !c.pool.put(c) {
		t.idle.Add(-1)
		c.close()
	}
}

func (t *Transport) pool(addr string) *connPool {
	if p, ok := t.pools.Load(addr); ok {
		return p.(*connPool)
	}
	p, loaded := t.pools.LoadOrStore(addr, &connPool{t: t, used: t.sweeps.Load()})
	if !loaded {
		t.sweepMu.Lock()
		defer t.sweepMu.Unlock()
		if t.timer == nil && t.limits.IdleTimeout > 0 {
			t.timer = time.AfterFunc(t.limits.IdleTimeout/2, t.sweep)
		}
	}
	return p.(*connPool)
}

// sweep closes the connections that have been idle for two rounds and forgets
// pools that have been empty for as long. It goes on while there are pools.
func (t *Transport) sweep() {
	now := t.sweeps.Add(1)
	t.pools.Range(func(addr, value any) bool {
		p := value.(*connPool)
		expired, unused := p.expire(now)
		closeAll(expired)
		if unused {
			t.pools.CompareAndDelete(addr, p)
		}
		return true
	})
	t.sweepMu.Lock()
	defer t.sweepMu.Unlock()
	empty := true
	t.pools.Range(func(_, _ any) bool { empty = false; return false })
	if empty {
		t.timer = nil
	} else {
		t.timer.Reset(t.limits.IdleTimeout / 2)
	}
}

func (p *connPool) take() *directConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used = p.t.sweeps.Load()
	last := len(p.conns) - 1
	if last < 0 {
		return nil
	}
	c := p.conns[last]
	p.conns[last] = nil
	p.conns = p.conns[:last]
	p.t.idle.Add(-1)
	c.reused = true
	return c
}

// put reports whether it kept c.
func (p *connPool) put(c *directConn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.conns) >= p.t.limits.IdlePerAddr {
		return false
	}
	c.idleAt = p.t.sweeps.Load()
	p.used = c.idleAt
	p.conns = append(p.conns, c)
	return true
}

// drain removes all connections. A closed pool gets no new ones.
func (p *connPool) drain(closed bool) []*directConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	conns := p.conns
	p.conns = nil
	p.closed = p.closed || closed
	p.t.idle.Add(-int64(len(conns)))
	return conns
}

// expire removes connections that have been idle since before the last round, and
// closes the pool if it has not been used since then.
func (p *connPool) expire(now uint32) (expired []*directConn, unused bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for n < len(p.conns) && now-p.conns[n].idleAt >= 2 {
		n++
	}
	expired = slices.Clone(p.conns[:n])
	p.conns = slices.Delete(p.conns, 0, n)
	p.t.idle.Add(-int64(n))
	p.closed = len(p.conns) == 0 && now-p.used >= 2
	return expired, p.closed
}

// dialAddr returns the host and port of u, which must be a plain http URL.
func dialAddr(u *url.URL) (string, error) {
	switch {
	case u == nil:
		return "", fmt.Errorf("%w: no URL", ErrInvalidRequest)
	case u.Scheme != "http":
		return "", fmt.Errorf("%w: unsupported protocol scheme %q", ErrInvalidRequest, u.Scheme)
	case u.Hostname() == "":
		return "", fmt.Errorf("%w: no host in URL", ErrInvalidRequest)
	case u.Port() == "":
		return net.JoinHostPort(u.Hostname(), "80"), nil
	}
	return u.Host, nil
}

// endOfResponse distinguishes the end of the connection within a response, or
// instead of one, from the end of a body.
func endOfResponse(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// A resetNote remembers that a write failed because the connection was reset. The
// system reports a reset only once, so a later Read sees io.EOF, and a response
// without a length would seem complete. If the peer closed its side before, its
// response is complete, and a write fails with EPIPE.
type resetNote struct {
	mu    sync.Mutex // held for as long as a write takes
	reset bool
}

func (r *resetNote) write(conn net.Conn, p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, err := conn.Write(p)
	r.reset = r.reset || errors.Is(err, syscall.ECONNRESET)
	return n, err
}

// wasReset reports whether a Read that returned io.EOF should have returned
// ECONNRESET.
func (r *resetNote) wasReset(conn net.Conn) bool {
	if hasPeer(conn) {
		return false
	}
	r.mu.Lock() // no write takes long any more
	defer r.mu.Unlock()
	return r.reset
}

// hasPeer reports whether something can still be sent on the connection.
func hasPeer(conn net.Conn) bool {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return true
	}
	has := true
	raw.Control(func(fd uintptr) {
		_, err := syscall.Getpeername(int(fd))
		has = err != syscall.ENOTCONN
	})
	return has
}
