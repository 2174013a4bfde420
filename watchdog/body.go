package watchdog

// A request's body on its way into a process.

import (
	"errors"
	"io"
	"net/http"
	"os"
	"syscall"
	"time"
)

// A feeder copies the rest of a body to a process beside its output.
type feeder struct {
	control *http.ResponseController
	in      *inlet
	done    chan struct{}
	err     error // why the body could not be read; valid after done
}

// feed starts to copy; the caller must stop it.
func feed(in *inlet, control *http.ResponseController, body io.Reader, timeout time.Duration, gone func(error)) *feeder {
	f := &feeder{control: control, in: in, done: make(chan struct{})}
	to := in.writer()
	go func() {
		defer close(f.done)
		defer in.close()
		err := copyBody(to, &timedReader{body, control, timeout})
		if err != nil {
			f.err = err
			gone(err)
		}
	}()
	return f
}

// stop ends the copying when the process has ended.
func (f *feeder) stop() {
	f.in.close() // a write that waits for the process fails
	select {
	case <-f.done:
		return
	default:
	}
	// A read that waits for the client fails. The connection cannot be used
	// again then, but nobody asked for the rest of this body.
	f.control.SetReadDeadline(time.Unix(1, 0))
	<-f.done
}

// copyBody returns an error if reading fails. That a process reads nothing, or
// not all, is none.
func copyBody(to *os.File, body io.Reader) error {
	buf := make([]byte, bufferSize)
	for {
		n, err := body.Read(buf)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				if errors.Is(err, syscall.EPIPE) || errors.Is(err, os.ErrClosed) {
					return nil
				}
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// A timedReader gives each read of a body a deadline.
type timedReader struct {
	io.Reader
	control *http.ResponseController
	timeout time.Duration
}

func (t *timedReader) Read(b []byte) (int, error) {
	if t.timeout > 0 {
		t.control.SetReadDeadline(time.Now().Add(t.timeout)) // a reader without deadlines has none
	}
	return t.Reader.Read(b)
}
