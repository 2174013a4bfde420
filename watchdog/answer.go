package watchdog

// Responses of processes: buffered as long as the status may still change, then
// streamed.

import (
	"errors"
	"io"
	"net/http"
	"strconv"
)

// An answer is what a process writes, as an HTTP response.
type answer struct {
	w     *reply
	buf   *[]byte // what is held back; once streaming, what is on its way
	hold  int     // bytes to hold back at most
	flush bool    // each write at once

	// open makes the header out of what the process wrote first, and returns
	// the status and what is body. errHeaderOpen asks for more.
	open      func(header http.Header, output []byte) (status int, body []byte, err error)
	committed bool // status and header are out
}

// A clientError means that writing to the client failed.
type clientError struct{ err error }

func (e clientError) Error() string { return "write response: " + e.err.Error() }
func (e clientError) Unwrap() error { return e.err }

// readFrom takes all that src has. Its error is a clientError or that of open:
// what is wrong with src comes out when its process is waited for.
func (a *answer) readFrom(src io.Reader) error {
	for {
		b := *a.buf
		if len(b) == cap(b) {
			grown := make([]byte, len(b), min(2*cap(b), a.hold+bufferSize))
			copy(grown, b)
			b = grown
		}
		n, err := src.Read(b[len(b):cap(b)])
		*a.buf = b[:len(b)+n]
		if n > 0 && (a.committed || len(b)+n > a.hold) {
			if err := a.stream(); err != nil {
				return err
			}
		}
		if err != nil {
			return nil
		}
	}
}

// stream sends what is held, the first time with status and header before it.
func (a *answer) stream() error {
	body := *a.buf
	if !a.committed {
		status, rest, err := a.open(a.w.Header(), body)
		if err == errHeaderOpen {
			a.hold = max(a.hold, cap(body)) // all that fits is read before the next try
			return nil
		}
		if err != nil {
			return err
		}
		a.committed = true
		a.w.WriteHeader(status)
		body = rest
	}
	if err := a.send(body); err != nil {
		return err
	}
	*a.buf = (*a.buf)[:0]
	if a.flush {
		if err := a.w.FlushError(); err != nil {
			return clientError{err}
		}
	}
	return nil
}

// finish sends what is left. status, unless it is 0, is the answer's instead of
// the one that the process chose; a header that makes no sense is no error
// then.
func (a *answer) finish(status int) error {
	if a.committed {
		return a.send(*a.buf)
	}
	header := a.w.Header()
	chosen, body, err := a.open(header, *a.buf)
	if status == 0 {
		if err != nil {
			return err
		}
		status = chosen
	} else if err != nil {
		header.Set("Content-Type", "application/octet-stream")
		body = *a.buf
	}
	a.committed = true
	if len(body) > 0 || header.Get("Content-Length") == "" {
		header.Set("Content-Length", strconv.Itoa(len(body)))
	}
	if status == http.StatusNoContent || status == http.StatusNotModified {
		header.Del("Content-Length")
	}
	a.w.WriteHeader(status)
	return a.send(body)
}

func (a *answer) send(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if _, err := a.w.Write(b); err != nil && !errors.Is(err, http.ErrBodyNotAllowed) {
		return clientError{err}
	}
	return nil
}
