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

// feed starts to copy, and calls failed if the body cannot be read to its end.
// The caller must stop it.
func feed(in *inlet, control *http.ResponseController, body io.Reader, failed func()) *feeder {
	f := &feeder{control: control, in: in, done: make(chan struct{})}
	go func() {
		defer close(f.done)
		defer in.close()
		if f.err = copyBody(in.file, body); f.err != nil {
			failed()
		}
	}()
	return f
}

// stop ends the copying when the process has ended. Its error says that the
// body broke off before.
func (f *feeder) stop() error {
	select {
	case <-f.done:
		return f.err
	default:
	}
	// A write that waits for the process fails, and so does a read that waits
	// for the client. The connection cannot be used again then, but nobody
	// asked for the rest of this body.
	f.in.close()
	f.control.SetReadDeadline(time.Unix(1, 0))
	<-f.done
	return nil
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
