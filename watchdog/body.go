package watchdog

// A request's body on its way into a process.

import (
	"context"
	"io"
	"net/http"
	"sync"
	"time"
)

// A feeder copies a body to a process beside its output.
type feeder struct {
	in   *inlet
	body *timedReader
	done chan struct{}
	err  error // why the body could not be read; valid after done

	mu      sync.Mutex
	reading bool
	stopped bool
}

// start starts to copy, and calls failed if the body cannot be read to its
// end. The caller must call stop.
func (f *feeder) start(failed func()) {
	f.done = make(chan struct{})
	go func() {
		defer close(f.done)
		defer f.in.close()
		if f.err = f.copy(); f.err != nil {
			failed()
		}
	}()
}

// copy returns an error if reading fails. That a process reads nothing, or not
// all, is none.
func (f *feeder) copy() error {
	buf := make([]byte, bufferSize)
	for {
		n, err := f.read(buf)
		if n > 0 {
			if _, err := f.in.file.Write(buf[:n]); err != nil {
				return nil
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

// read reads from the body, and reads EOF after stop.
func (f *feeder) read(b []byte) (int, error) {
	f.mu.Lock()
	f.reading = !f.stopped
	f.mu.Unlock()
	if !f.reading {
		return 0, io.EOF
	}
	n, err := f.body.Read(b)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reading = false
	if f.stopped {
		return 0, io.EOF
	}
	return n, err
}

// stop ends the copying when the process has ended: nobody asks for the rest
// of the body. Its error says that the body broke off before.
func (f *feeder) stop() error {
	f.mu.Lock()
	f.stopped = true
	cut := f.reading
	f.mu.Unlock()
	if cut {
		f.body.interrupt()
	}
	f.in.close() // a write that waits for the process fails
	<-f.done
	return f.err
}

// readLinger is how much longer than the limit a read may take. net/http takes
// a deadline that passes for a client that went away; the limit comes first.
const readLinger = 50 * time.Millisecond

// bodyLinger is how long a client that has its answer may go on sending.
const bodyLinger = 500 * time.Millisecond

// A timedReader is a body with a deadline for each read.
type timedReader struct {
	body    io.ReadCloser
	control *http.ResponseController
	timeout time.Duration // for each read; 0: none
	until   time.Time     // no read takes longer; zero: none

	mu   sync.Mutex
	over bool // no read gets a deadline any more
	eof  bool // read to its end
}

// newTimedReader returns a reader of the body of r whose reads end with ctx,
// or just behind it.
func newTimedReader(ctx context.Context, r *http.Request, control *http.ResponseController, timeout time.Duration) *timedReader {
	t := &timedReader{body: r.Body, control: control, timeout: timeout}
	if end, ok := ctx.Deadline(); ok {
		t.until = end.Add(readLinger)
	}
	return t
}

func (t *timedReader) Read(b []byte) (int, error) {
	t.setDeadline()
	n, err := t.body.Read(b)
	if err == io.EOF {
		t.mu.Lock()
		t.over, t.eof = true, true
		t.mu.Unlock()
	}
	return n, err
}

// setDeadline leaves the connection alone once the body is over: from then on
// net/http waits on it for the client to go away, or for the next request.
func (t *timedReader) setDeadline() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return
	}
	deadline := t.until
	if t.timeout > 0 {
		if d := time.Now().Add(t.timeout); deadline.IsZero() || d.Before(deadline) {
			deadline = d
		}
	}
	if !deadline.IsZero() {
		t.control.SetReadDeadline(deadline) // a reader without deadlines has none
	}
}

// interrupt makes a read fail that waits, or is about to.
func (t *timedReader) interrupt() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.over {
		t.over = true
		t.control.SetReadDeadline(time.Unix(1, 0))
	}
}

// ended reports whether the body was read to its end.
func (t *timedReader) ended() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.eof
}

func (t *timedReader) Close() error {
	t.mu.Lock()
	t.over = true
	t.mu.Unlock()
	return t.body.Close()
}

// linger closes a body for a client that has its answer. It may go on sending
// for a moment: closing the connection upon it could cost it the answer.
func (t *timedReader) linger() {
	t.control.SetReadDeadline(time.Now().Add(bodyLinger))
	t.Close()
}
