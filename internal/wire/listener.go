// Package wire has a listener that checks what net/http reads and rejects requests
// that two parsers may understand differently under RFC 9112. net/http accepts a
// bare LF, joins folded lines, accepts the same Content-Length twice, and drops it
// if there is a Transfer-Encoding. Proxies and servers around it may decide
// otherwise, which allows request smuggling.
//
// It also tells handlers that ask whether the caller has gone away.
package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// After an error response the client's input is read and discarded for this long
// and up to this size, because closing a socket with unread input resets it, and a
// reset may overtake the response.
const (
	refusalLinger      = 500 * time.Millisecond
	refusalLingerBytes = 256 << 10
)

// ErrRefused is what net/http reads in place of the bytes that broke a rule, so it
// is also the error of reading the body of such a request.
var ErrRefused = errors.New("request refused")

// A Listener checks every HTTP/1 request on the connections that it accepts.
// The http.Server on it has to set ConnState as its ConnState, or call it from
// there, and must serve unencrypted HTTP/2: after its preface a connection
// passes unchecked.
type Listener struct {
	net.Listener
	refused   func(reason string)
	lingering Lingering
}

// Listen wraps ln, whose connections are not encrypted. refused is called once per
// rejected connection with the rule that it broke, one of a closed set. Calls may
// be concurrent.
func Listen(ln net.Listener, refused func(reason string)) *Listener {
	return &Listener{Listener: ln, refused: refused}
}

// Accept returns the next connection.
func (l *Listener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &checkedConn{Conn: conn, refused: l.refused, lingering: &l.lingering}, nil
}

// EndLingering closes the connections whose callers have their answers and still
// send, see Lingering.End.
func (l *Listener) EndLingering(ctx context.Context) { l.lingering.End(ctx) }

// ConnState tells a connection of this listener the server's state: the response to
// a rejected request has to wait for its turn, and a hijacked connection no longer
// speaks HTTP. A handler must hijack before it answers 101, as ReverseProxy does.
func (l *Listener) ConnState(conn net.Conn, state http.ConnState) {
	c, ok := conn.(*checkedConn)
	// HTTP/2 calls from a goroutine other than the reading one, but not before the
	// connection has become raw.
	if !ok || c.scan.state == stateRaw {
		return
	}
	switch state {
	case http.StateIdle:
		c.unwatch()
		c.scan.inHand--
		c.answer.CompareAndSwap(answerServer, answerNone)
	case http.StateHijacked:
		c.unwatch()
		c.scan.state = stateRaw
	}
}

// Who answers the request in hand: whoever writes first.
const (
	answerNone = iota
	answerServer
	answerRefusal
)

// A checkedConn passes on what it reads and buffers nothing: part of a head does no
// harm, since net/http acts only on a complete one. Except for answer, only Read
// and connState touch its state, and net/http never runs these at the same time.
type checkedConn struct {
	net.Conn
	refused func(reason string)
	scan    scanner
	broken  violation
	answer  atomic.Int32
	caller  callerWatch
	lingers atomic.Bool // the last answer is complete, the body of its request is not

	lingering *Lingering // of the listener
}

func (c *checkedConn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return c.Conn.Read(p)
	}
	for {
		if c.broken != "" {
			return 0, c.refuse()
		}
		if c.scan.state == stateRaw {
			return c.Conn.Read(p)
		}
		if c.deferRead(p) {
			return 0, nil
		}
		held := copy(p, c.scan.heldBack())
		if held == len(p) {
			return 0, io.ErrShortBuffer
		}
		n, err := c.Conn.Read(p[held:])
		n, c.broken = c.scan.check(p[held : held+n])
		if c.broken != "" {
			c.refused(string(c.broken))
			if !c.scan.waits() {
				return 0, c.refuse()
			}
			return held + n, nil
		}
		n += held - len(c.scan.heldBack())
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// refuse answers 400 when it is the turn of the request that broke a rule. While an
// earlier one is still being answered it returns nil: then only net/http's check
// for a client that has gone is reading, and it accepts no byte and no error. If a
// response has begun, the failing body ends it.
func (c *checkedConn) refuse() error {
	if c.scan.state != stateRaw && c.scan.waits() {
		return nil
	}
	if c.scan.state != stateRaw && c.answer.CompareAndSwap(answerNone, answerRefusal) {
		c.sendRefusal()
	}
	// net/http adds no answer of its own to a failed read.
	return &net.OpError{Op: "read", Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(),
		Err: fmt.Errorf("%w: %s", ErrRefused, c.broken)}
}

func (c *checkedConn) sendRefusal() {
	now := time.Now()
	c.Conn.SetDeadline(now.Add(refusalLinger))
	body := "bad request: " + string(c.broken) + "\n"
	_, err := fmt.Fprintf(c.Conn, "HTTP/1.1 400 Bad Request\r\nDate: %s\r\nConnection: close\r\n"+
		"Content-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n\r\n%s",
		now.UTC().Format(http.TimeFormat), len(body), body)
	if err != nil {
		return
	}
	if c.CloseWrite() == nil {
		io.CopyN(io.Discard, c.Conn, refusalLingerBytes)
	}
}

// interimResponse is what net/http writes when a handler begins to read the
// body of a request with Expect: 100-continue. The answer can still be ours.
const interimResponse = "HTTP/1.1 100 Continue\r\n\r\n"

func (c *checkedConn) Write(p []byte) (int, error) {
	if c.answer.Load() == answerNone && string(p) != interimResponse {
		c.answer.CompareAndSwap(answerNone, answerServer)
	}
	if c.answer.Load() == answerRefusal {
		return 0, net.ErrClosed
	}
	return c.Conn.Write(p)
}

// NetConn returns the connection that was accepted.
func (c *checkedConn) NetConn() net.Conn { return c.Conn }

// Close first lets a caller that still sends read its response. If it lingers
// already, it closes at once.
func (c *checkedConn) Close() error {
	if c.lingers.Swap(false) && c.answer.Load() != answerRefusal { // which has lingered
		return c.lingering.Close(c.Conn)
	}
	return c.Conn.Close()
}

// CloseWrite lets net/http half-close the connection as it would do without
// this wrapper.
func (c *checkedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
