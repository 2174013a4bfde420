package watchdog

// Starting processes.
//
// This goes below os/exec because starting is most of what an invocation
// costs: no /dev/null is opened per process, a short body is in the pipe before
// there is a process to read it, and nothing is registered with the poller
// until an invocation turns out to take a while. bench/spawn compares.

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// pipeBody is how much input an empty pipe takes at once on every system, so
// that writing it ahead cannot block.
const pipeBody = 4096

// A program is a command that can be started many times.
type program struct {
	path string
	argv []string
	null *os.File // STDIN of processes that get none; closes itself with the last use of the program
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
	input   []byte   // what is on STDIN at once, pipeBody bytes at most
	stdin   bool     // a pipe to write more into; else EOF follows the input
	stdout  *os.File // nil: a pipe
	stderr  *os.File // nil: a pipe
	combine bool     // STDERR is STDOUT
}

// pipes are the pipes of a process that is being started.
type pipes struct{ ours, theirs []int }

// open makes a pipe and returns its ends, the reading one first.
func (p *pipes) open(childReads bool) (r, w int, err error) {
	if r, w, err = newPipe(); err != nil {
		return -1, -1, err
	}
	if childReads {
		p.ours, p.theirs = append(p.ours, w), append(p.theirs, r)
	} else {
		p.ours, p.theirs = append(p.ours, r), append(p.theirs, w)
	}
	return r, w, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		syscall.Close(fd)
	}
}

// start starts a process, as a member of f. The caller must see it to its end
// and then release it. An error means that nothing runs and nothing is open.
func (pr *program) start(env []string, w wiring, f *family) (_ *process, err error) {
	var open pipes
	defer func() {
		closeAll(open.theirs)
		if err != nil {
			closeAll(open.ours)
		}
	}()

	p := &process{family: f, pidfd: -1, mark: f.mark()}
	if p.mark != "" {
		env = append(env[:len(env):len(env)], markVariable+"="+p.mark)
	}
	files := [3]uintptr{}
	if w.stdin || len(w.input) > 0 {
		r, in, err := open.open(true)
		if err != nil {
			return nil, err
		}
		if len(w.input) > 0 {
			if _, err := syscall.Write(in, w.input); err != nil {
				return nil, os.NewSyscallError("write", err)
			}
		}
		if w.stdin {
			p.stdin = &inlet{fd: in}
		} else {
			// No process has this end, so EOF follows at once.
			open.ours = open.ours[:len(open.ours)-1]
			syscall.Close(in)
		}
		files[0] = uintptr(r)
	} else {
		files[0] = pr.null.Fd()
	}
	if w.stdout != nil {
		files[1] = w.stdout.Fd()
	} else {
		r, out, err := open.open(false)
		if err != nil {
			return nil, err
		}
		p.stdout, files[1] = newOutlet(r), uintptr(out)
	}
	switch {
	case w.combine:
		files[2] = files[1]
	case w.stderr != nil:
		files[2] = w.stderr.Fd()
	default:
		r, out, err := open.open(false)
		if err != nil {
			return nil, err
		}
		p.stderr, files[2] = newOutlet(r), uintptr(out)
	}

	attr := syscall.SysProcAttr{Setpgid: true}
	withPidfd(&attr, &p.pidfd)
	err = f.add(func() (*process, error) {
		var err error
		p.pid, err = syscall.ForkExec(pr.path, pr.argv, &syscall.ProcAttr{Env: env, Files: files[:], Sys: &attr})
		return p, err
	})
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", pr.path, os.NewSyscallError("fork/exec", err))
	}
	return p, nil
}
