package watchdog

// A request's body on its way into a process.

import (
	"io"
	"net/http"
	"sync"
	"time"
)

// A feeder copies a body to a process beside its output.
type feeder struct {
	in   *inlet
	body io.Reader
	cut  func() // interrupts a read of body
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
		f.cut()
	}
	f.in.close() // a write that waits for the process fails
	<-f.done
	return f.err
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
