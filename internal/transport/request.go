package transport

// Requests as bytes: the head, and bodies that are streamed.

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"faas/internal/field"
)

// sentLength returns the length of the body that req is to be sent with: 0 for
// none, -1 if it is not known, so that the body is sent in chunks. It decides
// as net/http documents for Request.ContentLength: 0 with a body is unknown.
func sentLength(req *http.Request) (int64, error) {
	switch {
	case req.Body == nil && req.ContentLength != 0:
		return 0, fmt.Errorf("%w: Content-Length %d without a body", ErrInvalidRequest, req.ContentLength)
	case req.Body == nil || req.Body == http.NoBody:
		return 0, nil
	case req.ContentLength <= 0, slices.Equal(req.TransferEncoding, []string{"chunked"}):
		return -1, nil
	}
	return req.ContentLength, nil
}

// sentWhole reports whether the body of req is to be read at once and sent in
// one write with the head, see Transport.RoundTrip.
func sentWhole(req *http.Request, head int, length int64) bool {
	return length > 0 && int64(head)+length <= maxSentWhole && req.GetBody != nil
}

// readWhole appends a body of n bytes to buf, and closes it.
func readWhole(buf []byte, body io.ReadCloser, n int) ([]byte, error) {
	defer body.Close()
	head := len(buf)
	buf = slices.Grow(buf, n)[:head+n]
	if _, err := io.ReadFull(body, buf[head:]); err != nil {
		return buf[:head], requestBodyError(err)
	}
	return buf, nil
}

func requestBodyError(err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%w: %w", ErrRequestBody, err)
}

// appendHead appends the request line and the headers of req, whose body has
// the given length as of sentLength. Nothing that could be read as more than
// one line or field gets through.
func appendHead(buf []byte, req *http.Request, length int64) ([]byte, error) {
	method := req.Method
	if method == "" {
		method = http.MethodGet
	}
	target := req.URL.RequestURI()
	host := req.Host
	if host == "" {
		host = req.URL.Host
	}
	switch {
	case !field.IsToken(method):
		return buf, fmt.Errorf("%w: method %q", ErrInvalidRequest, method)
	case !field.IsTarget(target):
		return buf, fmt.Errorf("%w: target %q", ErrInvalidRequest, target)
	case !field.IsHost(host):
		return buf, fmt.Errorf("%w: host %q", ErrInvalidRequest, host)
	}
	buf = append(buf, method...)
	buf = append(buf, ' ')
	buf = append(buf, target...)
	buf = append(buf, " HTTP/1.1\r\nHost: "...)
	buf = append(buf, withoutZone(host)...)
	buf = append(buf, "\r\n"...)

	var err error
	switch {
	case length > 0:
		buf = appendLength(buf, length)
	case length < 0:
		buf = append(buf, "Transfer-Encoding: chunked\r\n"...)
		if buf, err = appendTrailerNames(buf, req.Trailer); err != nil {
			return buf, err
		}
	case method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch:
		buf = appendLength(buf, 0)
	}
	if req.Close && !hasToken(req.Header["Connection"], "close") {
		buf = append(buf, "Connection: close\r\n"...)
	}
	for name, values := range req.Header {
		if field.IsDerived(name) || (name == "User-Agent" && len(values) > 0 && values[0] == "") {
			continue
		}
		if buf, err = appendField(buf, name, values); err != nil {
			return buf, err
		}
	}
	return append(buf, "\r\n"...), nil
}

func appendLength(buf []byte, n int64) []byte {
	buf = append(buf, "Content-Length: "...)
	buf = strconv.AppendInt(buf, n, 10)
	return append(buf, "\r\n"...)
}

func appendField(buf []byte, name string, values []string) ([]byte, error) {
	if !field.IsToken(name) {
		return buf, fmt.Errorf("%w: header name %q", ErrInvalidRequest, name)
	}
	for _, v := range values {
		if !field.IsValue(v) {
			return buf, fmt.Errorf("%w: value of header %q", ErrInvalidRequest, name)
		}
		buf = append(buf, name...)
		buf = append(buf, ": "...)
		buf = append(buf, textproto.TrimString(v)...)
		buf = append(buf, "\r\n"...)
	}
	return buf, nil
}

func appendTrailerNames(buf []byte, trailer http.Header) ([]byte, error) {
	if len(trailer) == 0 {
		return buf, nil
	}
	names := make([]string, 0, len(trailer))
	for name := range trailer {
		if !field.IsToken(name) || field.IsDerived(name) {
			return buf, fmt.Errorf("%w: trailer %q", ErrInvalidRequest, name)
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return appendField(buf, "Trailer", []string{strings.Join(names, ",")})
}

// withoutZone removes the zone of an IPv6 address, which is only meaningful
// on this machine (RFC 6874, section 4).
func withoutZone(host string) string {
	end := strings.LastIndexByte(host, ']')
	if end < 0 || host[0] != '[' {
		return host
	}
	if zone := strings.LastIndexByte(host[:end], '%'); zone >= 0 {
		return host[:zone] + host[end:]
	}
	return host
}

// What has become of an upload.
const (
	uploadSending int32 = iota
	uploadEnding        // all of the body has been read, its end is being written
	uploadDone          // all of it has been written
	uploadFailed
	uploadAnswered // the answer was complete while it was ending
)

// uploadRoom holds a chunk's length in hexadecimal, its data, and the last
// chunk behind it.
const (
	chunkStart = 8
	uploadRoom = chunkStart + uploadSize + 64
)

// An upload streams a request's body to a connection in a goroutine of its
// own, since the answer may come before the end of the body.
type upload struct {
	t       *Transport
	req     *http.Request
	length  int64 // as of sentLength
	conn    *directConn
	state   atomic.Int32
	bodyErr atomic.Pointer[error] // set if the body's Read failed
	closed  atomic.Bool
	freed   atomic.Bool   // the exchange is over: the connection may be another's
	silent  atomic.Bool   // the connection was closed because the peer is silent
	done    chan struct{} // closed when nothing reads the body any more; nil before start
}

func (u *upload) start(c *directConn) {
	u.conn = c
	u.done = make(chan struct{})
	if limit := u.t.limits.Unacked; limit > 0 && c.raw != nil {
		time.AfterFunc(limit, u.look)
	}
	go u.run()
}

// look closes the connection if its peer is silent, and reschedules itself until
// the connection is closed or free. It replaces the limit of smaller requests,
// which would also cut off a peer that is slow to read.
func (u *upload) look() {
	switch {
	case u.freed.Load() || u.conn.closed.Load():
	case isSilent(u.conn.raw, u.t.limits.Unacked):
		u.silent.Store(true)
		u.conn.close()
	default:
		time.AfterFunc(u.t.limits.Unacked/4, u.look)
	}
}

func (u *upload) run() {
	defer close(u.done)
	err := u.send()
	u.closeBody()
	switch {
	case err == nil && u.state.CompareAndSwap(uploadEnding, uploadDone):
	case err == nil:
		u.t.putConn(u.conn)
	case u.state.Swap(uploadFailed) == uploadAnswered || u.bodyErr.Load() != nil:
		u.conn.close()
	}
	// After a failed write the connection stays open: a response that the peer sent
	// before it closed may still be read.
}

// send copies the body. A body longer than its Content-Length is cut off.
func (u *upload) send() error {
	buf := u.t.uploads.Get().(*buffer)
	defer u.t.uploads.Put(buf)
	for left, end := u.length, false; !end; {
		room := buf.b[chunkStart : chunkStart+uploadSize]
		if left > 0 {
			room = room[:min(left, uploadSize)]
		}
		n, err := u.req.Body.Read(room)
		out := room[:n]
		if left > 0 {
			left -= int64(n)
			end = left == 0
		} else {
			end = err == io.EOF
		}
		if err != nil && !end {
			return u.fail(requestBodyError(err))
		}
		if end {
			u.state.Store(uploadEnding)
		}
		if u.length < 0 {
			if out, err = u.chunk(buf.b, n, end); err != nil {
				return u.fail(err)
			}
		}
		if _, err := u.conn.written.write(u.conn.Conn, out); err != nil {
			return err
		}
	}
	return nil
}

// fail sets the error of the exchange.
func (u *upload) fail(err error) error {
	u.bodyErr.Store(&err)
	return err
}

// chunk frames the n bytes of data in buf, and appends the end of the body.
func (u *upload) chunk(buf []byte, n int, end bool) ([]byte, error) {
	start := chunkStart
	out := buf[:chunkStart+n]
	if n > 0 {
		var size [chunkStart]byte
		line := append(strconv.AppendInt(size[:0], int64(n), 16), "\r\n"...)
		start -= len(line)
		copy(buf[start:], line)
		out = append(out, "\r\n"...)
	}
	if !end {
		return out[start:], nil
	}
	out = append(out, "0\r\n"...)
	for name, values := range u.req.Trailer {
		if field.IsDerived(name) {
			continue
		}
		var err error
		if out, err = appendField(out, name, values); err != nil {
			return nil, err
		}
	}
	return append(out, "\r\n"...)[start:], nil
}

// answered is called when the response has been read to its end. The last of the
// two, the reader or the upload, puts the connection back. An upload that is still
// far from its end is aborted: the server did not want the rest.
func (u *upload) answered() {
	u.freed.Store(true)
	if u.state.CompareAndSwap(uploadEnding, uploadAnswered) {
		return
	}
	if u.state.Load() == uploadDone {
		u.t.putConn(u.conn)
	} else {
		u.conn.close()
	}
}

// isDone reports whether all of the body has been sent. The response may arrive
// before the write of the body's end has returned.
func (u *upload) isDone() bool {
	if u.state.Load() == uploadEnding {
		u.conn.SetWriteDeadline(time.Now().Add(endTimeout))
		<-u.done
		u.conn.SetWriteDeadline(time.Time{})
	}
	return u.state.Load() == uploadDone
}

// cancel closes the body and waits until nothing reads it any more, or until ctx is
// done. It does not wait for a body that can be obtained again.
func (u *upload) cancel(ctx context.Context) {
	u.closeBody()
	if u.done == nil || u.req.GetBody != nil {
		return
	}
	select {
	case <-u.done:
	case <-ctx.Done():
	}
}

func (u *upload) closeBody() {
	if u.closed.CompareAndSwap(false, true) {
		u.req.Body.Close()
	}
}
