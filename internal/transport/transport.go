// Package transport has an http.RoundTripper for plain HTTP/1.1 that keeps to
// http.Transport's behaviour with less work per request, and says how far a
// request got that failed. The goroutine that calls RoundTrip does the writing
// and the reading; only a request body that is streamed gets a goroutine of its
// own.
//
// What it leaves out, because nothing between two programs on one network needs
// it: TLS, HTTP/2, proxies, cookies of connections (NTLM), automatic
// compression, Request.Cancel, and the hooks of httptrace other than
// Got1xxResponse. What it is stricter in: a response with Content-Length and
// Transfer-Encoding, folded header lines, a status below 100 or a version
// other than HTTP/1.0 and 1.1 is an error, and so is a request whose Host or
// target could not be sent as it is.
package transport

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A Stage says how far a request got before it failed.
type Stage int

const (
	StageDial   Stage = iota // no connection was made
	StageUnsent              // no byte of the request was written
	StageSent                // some were: the server may have acted on it
)

func (s Stage) String() string {
	switch s {
	case StageDial:
		return "dial"
	case StageUnsent:
		return "before sending"
	default:
		return "after sending"
	}
}

// An Error is what every failed round trip returns. When the request's
// context has ended, it wraps the context's error.
type Error struct {
	Stage Stage
	Err   error

	// Stale: the connection was kept from an earlier request, and ended without a
	// byte of the response. The server may have closed it before this one came.
	Stale bool
}

func (e *Error) Error() string { return e.Stage.String() + ": " + e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Errors that are not the server's fault: another server would not help.
var (
	// ErrInvalidRequest: the request cannot be written as HTTP/1.1.
	ErrInvalidRequest = errors.New("invalid request")

	// ErrRequestBody: reading the request's body failed, or it was shorter
	// than its Content-Length.
	ErrRequestBody = errors.New("request body")
)

var (
	errSilent      = fmt.Errorf("the peer acknowledges nothing: %w", syscall.ETIMEDOUT)
	errUnsolicited = errors.New("connection closed or answered before the request")
	errManyInterim = errors.New("too many interim responses")
	errEarlySwitch = errors.New("protocol switched before the end of the request")
)

const (
	maxInterim   = 64       // 1xx responses to one request
	readerSize   = 4 << 10  // of a connection in use; an idle one holds no buffer
	maxSentWhole = 16 << 10 // head and body that go out in one write
	uploadSize   = 32 << 10 // one read of a streamed request body

	// endTimeout is for the last write of a request's body that its response has
	// overtaken.
	endTimeout = time.Second
)

// A DialFunc makes a connection, as net.Dialer's DialContext does. network is
// "tcp", addr is host:port.
type DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error)

// Limits bounds what a Transport keeps and accepts.
type Limits struct {
	IdlePerAddr int           // idle connections to one address
	Idle        int           // idle connections in all
	IdleTimeout time.Duration // an idle connection is closed after half to all of it; 0: never
	Head        int           // bytes of one response's status line and headers, or trailers

	// Unacked is how long a server may leave what was sent to it, or
	// keep-alive probes, without an acknowledgement; 0: the system's limit.
	// It holds while no more than maxSentWhole has been sent, which a
	// server acknowledges even if it reads nothing.
	Unacked time.Duration

	// BackOff is the retransmission timeout from which on a connection is not kept
	// after a request without the limit above; 0: all are kept.
	BackOff time.Duration
}

// A Transport is safe for concurrent use. It starts no goroutine that outlives the
// requests; a timer closes idle connections.
type Transport struct {
	dial   DialFunc
	limits Limits

	pools   sync.Map  // address -> *connPool
	readers sync.Pool // *bufio.Reader
	buffers sync.Pool // *buffer, for heads
	uploads sync.Pool // *buffer, for streamed request bodies

	open atomic.Int64 // connections, idle ones included
	idle atomic.Int64

	sweeps  atomic.Uint32 // counts the rounds of the sweep, a clock for idle connections
	sweepMu sync.Mutex
	timer   *time.Timer // nil while there is no pool
}

// New returns a transport that connects with dial. Where dial
// returns a syscall.Conn, as those of package net are, the transport reads and
// writes its file descriptor, past the methods Read and Write.
func New(dial DialFunc, limits Limits) *Transport {
	t := &Transport{dial: dial, limits: limits}
	t.readers.New = func() any { return bufio.NewReaderSize(nil, readerSize) }
	t.buffers.New = func() any { return &buffer{b: make([]byte, 0, readerSize)} }
	t.uploads.New = func() any { return &buffer{b: make([]byte, uploadRoom)} }
	return t
}

// A buffer holds a request's head and then the response's, or a piece of a
// request's body.
type buffer struct{ b []byte }

// RoundTrip sends req to the server at req.URL.Host and returns its response.
//
// Every error is an *Error, and then req.Body is closed. RoundTrip waits for a Read
// of it in progress until the context ends, so that nothing reads the body any
// more. It does not wait if the body can be obtained again (req.GetBody): a late
// Read of one copy must then not affect the next.
//
// A small body that can be obtained again is read before a connection is taken, in
// the caller's goroutine: its Read has to return when the context ends. Every other
// body is streamed after the head. A request with Expect: 100-continue is sent
// without waiting.
//
// RoundTrip does not retry, except that it skips idle connections that turn out to
// be closed before the first byte is written.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	x := &exchange{t: t, req: req, ctx: req.Context()}
	out := t.buffers.Get().(*buffer)
	defer t.putBuffer(out)

	stage, err := x.start(out)
	if err == nil {
		stage = StageSent
		err = x.readResponse(out)
	}
	if err == nil {
		err = x.deliver()
	}
	if err != nil {
		err = x.cause(err)
		x.abandon()
		return nil, &Error{Stage: stage, Err: err, Stale: x.stale && x.ctx.Err() == nil}
	}
	return &x.resp, nil
}

// CloseIdleConnections closes the connections that no request uses.
func (t *Transport) CloseIdleConnections() {
	t.pools.Range(func(_, p any) bool {
		closeAll(p.(*connPool).drain(false))
		return true
	})
}

// CloseIdle closes the idle connections to addr; those in use are closed when their
// requests are done. Later requests to addr use new connections.
func (t *Transport) CloseIdle(addr string) {
	if p, ok := t.pools.LoadAndDelete(addr); ok {
		closeAll(p.(*connPool).drain(true))
	}
}

func (t *Transport) putBuffer(b *buffer) {
	if cap(b.b) <= 2*maxSentWhole {
		t.buffers.Put(b)
	}
}

// An exchange is one request and its response on one connection.
type exchange struct {
	t    *Transport
	req  *http.Request
	ctx  context.Context
	conn *directConn
	br   *bufio.Reader
	stop func() bool // stops watching ctx; false: too late, conn is being closed

	stale    bool    // as in Error
	bodyRead bool    // the request's body has been read and closed
	upload   *upload // nil unless the request's body is streamed

	resp   http.Response
	body   responseBody
	values [8]string // room for the values of a usual response's headers
}

// start gets a connection for the request. If all of the request is in out, the
// first read sends it; otherwise it is being sent when start returns.
func (x *exchange) start(out *buffer) (Stage, error) {
	if err := x.ctx.Err(); err != nil {
		return StageDial, err
	}
	addr, err := dialAddr(x.req.URL)
	if err != nil {
		return StageUnsent, err
	}
	length, err := sentLength(x.req)
	if err != nil {
		return StageUnsent, err
	}
	head, err := appendHead(out.b[:0], x.req, length)
	if err != nil {
		return StageUnsent, err
	}
	if sentWhole(x.req, len(head), length) {
		x.bodyRead = true
		if head, err = readWhole(head, x.req.Body, int(length)); err != nil {
			return StageUnsent, err
		}
	} else if length != 0 {
		x.upload = &upload{t: x.t, req: x.req, length: length}
	}
	out.b = head
	for {
		if x.conn, err = x.t.getConn(x.ctx, addr); err != nil {
			return StageDial, err
		}
		if err = x.send(head); err == nil {
			return StageSent, nil
		}
		switch {
		case x.conn.sent > 0:
			x.stale = x.conn.reused
			return StageSent, endOfResponse(err)
		case !x.conn.reused || x.ctx.Err() != nil:
			return StageUnsent, err
		}
		x.stopWatch()
		x.conn.close()
	}
}

// send writes the request to x.conn and waits for the answer to begin. A body
// that is not in out is being sent when send returns, without that wait.
func (x *exchange) send(out []byte) error {
	x.conn.begin(out, x.upload)
	if x.ctx.Done() != nil {
		x.stop = context.AfterFunc(x.ctx, x.conn.abort)
	}
	if x.br == nil {
		x.br = x.t.readers.Get().(*bufio.Reader)
	}
	x.br.Reset(x.conn)
	if x.upload == nil {
		if len(out) > maxSentWhole {
			x.conn.limitUnacked(0)
		}
		_, err := x.br.Peek(1)
		return err
	}
	x.conn.limitUnacked(0) // the server may be slow to read so much
	if err := x.conn.flush(); err != nil {
		return err
	}
	x.upload.start(x.conn)
	return nil
}

// stopWatch ends the watch on the context. It returns false if the context
// has ended, so that the connection is closed or about to be.
func (x *exchange) stopWatch() bool {
	return x.stop == nil || x.stop()
}

// readResponse reads responses up to the final one.
func (x *exchange) readResponse(buf *buffer) error {
	for range maxInterim + 1 {
		head, err := readHead(x.br, buf.b[:0], x.t.limits.Head, true)
		buf.b = head
		if err != nil {
			return endOfResponse(err)
		}
		if err := parseResponse(&x.resp, string(head), x.values[:]); err != nil {
			return err
		}
		if x.resp.StatusCode >= 200 || x.resp.StatusCode == http.StatusSwitchingProtocols {
			return nil
		}
		trace := httptrace.ContextClientTrace(x.ctx)
		if trace != nil && trace.Got1xxResponse != nil {
			if err := trace.Got1xxResponse(x.resp.StatusCode, textproto.MIMEHeader(x.resp.Header)); err != nil {
				return err
			}
		}
	}
	return errManyInterim
}

// deliver makes x.resp what the caller of RoundTrip gets: its body reads from
// the connection, or the connection is free again if there is none.
func (x *exchange) deliver() error {
	x.resp.Request = x.req
	if isSwitch(&x.resp) {
		if x.upload != nil && !x.upload.isDone() {
			return errEarlySwitch
		}
		if !x.stopWatch() {
			return x.ctx.Err()
		}
		x.conn.limitUnacked(0)
		x.resp.Body = &switchedConn{br: x.br, conn: x.conn}
		return nil
	}
	if err := x.body.init(x); err != nil {
		return err
	}
	if x.resp.Body == http.NoBody {
		x.finish(!x.resp.Close)
	}
	return nil
}

// finish ends an exchange whose response has been read to its end, and keeps
// the connection if another request can follow on it.
func (x *exchange) finish(keep bool) {
	keep = keep && x.br.Buffered() == 0 && !x.req.Close && x.resp.StatusCode >= 200
	keep = x.stopWatch() && keep
	x.br.Reset(nil)
	x.t.readers.Put(x.br)
	x.br = nil
	switch {
	case !keep:
		x.conn.close()
	case x.upload == nil:
		x.t.putConn(x.conn)
	default:
		x.upload.answered()
	}
}

// abandon ends an exchange that failed, and makes sure that the request's
// body is closed and, as RoundTrip says, no longer read.
func (x *exchange) abandon() {
	x.stopWatch()
	if x.conn != nil {
		x.conn.close()
	}
	switch {
	case x.upload != nil:
		x.upload.cancel(x.ctx)
	case !x.bodyRead && x.req.Body != nil:
		x.req.Body.Close()
	}
}

// cause returns the cause of err: the end of the context and a failure of the
// request's body look like a closed connection.
func (x *exchange) cause(err error) error {
	if ctxErr := x.ctx.Err(); ctxErr != nil {
		return ctxErr
	}
	if x.upload != nil {
		if bodyErr := x.upload.bodyErr.Load(); bodyErr != nil {
			return *bodyErr
		}
		if x.upload.silent.Load() {
			return errSilent
		}
	}
	// A dialer that knows the deadline may be a moment ahead of the context.
	if deadline, ok := x.ctx.Deadline(); ok && isTimeout(err) && !time.Now().Before(deadline) {
		return fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
	}
	return err
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}
