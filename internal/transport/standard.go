package transport

// net/http's transport with the same API.

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"syscall"
)

// A Standard is net/http's Transport, except that it does not wait for a pausing
// request body once the server has gone.
type Standard struct{ *http.Transport }

// NewStandard returns net/http's Transport with those of limits that it knows:
// all but Unacked.
func NewStandard(dial DialFunc, limits Limits) Standard {
	return Standard{&http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return &standardConn{Conn: conn, ended: make(chan struct{})}, nil
		},
		DisableCompression:     true,
		MaxIdleConns:           limits.Idle,
		MaxIdleConnsPerHost:    limits.IdlePerAddr,
		IdleConnTimeout:        limits.IdleTimeout,
		MaxResponseHeaderBytes: int64(limits.Head),
	}}
}

// CloseIdle closes all idle connections, as net/http knows no others.
func (t Standard) CloseIdle(string) { t.CloseIdleConnections() }

// RoundTrip is http.Transport's, with a small body that can be had again read
// first, as Transport does. Its errors say no Stage but StageUnsent, if that
// failed.
func (t Standard) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body == nil || req.Body == http.NoBody {
		return t.Transport.RoundTrip(req)
	}
	if length, err := sentLength(req); err == nil && sentWhole(req, 0, length) {
		body, err := readWhole(nil, req.Body, int(length))
		if err != nil {
			return nil, &Error{Stage: StageUnsent, Err: err}
		}
		whole := *req
		whole.Body = io.NopCloser(bytes.NewReader(body))
		whole.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		return t.Transport.RoundTrip(&whole)
	}
	var used atomic.Pointer[standardConn]
	req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) { used.Store(info.Conn.(*standardConn)) },
	}))
	req.Body = &standardBody{ReadCloser: req.Body, used: &used}
	if getBody := req.GetBody; getBody != nil {
		req.GetBody = func() (io.ReadCloser, error) {
			body, err := getBody()
			return &standardBody{ReadCloser: body, used: &used}, err
		}
	}
	return t.Transport.RoundTrip(req)
}

// A standardConn tells when it has ended.
type standardConn struct {
	net.Conn
	written resetNote
	once    sync.Once
	ended   chan struct{}
}

func (c *standardConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == io.EOF && c.written.wasReset(c.Conn) {
		err = syscall.ECONNRESET
	}
	if err != nil {
		c.once.Do(func() { close(c.ended) })
	}
	return n, err
}

func (c *standardConn) Write(p []byte) (int, error) { return c.written.write(c.Conn, p) }

// CloseWrite is for connections that have switched protocols.
func (c *standardConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

var errConnEnded = errors.New("the connection has ended")

// A standardBody is a request's body whose Read returns when the connection that
// the body is sent on ends. The wrapped body has to handle a Read that is still in
// progress.
type standardBody struct {
	io.ReadCloser
	used *atomic.Pointer[standardConn]
	room []byte
}

func (b *standardBody) Read(p []byte) (int, error) {
	type result struct {
		n   int
		err error
	}
	if len(b.room) < len(p) {
		b.room = make([]byte, len(p))
	}
	room := b.room[:len(p)]
	done := make(chan result, 1)
	go func() {
		n, err := b.ReadCloser.Read(room)
		done <- result{n, err}
	}()
	select {
	case r := <-done:
		return copy(p, room[:r.n]), r.err
	case <-b.used.Load().ended:
		b.room = nil
		b.Close()
		return 0, errConnEnded
	}
}
