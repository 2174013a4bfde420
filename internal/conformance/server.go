package conformance

// The server: below net/http, so that it can do what that does not.

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// Headers by which a request tells the server what to do.
const (
	headerID    = "X-Scenario"
	headerReply = "X-Reply"       // framing of the answer
	headerSize  = "X-Reply-Size"  // of the answer
	headerCut   = "X-Reply-Cut"   // bytes of it after which to close
	headerReset = "X-Reply-Reset" // with a reset, also where there is no answer
)

// A server is what front ends are put before.
type server struct {
	address string

	mu       sync.Mutex
	received map[string]*received
}

// What the server has received of one request's body.
type received struct {
	body  []byte
	whole bool          // to its end
	done  chan struct{} // closed when no more comes
}

func startServer(t *testing.T) *server {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{address: ln.Addr().String(), received: map[string]*received{}}
	var serving sync.WaitGroup
	ended := make(chan struct{})
	serving.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				gone := make(chan struct{})
				serving.Go(func() {
					select {
					case <-ended:
					case <-gone:
					}
					conn.Close()
				})
				defer close(gone)
				s.serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		close(ended)
		serving.Wait()
	})
	return s
}

// begin notes a request. One that comes again, as after a failed attempt,
// counts as it came last.
func (s *server) begin(id string) *received {
	r := &received{done: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.received[id] = r
	return r
}

// of returns what is received of a request, nil if it has not come.
func (s *server) of(id string) *received {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.received[id]
}

// serve answers one request after the other.
func (s *server) serve(conn net.Conn) {
	in := bufio.NewReader(conn)
	for {
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		if !s.answer(conn, req) {
			return
		}
	}
}

// answer answers one request, and reports whether another can follow.
func (s *server) answer(conn net.Conn, req *http.Request) bool {
	r := s.begin(req.Header.Get(headerID))
	finish := sync.OnceFunc(func() { close(r.done) })
	defer finish()
	read := func(limit int) bool { return r.readFrom(req.Body, limit, nil) }
	out := newReply(conn, req)
	switch kind := req.URL.Path[strings.LastIndexByte(req.URL.Path, '/')+1:]; kind {
	case echo:
		if !r.readFrom(req.Body, -1, out.write) {
			return false
		}
		return out.end()
	case late:
		if req.Header.Get("Expect") != "" {
			io.WriteString(conn, "HTTP/1.1 100 Continue\r\n\r\n")
		}
		if !read(-1) {
			return false
		}
		finish()
		return out.write(content(out.size)) && out.end()
	case early:
		return out.write(content(out.size)) && out.end() && read(-1)
	case middle:
		return read(out.size/2) && out.write(content(out.size)) && out.end() && read(-1)
	case earlyClose:
		out.leaves = true
		out.write(content(out.size))
		out.end()
		return false
	case never:
		read(-1)
		finish()
		conn.Read(make([]byte, 1)) // until the other side gives up
		return false
	case vanish:
		read(-1)
		return false
	case vanishHalf:
		read(out.size / 2)
		if out.reset {
			conn.(*net.TCPConn).SetLinger(0)
		}
		return false
	default: // another request on a connection that was kept
		read(-1)
		_, err := io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
		return err == nil
	}
}

// readFrom reads limit bytes, or all if that is negative, and hands each piece
// to each. It reports whether that is done.
func (r *received) readFrom(body io.Reader, limit int, each func([]byte) bool) bool {
	b := make([]byte, 64<<10)
	for limit < 0 || len(r.body) < limit {
		n, err := body.Read(b)
		r.body = append(r.body, b[:n]...)
		if n > 0 && each != nil && !each(b[:n]) {
			return false
		}
		if err != nil {
			r.whole = err == io.EOF
			return r.whole
		}
	}
	return true
}

// A reply is an answer on its way out, in pieces as they are written.
type reply struct {
	conn    net.Conn
	framing string
	size    int
	cut     int // bytes yet after which to close; -1: never
	reset   bool
	leaves  bool // says that the connection ends with it
	begun   bool
}

func newReply(conn net.Conn, req *http.Request) *reply {
	r := &reply{conn: conn, framing: req.Header.Get(headerReply), cut: -1}
	r.size, _ = strconv.Atoi(req.Header.Get(headerSize))
	if v := req.Header.Get(headerCut); v != "" {
		r.cut, _ = strconv.Atoi(v)
	}
	r.reset = req.Header.Get(headerReset) != ""
	return r
}

// write sends a piece, and reports whether more can follow.
func (r *reply) write(b []byte) bool {
	if !r.begun {
		r.begun = true
		mark := "Connection: close"
		switch r.framing {
		case sized:
			mark = "Content-Length: " + strconv.Itoa(r.size)
		case chunked:
			mark = "Transfer-Encoding: chunked"
		}
		if r.leaves {
			mark += "\r\nConnection: close"
		}
		if _, err := io.WriteString(r.conn, "HTTP/1.1 200 OK\r\n"+mark+"\r\n\r\n"); err != nil {
			return false
		}
	}
	cut := false
	if r.cut >= 0 {
		cut = len(b) >= r.cut
		b = b[:min(len(b), r.cut)]
		r.cut -= len(b)
	}
	if r.framing == chunked && len(b) > 0 {
		b = fmt.Appendf(nil, "%x\r\n%s\r\n", len(b), b)
	}
	if _, err := r.conn.Write(b); err != nil {
		return false
	}
	if cut && r.reset {
		r.conn.(*net.TCPConn).SetLinger(0)
		r.conn.Close()
	}
	return !cut
}

// end marks the end of the answer, and reports whether another can follow.
func (r *reply) end() bool {
	if !r.write(nil) {
		return false
	}
	switch r.framing {
	case chunked:
		_, err := io.WriteString(r.conn, "0\r\n\r\n")
		return err == nil
	case closed:
		r.conn.(*net.TCPConn).CloseWrite()
	}
	return true
}
