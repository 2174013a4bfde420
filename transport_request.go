package main

// Requests to replicas as bytes: the head, and bodies that are streamed.

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
)

// sentLength returns the length of the body that req is to be sent with: 0 for
// none, -1 if it is not known, so that the body is sent in chunks. It decides
// as net/http documents for Request.ContentLength: 0 with a body is unknown.
func sentLength(req *http.Request) (int64, error) {
	switch {
	case req.Body == nil && req.ContentLength != 0:
		return 0, fmt.Errorf("%w: Content-Length %d without a body", errInvalidRequest, req.ContentLength)
	case req.Body == nil || req.Body == http.NoBody:
		return 0, nil
	case req.ContentLength <= 0, slices.Equal(req.TransferEncoding, []string{"chunked"}):
		return -1, nil
	}
	return req.ContentLength, nil
}

// sentWhole reports whether the body of req is to be read at once and sent in
// one write with the head, see directTransport.RoundTrip.
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
	return fmt.Errorf("%w: %w", errRequestBody, err)
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
	case !isToken(method):
		return buf, fmt.Errorf("%w: method %q", errInvalidRequest, method)
	case !isTarget(target):
		return buf, fmt.Errorf("%w: target %q", errInvalidRequest, target)
	case !isHost(host):
		return buf, fmt.Errorf("%w: host %q", errInvalidRequest, host)
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
		if isOwnField(name) || (name == "User-Agent" && len(values) > 0 && values[0] == "") {
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
	if !isToken(name) {
		return buf, fmt.Errorf("%w: header name %q", errInvalidRequest, name)
	}
	for _, v := range values {
		if !isFieldValue(v) {
			return buf, fmt.Errorf("%w: value of header %q", errInvalidRequest, name)
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
		if !isToken(name) || isOwnField(name) {
			return buf, fmt.Errorf("%w: trailer %q", errInvalidRequest, name)
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return appendField(buf, "Trailer", []string{strings.Join(names, ",")})
}

// isOwnField reports whether name, however it is written, is a field that
// follows from the request itself.
func isOwnField(name string) bool {
	switch len(name) {
	case len("Host"):
		return strings.EqualFold(name, "Host")
	case len("Trailer"):
		return strings.EqualFold(name, "Trailer")
	case len("Content-Length"):
		return strings.EqualFold(name, "Content-Length")
	case len("Transfer-Encoding"):
		return strings.EqualFold(name, "Transfer-Encoding")
	}
	return false
}

// isToken reports whether s is a token of RFC 9110, section 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-':
		case strings.IndexByte("!#$%&'*+.^_`|~", c) >= 0:
		default:
			return false
		}
	}
	return s != ""
}

// isFieldValue reports whether s has no control characters other than tabs.
func isFieldValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// isTarget reports whether s fits between the two spaces of a request line.
func isTarget(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c == 0x7f {
			return false
		}
	}
	return s != ""
}

// isHost reports whether s has only bytes that a host and a port can have
// (RFC 3986, section 3.2).
func isHost(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '-', c == ':':
		case strings.IndexByte("!$%&'()*+,;=[]_~", c) >= 0:
		default:
			return false
		}
	}
	return s != ""
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
	t       *directTransport
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
	if limit := u.t.limits.unacked; limit > 0 && c.raw != nil {
		time.AfterFunc(limit, u.look)
	}
	go u.run()
}

// look closes the connection if its peer is silent, and comes again until the
// connection is closed or free. It stands in for the limit of smaller
// requests, which would also cut off a peer that is slow to read.
func (u *upload) look() {
	switch {
	case u.freed.Load() || u.conn.closed.Load():
	case isSilent(u.conn.raw, u.t.limits.unacked):
		u.silent.Store(true)
		u.conn.close()
	default:
		time.AfterFunc(u.t.limits.unacked/4, u.look)
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
	// After a failed write the connection stays open: an answer that the
	// peer gave before it closed may still be read.
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
		if _, err := u.conn.Write(out); err != nil {
			return err
		}
	}
	return nil
}

// fail makes err what the exchange fails with.
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
		if isOwnField(name) {
			continue
		}
		var err error
		if out, err = appendField(out, name, values); err != nil {
			return nil, err
		}
	}
	return append(out, "\r\n"...)[start:], nil
}

// answered is called when the answer has been read to its end. Whoever is
// last, the reader or the upload, puts the connection back. An upload that is
// still far from its end is cut off: the function did not want the rest.
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

// cancel closes the body and waits until nothing reads it any more, or until
// ctx is done.
func (u *upload) cancel(ctx context.Context) {
	u.closeBody()
	if u.done == nil {
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
