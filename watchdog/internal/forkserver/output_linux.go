package forkserver

// What a template writes to STDOUT and STDERR.

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"time"
)

// maxKept is how much imports may write to a stream. It is written to the
// stream of each child ahead of it, which an empty pipe takes at once.
const maxKept = 4096

// An output is one stream of a template: what comes while it loads is kept, what
// comes later is logged.
type output struct {
	file *os.File
	log  func(line string)
	kept []byte // maxKept+1 bytes at most; to be read after settle
	turn chan bool
	done chan struct{}
}

func newOutput(file *os.File, log func(line string)) *output {
	return &output{file: file, log: log, turn: make(chan bool), done: make(chan struct{})}
}

// run reads until the stream ends, or settle says that it is over.
func (o *output) run() {
	defer close(o.done)
	defer o.file.Close()
	b := make([]byte, 32<<10)
	loading := true
	take := func(b []byte) {
		if loading {
			o.kept = append(o.kept, b[:min(len(b), maxKept+1-len(o.kept))]...)
			return
		}
		for line := range strings.Lines(string(b)) {
			o.log(strings.TrimRight(line, "\r\n"))
		}
	}
	for {
		n, err := o.file.Read(b)
		take(b[:n])
		if errors.Is(err, os.ErrDeadlineExceeded) {
			o.file.SetReadDeadline(time.Time{})
			for range 32 { // a pipe holds two of b; who writes faster than this has no end
				if n = o.readNow(b); n <= 0 {
					break
				}
				take(b[:n])
			}
			if loading = false; !<-o.turn {
				return
			}
		} else if err != nil {
			return
		}
	}
}

// readNow reads without waiting.
func (o *output) readNow(b []byte) (n int) {
	conn, err := o.file.SyscallConn()
	if err != nil {
		return 0
	}
	conn.Read(func(fd uintptr) bool {
		n, _ = syscall.Read(int(fd), b)
		return true
	})
	return n
}

// settle returns when all that was written before it is kept or logged. From
// then on nothing is kept; with more false, nothing is read either.
func (o *output) settle(more bool) {
	o.file.SetReadDeadline(time.Unix(1, 0)) // fails only when it is closed
	select {
	case o.turn <- more:
	case <-o.done:
	}
}
