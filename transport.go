package main

// The transport to replicas: an http.RoundTripper for plain HTTP/1.1 that
// keeps to http.Transport's behaviour with less work per request. The
// goroutine that calls RoundTrip does the writing and the reading; only a
// request body that is streamed gets a goroutine of its own.
//
// What it leaves out, because nothing between the gateway and its replicas
// needs it: TLS, HTTP/2, proxies, cookies of connections (NTLM), automatic
// compression, Request.Cancel, and the hooks of httptrace other than
// Got1xxResponse. What it is stricter in: a response with Content-Length and
// Transfer-Encoding, folded header lines, a status below 100 or a version
// other than HTTP/1.0 and 1.1 is an error, and so is a request whose Host or
// target could not be sent as it is.

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

// An attemptStage says how far a request to one replica got before it failed.
type attemptStage int

const (
	stageDial   attemptStage = iota // no connection was made
	stageUnsent                     // no byte of the request was written
	stageSent                       // some were: the replica may have acted on it
)

func (s attemptStage) String() string {
	switch s {
	case stageDial:
		return "dial"
	case stageUnsent:
		return "before sending"
	default:
		return "after sending"
	}
}

// An attemptError is what every failed round trip returns. When the request's
// context has ended, it wraps the context's error.
type attemptError struct {
	stage attemptStage
	err   error
}

func (e *attemptError) Error() string { return e.stage.String() + ": " + e.err.Error() }
func (e *attemptError) Unwrap() error { return e.err }

// Failures that say nothing about the replica: another one would not help.
var (
	// errInvalidRequest: the request cannot be written as HTTP/1.1.
	errInvalidRequest = errors.New("invalid request")

	// errRequestBody: reading the request's body failed, or it was shorter
	// than its Content-Length.
	errRequestBody = errors.New("request body")
)

var (
	errSilent      = fmt.Errorf("the replica acknowledges nothing: %w", syscall.ETIMEDOUT)
	errUnsolicited = errors.New("connection closed or answered before the request")
	errManyInterim = errors.New("too many interim responses")
	errEarlySwitch = errors.New("protocol switched before the end of the request")
)

const (
	maxInterim   = 64       // 1xx responses to one request
	readerSize   = 4 << 10  // of a connection in use; an idle one holds no buffer
	maxSentWhole = 16 << 10 // head and body that go out in one write
	uploadSize   = 32 << 10 // one read of a streamed request body
)

// transportLimits bounds what a directTransport keeps and accepts.
type transportLimits struct {
	idlePerAddr int           // idle connections to one address
	idle        int           // idle connections in all
	idleTimeout time.Duration // an idle connection is closed after half to all of it; 0: never
	head        int           // bytes of one response's status line and headers, or trailers

	// unacked is how long a replica may leave what was sent to it, or
	// keep-alive probes, without an acknowledgement; 0: the system's limit.
	// It holds while no more than maxSentWhole has been sent, which a
	// replica acknowledges even if it reads nothing.
	unacked time.Duration
}

// A directTransport is safe for concurrent use. It starts no goroutine that
// outlives the requests; a timer closes what has idled too long.
type directTransport struct {
	dial   func(ctx context.Context, network, addr string) (net.Conn, error)
	limits transportLimits

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

// newDirectTransport returns a transport that connects with dial. Where dial
// returns a syscall.Conn, as those of package net are, the transport reads and
// writes its file descriptor, past the methods Read and Write.
func newDirectTransport(dial func(ctx context.Context, network, addr string) (net.Conn, error), limits transportLimits) *directTransport {
	t := &directTransport{dial: dial, limits: limits}
	t.readers.New = func() any { return bufio.NewReaderSize(nil, readerSize) }
	t.buffers.New = func() any { return &buffer{b: make([]byte, 0, readerSize)} }
	t.uploads.New = func() any { return &buffer{b: make([]byte, uploadRoom)} }
	return t
}

// A buffer holds a request's head and then the response's, or a piece of a
// request's body.
type buffer struct{ b []byte }

// RoundTrip sends req to the replica at req.URL.Host and returns its answer.
//
// It fails with an *attemptError, and then nothing reads req.Body any more,
// unless the context has ended while a Read of the body hangs. The body is
// always closed, if need be after RoundTrip has returned.
//
// A body that can be had again (req.GetBody) and is small is read before a
// connection is taken, in the goroutine of the caller: such a body's Read has
// to return when the context ends. Every other body is streamed, the head
// ahead of it. A request with Expect: 100-continue is sent without waiting.
//
// No failed attempt is repeated here, except that kept-alive connections that
// turn out to be closed before the first byte is written are passed over.
func (t *directTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	x := &exchange{t: t, req: req, ctx: req.Context()}
	out := t.buffers.Get().(*buffer)
	defer t.putBuffer(out)

	stage, err := x.start(out)
	if err == nil {
		stage = stageSent
		err = x.readResponse(out)
	}
	if err == nil {
		err = x.deliver()
	}
	if err != nil {
		err = x.cause(err)
		x.abandon()
		return nil, &attemptError{stage, err}
	}
	return &x.resp, nil
}

// CloseIdleConnections closes the connections that no request uses.
func (t *directTransport) CloseIdleConnections() {
	t.pools.Range(func(_, p any) bool {
		closeAll(p.(*connPool).drain(false))
		return true
	})
}

// closeIdle closes the idle connections to addr, and makes those in use be
// closed when their requests are done. Later requests to addr start afresh.
func (t *directTransport) closeIdle(addr string) {
	if p, ok := t.pools.LoadAndDelete(addr); ok {
		closeAll(p.(*connPool).drain(true))
	}
}

// stats returns the number of connections, and how many of them are idle.
func (t *directTransport) stats() (open, idle int) {
	return int(t.open.Load()), int(t.idle.Load())
}

func (t *directTransport) putBuffer(b *buffer) {
	if cap(b.b) <= 2*maxSentWhole {
		t.buffers.Put(b)
	}
}

// An endNotifier may be a context's value under endNotifierKey. It does what
// context.AfterFunc does with less work, but for one function at a
// time, and only for the end of the context that has the value: none that is
// derived from it with an end of its own may reach the transport.
type endNotifier interface {
	onEnd(f func()) // call f in its own goroutine once the context has ended
	offEnd() bool   // forget f; false: it has been called
}

type endNotifierKey struct{}

// An exchange is one request and its response on one connection.
type exchange struct {
	t    *directTransport
	req  *http.Request
	ctx  context.Context
	conn *directConn
	br   *bufio.Reader
	stop func() bool // ends the watch on ctx; false: too late, conn is being closed
	ends endNotifier // does so, in place of stop, where the context has one

	bodyRead bool    // the request's body has been read and closed
	upload   *upload // nil unless the request's body is streamed

	resp   http.Response
	body   responseBody
	values [8]string // room for the values of a usual response's headers
}

// start gets a connection and hands it the request, which the first read will
// send if all of it is in out, and which is being sent otherwise.
func (x *exchange) start(out *buffer) (attemptStage, error) {
	if err := x.ctx.Err(); err != nil {
		return stageDial, err
	}
	addr, err := dialAddr(x.req.URL)
	if err != nil {
		return stageUnsent, err
	}
	length, err := sentLength(x.req)
	if err != nil {
		return stageUnsent, err
	}
	head, err := appendHead(out.b[:0], x.req, length)
	if err != nil {
		return stageUnsent, err
	}
	if sentWhole(x.req, len(head), length) {
		x.bodyRead = true
		if head, err = readWhole(head, x.req.Body, int(length)); err != nil {
			return stageUnsent, err
		}
	} else if length != 0 {
		x.upload = &upload{t: x.t, req: x.req, length: length}
	}
	out.b = head
	for {
		if x.conn, err = x.t.getConn(x.ctx, addr); err != nil {
			return stageDial, err
		}
		if err = x.send(head); err == nil {
			return stageSent, nil
		}
		switch {
		case x.conn.sent > 0:
			return stageSent, endOfResponse(err)
		case !x.conn.reused || x.ctx.Err() != nil:
			return stageUnsent, err
		}
		x.stopWatch()
		x.conn.close()
	}
}

// send writes the request to x.conn and waits for the answer to begin. A body
// that is not in out is being sent when send returns, without that wait.
func (x *exchange) send(out []byte) error {
	x.conn.begin(out, x.upload)
	if ends, ok := x.ctx.Value(endNotifierKey{}).(endNotifier); ok {
		x.ends = ends
		ends.onEnd(x.conn.abort)
	} else if x.ctx.Done() != nil {
		x.stop = context.AfterFunc(x.ctx, x.conn.abort)
	}
	if x.br == nil {
		x.br = x.t.readers.Get().(*bufio.Reader)
	}
	x.br.Reset(x.conn)
	if x.upload == nil {
		_, err := x.br.Peek(1)
		return err
	}
	x.conn.limitUnacked(0) // the replica may take its time to read so much
	if err := x.conn.flush(); err != nil {
		return err
	}
	x.upload.start(x.conn)
	return nil
}

// stopWatch ends the watch on the context. It returns false if the context
// has ended, so that the connection is closed or about to be.
func (x *exchange) stopWatch() bool {
	if x.ends != nil {
		return x.ends.offEnd()
	}
	return x.stop == nil || x.stop()
}

// readResponse reads responses up to the final one.
func (x *exchange) readResponse(buf *buffer) error {
	for range maxInterim + 1 {
		head, err := readHead(x.br, buf.b[:0], x.t.limits.head, true)
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
		if x.upload != nil && x.upload.state.Load() != uploadDone {
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
// body is closed and no longer read. It gives up waiting for a Read of the
// body when the context ends.
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

// cause returns what is behind err: the end of the context or a failure of
// the request's body show up as a connection that was closed.
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
