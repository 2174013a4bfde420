package watchdog

// A process and its group: watching, ending and waiting for it.

import (
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// killDelay is how long a group has between SIGTERM and SIGKILL.
const killDelay = time.Second

// A process leads a process group of its own. After start it is either waited
// for with endsSoon, or watched from attach on.
type process struct {
	family *family
	child  child
	pid    int
	mark   string  // in its environment; "": none
	stdin  *inlet  // nil if it has none
	stdout *outlet // nil if it goes elsewhere
	stderr *outlet // nil if it goes elsewhere

	watched *os.File      // its handle in the poller; nil if there is none
	done    chan struct{} // closed when it has ended, and its group with it; nil before attach

	mu         sync.Mutex
	reaped     bool // the pid may be somebody else's by now
	terminated bool // it was told to end before it had
	killer     *time.Timer

	status syscall.WaitStatus // after the end
	known  bool               // the status is
}

// A child is what a process came from: a command that was started, or a fork of
// a template.
type child interface {
	// handle calls f with a descriptor that is readable when the process has
	// ended, if there is one.
	handle(f func(pidfd uintptr))

	// wait returns the status of a process that has ended, and false if nobody
	// knows it. From then on the pid may be somebody else's.
	wait() (status syscall.WaitStatus, known bool)

	// release closes what is held of the process, after wait.
	release()
}

// A command is a child that was started.
type command struct{ *exec.Cmd }

func (c command) handle(f func(pidfd uintptr)) { c.Process.WithHandle(f) }

func (c command) wait() (status syscall.WaitStatus, known bool) {
	c.Wait() // its error is what the status says
	if c.ProcessState != nil {
		status, known = c.ProcessState.Sys().(syscall.WaitStatus)
	}
	return status, known
}

func (command) release() {}

// endsSoon waits a moment for the process to end, and reports whether it has.
//
// Waiting takes this thread, and what the process writes stays in its pipes.
// For a process that lives a millisecond or two that is a third of the wake-ups
// of anything that follows its output; one that lives longer, or fills a pipe,
// is better off in the poller, where waiting takes no thread.
func (p *process) endsSoon() bool {
	for wait := time.Millisecond; wait <= 8*time.Millisecond; wait *= 2 {
		if p.endsWithin(wait) {
			p.reap()
			for _, o := range []*outlet{p.stdout, p.stderr} {
				if o != nil {
					o.settle()
				}
			}
			return true
		}
		for _, o := range []*outlet{p.stdout, p.stderr} {
			if o != nil && unread(o.fd) >= pipeBody {
				return false
			}
		}
	}
	return false
}

// endsWithin waits for the process to end, and reports whether it has. Where the
// system has no process descriptors it does not wait, and reports false.
func (p *process) endsWithin(wait time.Duration) (ended bool) {
	p.child.handle(func(pidfd uintptr) { ended = readable(int(pidfd), wait) })
	return ended
}

// attach moves the process's pipes into the poller and watches for its end.
func (p *process) attach() {
	p.done = make(chan struct{})
	if p.stdin != nil {
		p.stdin.attach()
	}
	if p.stdout != nil {
		p.stdout.attach("stdout")
	}
	if p.stderr != nil {
		p.stderr.attach("stderr")
	}
	p.child.handle(func(pidfd uintptr) {
		if fd, err := duplicate(int(pidfd)); err == nil {
			p.watched = pollable(fd, "pidfd")
		}
	})
	go p.watch()
}

// watch waits for the end of the process.
func (p *process) watch() {
	defer close(p.done)
	p.awaitExit()
	p.reap()
	if p.stdout != nil {
		p.stdout.end()
	}
	if p.stderr != nil {
		p.stderr.end()
	}
}

// awaitExit waits for the process to end, in the poller if it can.
func (p *process) awaitExit() {
	if p.watched != nil {
		var ended bool
		if rc, err := p.watched.SyscallConn(); err == nil {
			rc.Read(func(fd uintptr) bool {
				ended = readable(int(fd), 0)
				return ended
			})
		}
		if ended {
			return
		}
	}
	awaitZombie(p.pid)
}

// reap ends what is left of the group of a process that has ended, and takes
// the status.
func (p *process) reap() {
	p.mu.Lock()
	if p.killer != nil {
		p.killer.Stop()
	}
	// The leader is a zombie: its pid still names this group and no other.
	syscall.Kill(-p.pid, syscall.SIGKILL)
	p.status, p.known = p.child.wait()
	p.reaped = true
	p.mu.Unlock()
	p.family.remove(p)
}

// terminate asks the group to end, and ends it killDelay later.
func (p *process) terminate() { p.terminateIn(killDelay) }

// terminateIn asks the group to end, and ends it after grace.
func (p *process) terminateIn(grace time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reaped || p.terminated {
		return
	}
	p.terminated = true
	syscall.Kill(-p.pid, syscall.SIGTERM)
	if group, err := syscall.Getpgid(p.pid); err == nil && group != p.pid {
		syscall.Kill(p.pid, syscall.SIGTERM) // it has left its group
	}
	p.killer = time.AfterFunc(grace, p.kill)
}

// kill ends the group at once.
func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.reaped {
		p.terminated = true
		syscall.Kill(-p.pid, syscall.SIGKILL)
		syscall.Kill(p.pid, syscall.SIGKILL) // it may have left its group
	}
}

// wasTerminated reports whether the process was told to end before it had.
func (p *process) wasTerminated() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.terminated
}

// exitCode returns the exit code as a shell has it: 128 and the number of the
// signal that ended the process; -1 if nobody knows. Only after the end.
func (p *process) exitCode() int {
	switch {
	case !p.known:
		return -1
	case p.status.Signaled():
		return 128 + int(p.status.Signal())
	}
	return p.status.ExitStatus()
}

// release closes what the watchdog holds of the process. Only after the end.
func (p *process) release() {
	if p.stdin != nil {
		p.stdin.close()
	}
	if p.stdout != nil {
		p.stdout.close()
	}
	if p.stderr != nil {
		p.stderr.close()
	}
	if p.watched != nil {
		p.watched.Close()
	}
	p.child.release()
}
