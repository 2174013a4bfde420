package watchdog

// A process of its own group: started, ended as a whole, waited for.
//
// This goes below os/exec because forking is most of what an invocation costs:
// no /dev/null opened per process, pipes registered with the poller on the
// parent's side only, no thread that waits for the exit, and a look at the
// exit before its status is taken, without which the group could not be
// killed safely. bench/ holds the comparison.

import (
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// killDelay is how long a group has between SIGTERM and SIGKILL.
const killDelay = time.Second

// A program is a command that can be started many times.
type program struct {
	path string
	argv []string
	null *os.File // STDIN of processes that get none
}

func newProgram(argv []string) (*program, error) {
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return nil, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	return &program{path: path, argv: argv, null: null}, nil
}

// wiring says what a process's standard descriptors are.
type wiring struct {
	stdin   bool     // a pipe; else /dev/null
	stdout  *os.File // nil: a pipe
	stderr  *os.File // nil: a pipe
	combine bool     // STDERR is STDOUT
}

// A process runs in a process group of its own, of which it is the leader.
type process struct {
	pid    int
	stdin  *inlet  // nil if it has none
	stdout *outlet // nil if it goes elsewhere
	stderr *outlet // nil if it goes elsewhere

	pidfd *os.File      // readable when it has ended; nil where there is no such thing
	done  chan struct{} // closed when it has ended, and its group with it

	mu         sync.Mutex
	reaped     bool // the pid may be somebody else's by now
	terminated bool // terminate came before the end
	killer     *time.Timer

	status syscall.WaitStatus // valid after done
	err    error              // why the status is not known; valid after done
}

// start starts the program; the caller must read the outlets to their end,
// wait for done and then call release. An error means that nothing runs and
// nothing is open.
func (pr *program) start(env []string, w wiring, family *family) (_ *process, err error) {
	var ours, theirs []int
	defer func() {
		for _, fd := range theirs {
			syscall.Close(fd)
		}
		if err != nil {
			for _, fd := range ours {
				syscall.Close(fd)
			}
		}
	}()
	pipe := func(childReads bool) (our, their int, err error) {
		r, w, err := newPipe()
		if err != nil {
			return -1, -1, err
		}
		if our, their = r, w; childReads {
			our, their = w, r
		}
		// A failed fcntl could only leave a blocking pipe behind.
		if err := syscall.SetNonblock(our, true); err != nil {
			syscall.Close(our)
			syscall.Close(their)
			return -1, -1, os.NewSyscallError("fcntl", err)
		}
		ours, theirs = append(ours, our), append(theirs, their)
		return our, their, nil
	}

	files := []uintptr{pr.null.Fd(), 0, 0}
	in, out, errs := -1, -1, -1
	var their int
	if w.stdin {
		if in, their, err = pipe(true); err != nil {
			return nil, err
		}
		files[0] = uintptr(their)
	}
	if w.stdout != nil {
		files[1] = w.stdout.Fd()
	} else {
		if out, their, err = pipe(false); err != nil {
			return nil, err
		}
		files[1] = uintptr(their)
	}
	switch {
	case w.combine:
		files[2] = files[1]
	case w.stderr != nil:
		files[2] = w.stderr.Fd()
	default:
		if errs, their, err = pipe(false); err != nil {
			return nil, err
		}
		files[2] = uintptr(their)
	}

	p := &process{done: make(chan struct{})}
	pidfd := -1
	attr := syscall.SysProcAttr{Setpgid: true}
	withPidfd(&attr, &pidfd)
	err = family.add(func() (*process, error) {
		p.pid, err = syscall.ForkExec(pr.path, pr.argv, &syscall.ProcAttr{Env: env, Files: files, Sys: &attr})
		return p, err
	})
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", pr.path, os.NewSyscallError("fork/exec", err))
	}
	if in >= 0 {
		p.stdin = &inlet{fd: in}
	}
	if out >= 0 {
		p.stdout = newOutlet(out, "stdout")
	}
	if errs >= 0 {
		p.stderr = newOutlet(errs, "stderr")
	}
	if pidfd >= 0 && syscall.SetNonblock(pidfd, true) == nil {
		p.pidfd = os.NewFile(uintptr(pidfd), "pidfd")
	}
	go p.watch(family)
	return p, nil
}

// watch waits for the end of the process, ends what is left of its group, and
// takes its status. It is the only one that reaps.
func (p *process) watch(family *family) {
	defer close(p.done)
	p.awaitExit()

	p.mu.Lock()
	if p.killer != nil {
		p.killer.Stop()
	}
	// The leader is a zombie: its pid still names this group and no other.
	syscall.Kill(-p.pid, syscall.SIGKILL)
	for {
		_, err := syscall.Wait4(p.pid, &p.status, 0, nil)
		if err == syscall.EINTR {
			continue
		}
		p.err = os.NewSyscallError("wait4", err)
		break
	}
	p.reaped = true
	p.mu.Unlock()

	family.remove(p)
	if p.pidfd != nil {
		p.pidfd.Close()
	}
	if p.stdout != nil {
		p.stdout.end()
	}
	if p.stderr != nil {
		p.stderr.end()
	}
}

// awaitExit waits for the process to end, in the poller if it can, so that
// waiting takes no thread.
func (p *process) awaitExit() {
	if p.pidfd != nil {
		var ended bool
		if rc, err := p.pidfd.SyscallConn(); err == nil {
			rc.Read(func(uintptr) bool {
				ok, err := exited(p.pid, false)
				ended = ok
				return ok || err != nil
			})
		}
		if ended {
			return
		}
	}
	exited(p.pid, true)
}

// terminate asks the group to end, and ends it killDelay later.
func (p *process) terminate() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reaped || p.terminated {
		return
	}
	p.terminated = true
	syscall.Kill(-p.pid, syscall.SIGTERM)
	p.killer = time.AfterFunc(killDelay, p.kill)
}

// kill ends the group at once.
func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.reaped {
		p.terminated = true
		syscall.Kill(-p.pid, syscall.SIGKILL)
	}
}

// wasTerminated reports whether the process was told to end before it had.
func (p *process) wasTerminated() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.terminated
}

// exitCode returns the exit code as a shell has it: 128 and the number of the
// signal that ended the process; -1 if nobody knows. Only after done.
func (p *process) exitCode() int {
	switch {
	case p.err != nil:
		return -1
	case p.status.Signaled():
		return 128 + int(p.status.Signal())
	}
	return p.status.ExitStatus()
}

// release closes what the parent holds of the process. Only after done.
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
}

// A family is the set of processes that run. It exists so that they can be
// told apart from orphans, and ended together.
type family struct {
	mu      sync.RWMutex // write-held by whoever must not meet a process half-started
	members sync.Map     // pid -> *process
}

// add starts a process by way of start and makes it a member before anybody
// who holds the write lock can see it.
func (f *family) add(start func() (*process, error)) error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	p, err := start()
	if err == nil {
		f.members.Store(p.pid, p)
	}
	return err
}

func (f *family) remove(p *process) { f.members.CompareAndDelete(p.pid, p) }

// kill ends every member at once.
func (f *family) kill() {
	f.members.Range(func(_, p any) bool {
		p.(*process).kill()
		return true
	})
}
