package main

// Request bodies that can be read again: one that was read ahead, and one whose
// beginning is kept so that the request can be retried.

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
)

// A replayBody is a request body that can be reread from its start as long as no
// more than replayLimit has been read. Each attempt has its own reader, and closes
// it before the next one reads. A Read that then still waits for the caller does
// not block the next reader, which gets its data.
type replayBody struct {
	src   io.ReadCloser
	atEnd func()      // called when the end of src has been read; may be nil
	ended atomic.Bool // it has been

	mu      sync.Mutex
	changed sync.Cond // a Read of src has returned, or a reader was closed
	reading bool      // src is being read
	kept    []byte    // what readers got so far, unless over
	over    bool      // they got more than is kept
	ahead   []byte    // was read for a reader that was closed meanwhile
	err     error     // what reading src has ended with
}

func newReplayBody(src io.ReadCloser, atEnd func()) *replayBody {
	b := &replayBody{src: src, atEnd: atEnd}
	b.changed.L = &b.mu
	return b
}

// rewindable reports whether open yields the whole body. It is true without a body.
func (b *replayBody) rewindable() bool {
	if b == nil {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.over
}

// failure returns the error of reading the body, or nil. A read after the gateway
// has closed the body is not a failure of the caller.
func (b *replayBody) failure() error {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == io.EOF || b.err == http.ErrBodyReadAfterClose {
		return nil
	}
	return b.err
}

// settle waits until no Read of the source is in progress.
func (b *replayBody) settle() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.reading {
		b.changed.Wait()
	}
}

func (b *replayBody) open() io.ReadCloser { return &replayReader{b: b} }

// reopen is a http.Request.GetBody.
func (b *replayBody) reopen() (io.ReadCloser, error) {
	if !b.rewindable() {
		return nil, errors.New("too much of the body was sent to send it again")
	}
	return b.open(), nil
}

// A replayReader reads what is kept, then the source. Its Close leaves the
// source open for the next attempt; ReverseProxy closes it.
type replayReader struct {
	b      *replayBody
	off    int  // in what is kept
	closed bool // under b.mu
}

func (r *replayReader) Read(p []byte) (int, error) {
	b := r.b
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.reading && !r.closed && r.off == len(b.kept) {
		b.changed.Wait()
	}
	switch {
	case r.closed:
		return 0, http.ErrBodyReadAfterClose
	case r.off < len(b.kept):
		n := copy(p, b.kept[r.off:])
		r.off += n
		return n, nil
	case len(b.ahead) > 0:
		n := copy(p, b.ahead)
		b.ahead = b.ahead[n:]
		r.keep(p[:n])
		if len(b.ahead) > 0 {
			return n, nil
		}
		return n, b.err
	case b.err != nil:
		return 0, b.err
	}
	n, err := b.fetch(p)
	if r.closed {
		b.ahead = append(b.ahead, p[:n]...)
		return 0, http.ErrBodyReadAfterClose
	}
	r.keep(p[:n])
	return n, err
}

// fetch reads the source, with b.mu released meanwhile.
func (b *replayBody) fetch(p []byte) (int, error) {
	b.reading = true
	b.mu.Unlock()
	n, err := b.src.Read(p)
	if err == io.EOF && !b.ended.Swap(true) && b.atEnd != nil {
		b.atEnd()
	}
	b.mu.Lock()
	b.reading, b.err = false, err
	b.changed.Broadcast()
	return n, err
}

// keep notes that r got p.
func (r *replayReader) keep(p []byte) {
	b := r.b
	switch {
	case b.over:
	case len(b.kept)+len(p) <= replayLimit:
		b.kept = append(b.kept, p...)
		r.off += len(p)
	case len(p) > 0:
		b.over, b.kept, r.off = true, nil, 0
	}
}

func (r *replayReader) Close() error {
	r.b.mu.Lock()
	defer r.b.mu.Unlock()
	r.closed = true
	r.b.changed.Broadcast()
	return nil
}

// A restoredBody yields the part of a body that was read ahead, and then the rest.
// If all of it was read, io.EOF comes with the last bytes, as in net/http: a reader
// of exactly the body's length has then seen its end, without which the connection
// could not be reused.
type restoredBody struct {
	kept []byte        // to be given again
	end  error         // what the read behind kept has ended with; nil: rest goes on
	rest io.ReadCloser // the body itself
}

func (b *restoredBody) Read(p []byte) (n int, err error) {
	if len(b.kept) == 0 && b.end == nil {
		return b.rest.Read(p)
	}
	n = copy(p, b.kept)
	if b.kept = b.kept[n:]; len(b.kept) == 0 {
		err = b.end
	}
	return n, err
}

func (b *restoredBody) Close() error { return b.rest.Close() }
