package watchdog

// The watchdog's ends of a process's pipes.

import (
	"errors"
	"io"
	"os"
	"syscall"
	"time"
)

// An outlet is the reading end of a process's STDOUT or STDERR. It reads EOF when
// every writer has closed the pipe or, once the process has ended, when what the
// pipe held at that time has been read: a grandchild that keeps the pipe open, or
// writes into it forever, does not block the invocation.
type outlet struct {
	fd   int
	file *os.File // the same descriptor in the poller; nil before attach
	left int      // after the end: bytes to read yet; -1 before
}

func newOutlet(fd int) *outlet { return &outlet{fd: fd, left: -1} }

// attach moves the outlet into the poller. Read before it does not wait.
func (o *outlet) attach(name string) { o.file = pollable(o.fd, name) }

// Read waits for output once the outlet is attached. Before that it may be
// called only after settle.
func (o *outlet) Read(b []byte) (int, error) {
	for o.left < 0 {
		n, err := o.file.Read(b)
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		o.settle()
	}
	if o.left == 0 {
		return 0, io.EOF
	}
	// The pipe holds that much and nobody else reads it: this cannot block.
	for {
		n, err := syscall.Read(o.fd, b[:min(len(b), o.left)])
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return 0, os.NewSyscallError("read", err)
		case n == 0:
			return 0, io.EOF
		default:
			o.left -= n
			return n, nil
		}
	}
}

// settle fixes what is left to read. Only the reader calls it.
func (o *outlet) settle() { o.left = unread(o.fd) }

// end makes a waiting Read settle. Anybody may call it while the outlet is
// attached.
func (o *outlet) end() {
	o.file.SetReadDeadline(time.Unix(1, 0)) // fails only after close
}

func (o *outlet) close() {
	if o.file != nil {
		o.file.Close()
	} else {
		syscall.Close(o.fd)
	}
}

// An inlet is the writing end of a process's STDIN.
type inlet struct {
	fd   int
	file *os.File // the same descriptor in the poller; nil before attach
}

// attach moves the inlet into the poller, where writes wait for the process to
// read, and close interrupts them.
func (i *inlet) attach() { i.file = pollable(i.fd, "stdin") }

// close ends the process's input. It may be called again once attached.
func (i *inlet) close() {
	if i.file != nil {
		i.file.Close()
	} else {
		syscall.Close(i.fd)
	}
}

// pollable hands fd to the poller, and to the file that it returns.
func pollable(fd int, name string) *os.File {
	syscall.SetNonblock(fd, true) // fcntl(2) has no way to fail with a descriptor that is open
	return os.NewFile(uintptr(fd), name)
}
