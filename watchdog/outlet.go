package watchdog

// The parent's ends of a process's pipes.

import (
	"errors"
	"io"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// An outlet is the reading end of a process's STDOUT or STDERR. It reads EOF
// when every writer has closed the pipe or, after end, when what the pipe held
// at that time has been read: a grandchild that keeps the pipe open, or writes
// into it for ever, holds up nobody.
type outlet struct {
	file  *os.File
	ended atomic.Bool
	left  int // after the end: bytes to read yet; -1 before
}

// newOutlet takes over fd, which is non-blocking.
func newOutlet(fd int, name string) *outlet {
	return &outlet{file: os.NewFile(uintptr(fd), name), left: -1}
}

func (o *outlet) Read(b []byte) (int, error) {
	for {
		if o.left == 0 {
			return 0, io.EOF
		}
		if o.left > 0 {
			b = b[:min(len(b), o.left)]
		}
		n, err := o.file.Read(b)
		if o.left > 0 {
			o.left -= n
		}
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		if err := o.file.SetReadDeadline(time.Time{}); err != nil {
			return 0, err
		}
		rc, err := o.file.SyscallConn()
		if err != nil {
			return 0, err
		}
		if err := rc.Control(func(fd uintptr) { o.left = unread(int(fd)) }); err != nil {
			return 0, err
		}
	}
}

// end says that nobody who counts will write any more. Read may be running.
func (o *outlet) end() {
	if !o.ended.Swap(true) {
		o.file.SetReadDeadline(time.Unix(1, 0)) // fails only if it is closed: the same outcome
	}
}

func (o *outlet) close() { o.file.Close() }

// An inlet is the writing end of a process's STDIN. It never blocks a thread:
// the pipe is non-blocking.
type inlet struct {
	fd   int      // -1 once file or nobody has it
	file *os.File // nil until a write needs to wait
}

// offer writes what the pipe takes at once. A reader that is gone is no error:
// a process need not read its STDIN.
func (i *inlet) offer(b []byte) (int, error) {
	for {
		n, err := syscall.Write(i.fd, b)
		switch err {
		case nil:
			return n, nil
		case syscall.EINTR:
		case syscall.EAGAIN:
			return 0, nil
		case syscall.EPIPE:
			return len(b), nil
		default:
			return 0, os.NewSyscallError("write", err)
		}
	}
}

// writer returns a writer that waits until the process reads; close interrupts
// it.
func (i *inlet) writer() *os.File {
	if i.file == nil {
		i.file = os.NewFile(uintptr(i.fd), "stdin")
		i.fd = -1
	}
	return i.file
}

// close ends the process's input.
func (i *inlet) close() {
	switch {
	case i.file != nil:
		i.file.Close()
	case i.fd >= 0:
		syscall.Close(i.fd)
		i.fd = -1
	}
}
