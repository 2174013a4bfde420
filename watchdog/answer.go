package watchdog

// An answer on its way out: held back as long as its status may still change,
// then streamed.

import (
	"io"
	"net/http"
	"strconv"
	"time"
)

// An answer is what a process writes, as an HTTP response.
type answer struct {
	w       http.ResponseWriter
	control *http.ResponseController
	timeout time.Duration // for each write; 0: none

	buf   *[]byte // what is held back; when streaming, what is on its way
	hold  int     // bytes to hold back at most
	flush bool    // each write at once

	header    func(http.Header) // completes the header of a success
	committed bool              // status and first bytes are out
	failed    error             // the client takes no more
}

// readFrom takes all that src has. Only the client's failure is an error; what
// is wrong with src is found out when its process is waited for.
func (a *answer) readFrom(src io.Reader) error {
	for {
		b := *a.buf
		if len(b) == cap(b) {
			grown := make([]byte, len(b), min(2*cap(b), a.hold+bufferSize))
			copy(grown, b)
			b = grown
		}
		n, err := src.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		*a.buf = b
		if a.committed || len(b) > a.hold {
			if err := a.stream(); err != nil {
				return err
			}
		}
		if err != nil {
			return nil
		}
	}
}

// stream sends what is held and, the first time, status 200 before it.
func (a *answer) stream() error {
	if !a.committed {
		a.committed = true
		a.header(a.w.Header())
		a.w.WriteHeader(http.StatusOK)
	}
	return a.send(a.flush)
}

// finish sends all that is left with a status that was not known before, or
// with none if one is out already.
func (a *answer) finish(status int) error {
	if !a.committed {
		a.committed = true
		a.w.Header().Set("Content-Length", strconv.Itoa(len(*a.buf)))
		a.w.WriteHeader(status)
	}
	return a.send(false)
}

func (a *answer) send(flush bool) error {
	b := *a.buf
	*a.buf = b[:0]
	if len(b) == 0 {
		return nil
	}
	if a.timeout > 0 {
		a.control.SetWriteDeadline(time.Now().Add(a.timeout)) // a writer without deadlines has none
	}
	if _, err := a.w.Write(b); err != nil {
		return err
	}
	if flush {
		return a.control.Flush()
	}
	return nil
}
