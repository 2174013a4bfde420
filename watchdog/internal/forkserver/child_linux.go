package forkserver

// A child: the process of one request.

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// pipeBody is how much an empty pipe takes at once.
	pipeBody = 4096

	// growthInterval is how many forks lie between two looks at the memory.
	growthInterval = 64
)

// A Child is the process of one request. It leads a process group of its own,
// and its pid is nobody else's until Reap has returned.
type Child struct {
	Pid   int
	Pidfd int // readable when it has ended; the caller closes it, after Reap

	template *template
	feeder   *feeder // nil if the child had all of its request at once
}

// fork has the template make a child that reads payload.
func (t *template) fork(payload []byte, files [3]*os.File) (_ *Child, err error) {
	for _, f := range files {
		if f == nil || int(f.Fd()) < 0 {
			return nil, fmt.Errorf("fork: a standard stream: %w", os.ErrInvalid)
		}
	}
	if !t.enter() {
		return nil, errReplaced
	}
	defer func() {
		if err != nil {
			t.leave()
		}
	}()
	// What imports write comes first, as it does without a template. Once it is
	// written, the plain way would write it again.
	again := ErrNotNow
	for i, o := range t.outputs {
		if len(o.kept) > 0 {
			again = errors.New("the streams are used")
			if _, err := files[i+1].Write(o.kept); err != nil {
				return nil, err
			}
		}
	}
	request, feeder, err := feed(payload)
	if err != nil {
		return nil, err
	}
	m, err := t.ask("fork", int(files[0].Fd()), int(files[1].Fd()), int(files[2].Fd()), request)
	syscall.Close(request)
	if err == nil && m.text != "forked" {
		err = t.refused(m)
	} else if err == nil {
		var c *Child
		if c, err = t.adopt(m.pid, feeder); err == nil {
			t.count()
			return c, nil
		}
	} else {
		err = fmt.Errorf("%w: %w", again, err)
	}
	feeder.stop()
	return nil, err
}

// refused returns why the template has not forked.
func (t *template) refused(m message) error {
	text, ok := strings.CutPrefix(m.text, "failed ")
	if errno, err := strconv.ParseUint(text, 10, 16); ok && err == nil && m.pid == t.pid {
		return os.NewSyscallError("fork", syscall.Errno(errno))
	}
	t.kill()
	return fmt.Errorf("the template answers a fork with %.40q", m.text)
}

// adopt makes a child of a process that says it is one.
func (t *template) adopt(pid int, f *feeder) (*Child, error) {
	if group, err := syscall.Getpgid(pid); pid <= 1 || pid == t.pid || err != nil || group != pid {
		t.kill()
		return nil, fmt.Errorf("process %d says that it is a child, and leads no group (%v)", pid, err)
	}
	fd, err := openPidfd(pid)
	if err != nil {
		// Without it nobody would see the end, so this is the end.
		syscall.Kill(-pid, syscall.SIGKILL)
		t.ask("reap " + strconv.Itoa(pid))
		return nil, err
	}
	c := &Child{Pid: pid, Pidfd: fd, template: t, feeder: f}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.children[c] = true
	if t.gone {
		c.orphaned()
	}
	return c, nil
}

// count counts a fork, and looks now and then whether it is time for another
// template.
func (t *template) count() {
	t.mu.Lock()
	t.forks++
	n := t.forks
	t.mu.Unlock()
	if n == t.maxForks || n < t.maxForks && n%growthInterval == 0 && resident(t.pid) > t.maxMemory {
		t.spend()
	}
}

// Reap returns the status of a child that has ended; before that it waits in
// this thread. ErrLost means that nobody knows the status. After Reap the pid
// may be somebody else's. Call it once.
func (c *Child) Reap() (syscall.WaitStatus, error) {
	t := c.template
	defer t.leave()
	readable(c.Pidfd, -1)
	c.feeder.stop()
	m, err := t.ask("reap " + strconv.Itoa(c.Pid))
	t.mu.Lock()
	delete(t.children, c)
	t.mu.Unlock()
	if err == nil {
		text, ok := strings.CutPrefix(m.text, "reaped ")
		if status, err := strconv.ParseUint(text, 10, 16); ok && err == nil && m.pid == t.pid {
			return syscall.WaitStatus(status), nil
		}
		t.kill()
	}
	<-t.ended
	// If this program inherits orphans, the child is its own now.
	var status syscall.WaitStatus
	for {
		_, err := syscall.Wait4(c.Pid, &status, 0, nil)
		switch err {
		case syscall.EINTR:
			continue
		case nil:
			return status, nil
		}
		return 0, ErrLost
	}
}

// orphaned ends a child whose status nobody will get to know. The caller holds
// the template's lock, and the template has been reaped.
func (c *Child) orphaned() {
	if !isChild(c.Pid) && signalPidfd(c.Pidfd, syscall.SIGKILL) {
		syscall.Kill(-c.Pid, syscall.SIGKILL)
	}
}

// A feeder writes what a child reads of its request and does not fit into a
// pipe.
type feeder struct {
	file *os.File
	done chan struct{}
}

// feed returns the reading end of a pipe with payload in it, or on its way.
func feed(payload []byte) (int, *feeder, error) {
	var fds [2]int
	if err := syscall.Pipe2(fds[:], syscall.O_CLOEXEC); err != nil {
		return -1, nil, os.NewSyscallError("pipe2", err)
	}
	if len(payload) <= pipeBody {
		_, err := syscall.Write(fds[1], payload)
		syscall.Close(fds[1])
		if err != nil {
			syscall.Close(fds[0])
		}
		return fds[0], nil, os.NewSyscallError("write", err)
	}
	syscall.SetNonblock(fds[1], true)
	f := &feeder{os.NewFile(uintptr(fds[1]), "request"), make(chan struct{})}
	go func() {
		defer close(f.done)
		defer f.file.Close()
		f.file.Write(payload) // fails if the child ends before it has read it
	}()
	return fds[0], f, nil
}

// stop returns when nothing is written any more.
func (f *feeder) stop() {
	if f != nil {
		f.file.SetWriteDeadline(time.Unix(1, 0))
		<-f.done
	}
}
