package main

// The wire: a listener that reads along with net/http and refuses what RFC 9112
// lets two parsers understand in two ways. net/http accepts a bare LF, joins
// folded lines, takes Content-Length twice if it is the same, and drops it
// beside Transfer-Encoding; whatever stands before or behind the gateway may
// decide otherwise, and that is how a request is smuggled.

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// A violation is the rule that a client broke. It is what the client is told
// and the label of the metric, so the constants are all there are.
type violation string

const (
	violationRequestLine    violation = "malformed request line"
	violationPreface        violation = "malformed HTTP/2 preface"
	violationBareCR         violation = "CR without LF"
	violationBareLF         violation = "LF without CR"
	violationFold           violation = "folded header line"
	violationLeadingSpace   violation = "white space before the first header"
	violationColonSpace     violation = "white space before a colon"
	violationName           violation = "invalid header name"
	violationValue          violation = "control byte in a header value"
	violationLength         violation = "invalid Content-Length"
	violationTwoLengths     violation = "more than one Content-Length"
	violationLengthCoding   violation = "Content-Length with Transfer-Encoding"
	violationCoding         violation = "Transfer-Encoding other than chunked"
	violationCodingHTTP10   violation = "Transfer-Encoding in HTTP/1.0"
	violationConnectBody    violation = "CONNECT with a body"
	violationChunkSize      violation = "invalid chunk size"
	violationChunkExtension violation = "invalid chunk extension"
	violationChunkEnd       violation = "chunk data without CRLF at its end"
	violationTrailer        violation = "forbidden trailer"
)

// After a refusal the client's input is read and thrown away for so long and
// up to so much, because closing a socket with unread input resets it, and a
// reset may overtake the answer.
const (
	refusalLinger      = 500 * time.Millisecond
	refusalLingerBytes = 256 << 10
)

// errRefused is what net/http gets in place of the bytes that broke a rule.
var errRefused = errors.New("request refused")

// A strictListener checks every HTTP/1 request on the connections that it
// accepts. The server has to set connState as its ConnState, or call it from
// there, and must serve unencrypted HTTP/2: after its preface a connection
// passes unchecked.
type strictListener struct {
	net.Listener
	refused func(reason string)
}

// newStrictListener wraps ln, whose connections are in the clear. refused is
// called once for each refused connection with one of the violations, from
// many goroutines at a time.
func newStrictListener(ln net.Listener, refused func(reason string)) *strictListener {
	return &strictListener{Listener: ln, refused: refused}
}

func (l *strictListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &strictConn{Conn: conn, refused: l.refused}, nil
}

// connState tells a connection of this listener where the server is: an answer
// to a refused request has to wait for its turn, and a hijacked connection
// speaks HTTP no more. A handler must hijack before it answers 101, as
// ReverseProxy does.
func (l *strictListener) connState(conn net.Conn, state http.ConnState) {
	c, ok := conn.(*strictConn)
	// HTTP/2 calls from another goroutine than the reading one, but not
	// before the connection has become raw.
	if !ok || c.scan.state == wireRaw {
		return
	}
	switch state {
	case http.StateIdle:
		c.unwatch()
		c.scan.inHand--
		c.answer.CompareAndSwap(answerServer, answerNone)
	case http.StateHijacked:
		c.unwatch()
		c.scan.state = wireRaw
	}
}

// Who answers the request in hand: whoever writes first.
const (
	answerNone = iota
	answerServer
	answerRefusal
)

// A strictConn hands on what it reads as it comes and keeps none of it: a part
// of a head does no harm, for net/http acts on a whole one only. Except for
// answer its state is touched by Read and connState alone, which net/http
// never runs at the same time.
type strictConn struct {
	net.Conn
	refused func(reason string)
	scan    wireScanner
	broken  violation
	answer  atomic.Int32
	caller  callerWatch
}

func (c *strictConn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return c.Conn.Read(p)
	}
	for {
		if c.broken != "" {
			return 0, c.refuse()
		}
		if c.scan.state == wireRaw {
			return c.Conn.Read(p)
		}
		if c.turnDown(p) {
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

// refuse answers 400 when it is the turn of the request that broke a rule. As
// long as an earlier one is still being answered it returns nil: then only
// net/http's look for a client that has gone is reading, and it makes do with
// no byte and no error. If a response has begun, the failing body ends it.
func (c *strictConn) refuse() error {
	if c.scan.state != wireRaw && c.scan.waits() {
		return nil
	}
	if c.scan.state != wireRaw && c.answer.CompareAndSwap(answerNone, answerRefusal) {
		c.sendRefusal()
	}
	// net/http adds no answer of its own to a failed read.
	return &net.OpError{Op: "read", Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(),
		Err: fmt.Errorf("%w: %s", errRefused, c.broken)}
}

func (c *strictConn) sendRefusal() {
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

func (c *strictConn) Write(p []byte) (int, error) {
	if c.answer.Load() == answerNone && string(p) != interimResponse {
		c.answer.CompareAndSwap(answerNone, answerServer)
	}
	if c.answer.Load() == answerRefusal {
		return 0, net.ErrClosed
	}
	return c.Conn.Write(p)
}

// CloseWrite lets net/http half-close the connection as it would do without
// this wrapper.
func (c *strictConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
