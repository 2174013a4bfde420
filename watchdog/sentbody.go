package watchdog

// A request's body on its way to the process of mode http.

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"sync"
)

// maxArrived bounds a body that goes to the process in one write with its head.
const maxArrived = 12 << 10

// arrived returns a small body that has come with the request's head, as it mostly
// has, without waiting for any of it. What has come of another is in rest, which
// yields all of it.
func arrived(r *http.Request, body *timedReader) (whole []byte, rest io.Reader, ok bool) {
	conn, there := r.Context().Value(connKey{}).(*lingeringConn)
	if !there || r.ContentLength <= 0 || r.ContentLength > maxArrived || r.Header["Expect"] != nil {
		return nil, body, false
	}
	whole = make([]byte, r.ContentLength)
	conn.waitless.Store(true)
	n := body.readArrived(whole)
	conn.waitless.Store(false)
	if n == len(whole) {
		return whole, nil, true
	}
	return nil, io.MultiReader(bytes.NewReader(whole[:n]), body), false
}

// A sentBody is a body that is being sent while the answer may come. Its Close does not
// wait for a Read that waits for the client: the process may have gone, or have
// answered without the rest of the body.
type sentBody struct {
	io.Reader
	body *timedReader
	ctx  context.Context // of the exchange; where that ends first, the process is not to blame

	mu      sync.Mutex
	reading bool
	closed  bool
	cut     bool // closed while the client was still sending
}

func (s *sentBody) Read(b []byte) (int, error) {
	s.mu.Lock()
	closed := s.closed
	s.reading = !closed
	s.mu.Unlock()
	if closed {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := s.Reader.Read(b)
	s.mu.Lock()
	s.reading = false
	s.mu.Unlock()
	return n, err
}

// Close leaves the body itself open, for the reply to close.
func (s *sentBody) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.reading {
		s.cut = s.cut || s.ctx.Err() == nil
		s.body.interrupt()
	}
	return nil
}

// wasCut reports whether a Read was interrupted because the process was no longer
// interested. For net/http the client is gone then.
func (s *sentBody) wasCut() bool {
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cut
}
