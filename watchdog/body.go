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

// copy returns an error if reading fails. It is not an error if the process does
// not read all of the body.
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

const (
	// refusalWait is how long an answer that needs no body waits for one, so that
	// clients that send it right after the head keep their connections.
	refusalWait = 10 * time.Millisecond
	refusalTake = 256 << 10 // bytes of a body taken then, and thrown away

	// bodyLinger is how long a client may send on that has its answer, where its
	// connection cannot linger.
	bodyLinger = 500 * time.Millisecond
)

// A timedReader is a body with a deadline for each read.
type timedReader struct {
	body    io.ReadCloser
	control *http.ResponseController
	length  int64         // -1: unknown
	expects bool          // the client sends it when it is told to go on
	timeout time.Duration // for each read; 0: none
	until   time.Time     // no read takes longer; zero: none

	mu   sync.Mutex
	over bool  // no read gets a deadline any more
	eof  bool  // read to its end
	err  error // why it cannot be read to its end
}

// limit makes reads end with ctx, or just behind it.
func (t *timedReader) limit(ctx context.Context) {
	if end, ok := ctx.Deadline(); ok {
		t.until = end.Add(readLinger)
	}
}

func (t *timedReader) Read(b []byte) (int, error) {
	if err := t.failed(); err != nil {
		return 0, err // net/http would call it the end the second time
	}
	t.setDeadline()
	return t.read(b)
}

func (t *timedReader) read(b []byte) (int, error) {
	n, err := t.body.Read(b)
	if err != nil {
		t.mu.Lock()
		if err == io.EOF {
			t.over, t.eof = true, true
		} else if !t.over {
			t.err = err
		}
		t.mu.Unlock()
	}
	return n, err
}

// readArrived fills b for as long as a Read returns something without waiting. Its
// error comes with the next Read.
func (t *timedReader) readArrived(b []byte) (n int) {
	for n < len(b) {
		m, err := t.read(b[n:])
		n += m
		if m == 0 || err != nil {
			break
		}
	}
	return n
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

// take reports whether all of the body was here and has been read. Otherwise it is
// read no more.
func (t *timedReader) take() bool {
	if !t.expects && t.length <= refusalTake {
		t.until = time.Now().Add(refusalWait)
		if _, err := io.CopyN(io.Discard, t, refusalTake+1); err == io.EOF {
			t.control.SetReadDeadline(time.Time{})
			return true
		}
	}
	t.interrupt()
	return false
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

// failed returns why the body cannot be read to its end, nil if nothing is
// known against it.
func (t *timedReader) failed() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

func (t *timedReader) Close() error {
	t.mu.Lock()
	t.over = true
	t.mu.Unlock()
	return t.body.Close()
}
