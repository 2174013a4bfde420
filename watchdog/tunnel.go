package watchdog

// What follows a switch of protocols in mode http, as for WebSocket: bytes in
// both directions, as long as some pass.

import (
	"bufio"
	"net"
	"net/http"
	"sync"
	"time"
)

// A tunnel is the client's connection after a switch of protocols. The limit of
// the invocation counts from the last byte in either direction; once the
// function drains it is not renewed.
type tunnel struct {
	net.Conn
	x     *exchange
	early *bufio.Reader // what came right behind the request is still in it
	idle  *time.Timer   // ends the tunnel; nil without a limit

	mu      sync.Mutex
	stopped bool // idle is not to be started any more
}

// Hijack is called by the proxy when the process has agreed to the switch.
func (x *exchange) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buf, err := x.control.Hijack()
	if err != nil {
		return nil, nil, err
	}
	x.upgraded = true
	x.tunnel = &tunnel{Conn: conn, x: x, early: buf.Reader}
	if x.limit > 0 {
		x.timer.Stop()
		x.tunnel.mu.Lock()
		x.tunnel.idle = time.AfterFunc(x.limit, x.tunnel.expire)
		x.tunnel.mu.Unlock()
	}
	return x.tunnel, buf, nil
}

func (t *tunnel) Read(b []byte) (n int, err error) {
	if t.early.Buffered() > 0 {
		n, err = t.early.Read(b)
	} else {
		n, err = t.Conn.Read(b)
	}
	if n > 0 {
		t.renew()
	}
	return n, err
}

// Write is called with what has come from the process. A client that takes
// nothing of it for write_timeout is cut off, whatever it sends.
func (t *tunnel) Write(b []byte) (int, error) {
	t.renew()
	if timeout := t.x.h.cfg.WriteTimeout; timeout > 0 {
		t.Conn.SetWriteDeadline(time.Now().Add(timeout))
	}
	return t.Conn.Write(b)
}

// CloseWrite passes on that the process sends no more.
func (t *tunnel) CloseWrite() error {
	if half, ok := t.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return http.ErrNotSupported
}

// renew starts the limit anew. One direction may still be copied when the other
// has ended the tunnel.
func (t *tunnel) renew() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.idle != nil && !t.stopped && !t.x.h.draining.Load() {
		t.idle.Reset(t.x.limit)
	}
}

func (t *tunnel) expire() {
	if t.stop() {
		return
	}
	t.x.h.log.Warn("upgraded connection ended", "call_id", t.x.callID, "limit", t.x.limit, "draining", t.x.h.draining.Load())
	t.x.end(errLimit)
	t.Conn.Close()
}

// stop is called when nothing passes any more. It reports whether the tunnel has
// been stopped before.
func (t *tunnel) stop() (before bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before, t.stopped = t.stopped, true
	if t.idle != nil {
		t.idle.Stop()
	}
	return before
}
