package transport

// Responses: their heads, their bodies, and the connection that a
// protocol switch leaves.

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httputil"
	"net/textproto"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"faas/internal/field"
)

var (
	errHeadTooLong       = errors.New("response headers are too long")
	errMalformedResponse = errors.New("malformed response")
)

// readHead appends lines to buf up to the first empty one, which is read too.
// Lines may end in a bare line feed if bareLF is set.
func readHead(br *bufio.Reader, buf []byte, limit int, bareLF bool) ([]byte, error) {
	whole := true // the last line in buf
	for {
		line, err := br.ReadSlice('\n')
		if err != nil && err != bufio.ErrBufferFull {
			return buf, err
		}
		if whole && (string(line) == "\r\n" || bareLF && string(line) == "\n") {
			return buf, nil
		}
		if len(buf)+len(line) > limit {
			return buf, fmt.Errorf("%w: more than %d bytes", errHeadTooLong, limit)
		}
		buf = append(buf, line...)
		whole = err == nil
	}
}

// parseResponse sets resp from a head as readHead returns it. The values of
// headers are kept in room as far as it goes, if the response is final.
func parseResponse(resp *http.Response, head string, room []string) error {
	line, rest := cutLine(head)
	proto, status, ok := strings.Cut(line, " ")
	if !ok || proto != "HTTP/1.1" && proto != "HTTP/1.0" {
		return fmt.Errorf("%w: status line %q", errMalformedResponse, line)
	}
	status = strings.TrimLeft(status, " ")
	digits, _, _ := strings.Cut(status, " ")
	code, err := strconv.ParseUint(digits, 10, 16)
	if err != nil || len(digits) != 3 || code < 100 {
		return fmt.Errorf("%w: status %q", errMalformedResponse, status)
	}
	lines := strings.Count(rest, "\n")
	if code < 200 || lines > len(room) {
		room = make([]string, lines)
	}
	header, err := parseFields(rest, room)
	if err != nil {
		return err
	}
	*resp = http.Response{
		Status:     status,
		StatusCode: int(code),
		Proto:      proto,
		ProtoMajor: 1,
		ProtoMinor: int(proto[len(proto)-1] - '0'),
		Header:     header,
	}
	return nil
}

// parseFields parses header or trailer lines. room has an element for each.
func parseFields(lines string, room []string) (http.Header, error) {
	header := make(http.Header, len(room))
	for lines != "" {
		var line string
		line, lines = cutLine(lines)
		name, value, ok := strings.Cut(line, ":")
		if !ok || !field.IsToken(name) || !field.IsValue(value) {
			return nil, fmt.Errorf("%w: header line %q", errMalformedResponse, line)
		}
		name = textproto.CanonicalMIMEHeaderKey(name)
		value = textproto.TrimString(value)
		if values := header[name]; values != nil {
			header[name] = append(values, value)
			continue
		}
		room[0] = value
		header[name] = room[:1:1]
		room = room[1:]
	}
	return header, nil
}

// cutLine cuts a line and its end off s.
func cutLine(s string) (line, rest string) {
	line, rest, _ = strings.Cut(s, "\n")
	return strings.TrimSuffix(line, "\r"), rest
}

// hasToken reports whether the lists in values contain token, whatever its
// case.
func hasToken(values []string, token string) bool {
	for _, v := range values {
		for v != "" {
			var item string
			item, v, _ = strings.Cut(v, ",")
			if strings.EqualFold(textproto.TrimString(item), token) {
				return true
			}
		}
	}
	return false
}

// isSwitch reports whether resp hands the connection over to another protocol.
func isSwitch(resp *http.Response) bool {
	return resp.StatusCode == http.StatusSwitchingProtocols &&
		resp.Header.Get("Upgrade") != "" && hasToken(resp.Header["Connection"], "Upgrade")
}

// frame sets what follows from the headers of resp about its body and its
// connection, and removes the headers that say it, as http.ReadResponse does.
// It returns the number of bytes in the body, -1 if its end marks itself.
func frame(resp *http.Response, method string) (int64, error) {
	codings, hasCoding := resp.Header["Transfer-Encoding"]
	length, err := contentLength(resp.Header)
	if err != nil {
		return 0, err
	}
	if hasCoding {
		// RFC 9112, section 6.3: a length together with a coding is a sign of
		// request smuggling, and HTTP/1.0 has no codings.
		if len(codings) != 1 || !strings.EqualFold(codings[0], "chunked") || length >= 0 || resp.ProtoMinor == 0 {
			return 0, fmt.Errorf("%w: Transfer-Encoding %q", errMalformedResponse, codings)
		}
		delete(resp.Header, "Transfer-Encoding")
		resp.TransferEncoding = []string{"chunked"}
		if resp.Trailer, err = announcedTrailer(resp.Header); err != nil {
			return 0, err
		}
	}
	resp.Close = resp.ProtoMinor == 0
	if !resp.Close && hasToken(resp.Header["Connection"], "close") {
		resp.Close = true
		delete(resp.Header, "Connection")
	}
	switch {
	case method == http.MethodHead:
		resp.ContentLength = length
		return 0, nil
	case resp.StatusCode < 200, resp.StatusCode == http.StatusNoContent, resp.StatusCode == http.StatusNotModified:
		return 0, nil
	}
	resp.ContentLength = length
	if length < 0 && !hasCoding {
		resp.Close = true // the end of the connection is the end of the body
	}
	return length, nil
}

// contentLength returns -1 without a Content-Length. The same one several
// times counts, and is left in header, once.
func contentLength(header http.Header) (int64, error) {
	values := header["Content-Length"]
	if len(values) == 0 {
		return -1, nil
	}
	for _, v := range values[1:] {
		if v != values[0] {
			return 0, fmt.Errorf("%w: Content-Length %q", errMalformedResponse, values)
		}
	}
	n, err := strconv.ParseUint(values[0], 10, 63)
	if err != nil {
		return 0, fmt.Errorf("%w: Content-Length %q", errMalformedResponse, values)
	}
	header["Content-Length"] = values[:1]
	return int64(n), nil
}

// announcedTrailer moves the names in the header Trailer to a header of their
// own, without values. It returns nil without any.
func announcedTrailer(header http.Header) (http.Header, error) {
	var trailer http.Header
	for _, list := range header["Trailer"] {
		for list != "" {
			var name string
			name, list, _ = strings.Cut(list, ",")
			name = textproto.CanonicalMIMEHeaderKey(textproto.TrimString(name))
			if name == "" {
				continue
			}
			if field.IsDerived(name) {
				return nil, fmt.Errorf("%w: trailer %q", errMalformedResponse, name)
			}
			if trailer == nil {
				trailer = make(http.Header)
			}
			trailer[name] = nil
		}
	}
	delete(header, "Trailer")
	return trailer, nil
}

// A responseBody reads the body of an exchange's response. At its end, or when it
// is closed, it keeps or closes the connection. Close may be called while a Read
// waits, and makes it return.
type responseBody struct {
	x       *exchange
	left    int64     // bytes to come, -1 if the end marks itself
	chunks  io.Reader // not nil: the body is chunked
	err     error     // what Read has ended with
	settled atomic.Bool
	closed  atomic.Bool
}

// init sets the body of x.resp: http.NoBody, or b.
func (b *responseBody) init(x *exchange) error {
	left, err := frame(&x.resp, x.req.Method)
	if err != nil {
		return err
	}
	x.resp.Body = http.NoBody
	if left == 0 {
		return nil
	}
	b.x, b.left = x, left
	if len(x.resp.TransferEncoding) > 0 {
		b.chunks = httputil.NewChunkedReader(x.br)
	}
	x.resp.Body = b
	return nil
}

func (b *responseBody) Read(p []byte) (int, error) {
	switch {
	case b.closed.Load():
		return 0, http.ErrBodyReadAfterClose
	case b.err != nil:
		return 0, b.err
	}
	n, err := b.read(p)
	if err == nil {
		return n, nil
	}
	if err != io.EOF {
		err = b.x.cause(err)
	}
	b.err = err
	if b.settled.CompareAndSwap(false, true) {
		if err == io.EOF {
			b.x.finish(!b.x.resp.Close)
		} else {
			b.x.stopWatch()
			b.x.conn.close()
		}
	}
	return n, err
}

// read returns io.EOF at the end of the body, with its last bytes if that can
// be known, and only there.
func (b *responseBody) read(p []byte) (int, error) {
	switch {
	case b.chunks != nil:
		n, err := b.chunks.Read(p)
		if err == io.EOF {
			err = b.readTrailer()
		}
		return n, err
	case b.left < 0:
		n, err := b.x.br.Read(p)
		if err == io.EOF && b.x.conn.written.wasReset(b.x.conn.Conn) {
			err = syscall.ECONNRESET
		}
		return n, err
	}
	n, err := b.x.br.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	switch {
	case b.left == 0:
		return n, io.EOF
	case err == io.EOF:
		return n, io.ErrUnexpectedEOF
	}
	return n, err
}

// readTrailer reads what follows the last chunk. It returns io.EOF if that is
// valid.
func (b *responseBody) readTrailer() error {
	read, err := readHead(b.x.br, nil, b.x.t.limits.Head, false)
	if err != nil {
		return endOfResponse(err)
	}
	if len(read) == 0 {
		return io.EOF
	}
	lines := string(read)
	n := strings.Count(lines, "\n")
	if n != strings.Count(lines, "\r\n") {
		return fmt.Errorf("%w: bare line feed in the trailers", errMalformedResponse)
	}
	trailer, err := parseFields(lines, make([]string, n))
	if err != nil {
		return err
	}
	for name := range trailer {
		if field.IsDerived(name) {
			return fmt.Errorf("%w: trailer %q", errMalformedResponse, name)
		}
	}
	if b.x.resp.Trailer == nil {
		b.x.resp.Trailer = trailer
	} else {
		maps.Copy(b.x.resp.Trailer, trailer)
	}
	return io.EOF
}

// Close closes the connection unless the body has been read to its end.
func (b *responseBody) Close() error {
	b.closed.Store(true)
	if b.settled.CompareAndSwap(false, true) {
		b.x.stopWatch()
		b.x.conn.close()
	}
	return nil
}

// A switchedConn is the body of a response that switched protocols: the
// connection, which belongs to the caller from then on.
type switchedConn struct {
	br   *bufio.Reader // what came with the head is still in it
	conn *directConn
}

func (s *switchedConn) Read(p []byte) (int, error) {
	if s.br.Buffered() > 0 {
		return s.br.Read(p)
	}
	return s.conn.Read(p)
}

func (s *switchedConn) Write(p []byte) (int, error) { return s.conn.Write(p) }

func (s *switchedConn) Close() error {
	s.conn.close()
	return nil
}

// CloseWrite tells the peer that nothing more will be written.
func (s *switchedConn) CloseWrite() error {
	half, ok := s.conn.Conn.(interface{ CloseWrite() error })
	if !ok {
		return fmt.Errorf("close write: %w", http.ErrNotSupported)
	}
	return half.CloseWrite()
}
