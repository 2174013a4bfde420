package watchdog

// Starting processes.
//
// Starting is most of the cost of an invocation. So os/exec gets only files, and no
// goroutine copies. A short body is in the pipe before the process starts, and
// nothing is registered with the poller until an invocation turns out to take a
// while. bench/spawn compares.

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"faas/watchdog/internal/forkserver"
)

// pipeBody is how much input an empty pipe takes at once on every system, so
// that writing it ahead cannot block.
const pipeBody = 4096

// A program is a command that can be started many times.
type program struct {
	path string
	argv []string
	null *os.File // STDIN of processes that get none; closes itself with the last use of the program

	templates *forkserver.Server // nil: every process is started
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
type pipes struct {
	ours   []int
	theirs []*os.File
}

// toChild makes a pipe that the process reads from.
func (p *pipes) toChild() (theirs *os.File, ours int, err error) {
	r, w, err := newPipe()
	if err != nil {
		return nil, -1, err
	}
	return p.add(r, w), w, nil
}

// fromChild makes a pipe that the process writes into.
func (p *pipes) fromChild() (theirs *os.File, ours int, err error) {
	r, w, err := newPipe()
	if err != nil {
		return nil, -1, err
	}
	return p.add(w, r), r, nil
}

func (p *pipes) add(theirs, ours int) *os.File {
	f := os.NewFile(uintptr(theirs), "pipe")
	p.ours, p.theirs = append(p.ours, ours), append(p.theirs, f)
	return f
}

func (p *pipes) closeOurs() {
	for _, fd := range p.ours {
		syscall.Close(fd)
	}
}

func (p *pipes) closeTheirs() {
	for _, f := range p.theirs {
		f.Close()
	}
}

// start starts a process, as a member of f. The caller must see it to its end
// and then release it. An error means that nothing runs and nothing is open.
func (pr *program) start(env []string, w wiring, f *family) (_ *process, err error) {
	var open pipes
	defer func() {
		open.closeTheirs()
		if err != nil {
			open.closeOurs()
		}
	}()

	p := &process{family: f, mark: f.mark()}
	if p.mark != "" {
		env = append(env[:len(env):len(env)], markVariable+"="+p.mark)
	}
	files := [3]*os.File{pr.null, w.stdout, w.stderr}
	if w.stdin || len(w.input) > 0 {
		theirs, in, err := open.toChild()
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
		files[0] = theirs
	}
	if files[1] == nil {
		theirs, out, err := open.fromChild()
		if err != nil {
			return nil, err
		}
		p.stdout, files[1] = newOutlet(out), theirs
	}
	switch {
	case w.combine:
		files[2] = files[1]
	case files[2] == nil:
		theirs, out, err := open.fromChild()
		if err != nil {
			return nil, err
		}
		p.stderr, files[2] = newOutlet(out), theirs
	}
	err = f.add(func() (_ *process, err error) {
		p.child, p.pid, err = pr.child(env, files)
		return p, err
	})
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", pr.path, err)
	}
	return p, nil
}

// child forks a process from a template or, where there is none now, starts
// one.
func (pr *program) child(env []string, files [3]*os.File) (child, int, error) {
	if pr.templates != nil {
		c, err := pr.templates.Fork(forkserver.Request{Env: env, Files: files})
		if err == nil {
			return forked{c}, c.Pid, nil
		}
		if !errors.Is(err, forkserver.ErrNotNow) && !errors.Is(err, forkserver.ErrNever) {
			return nil, 0, err
		}
	}
	cmd := &exec.Cmd{
		Path: pr.path, Args: pr.argv, Env: env, Stdin: files[0], Stdout: files[1], Stderr: files[2],
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true},
	}
	tie(cmd.SysProcAttr)
	if err := cmd.Start(); err != nil {
		return nil, 0, err
	}
	return command{cmd}, cmd.Process.Pid, nil
}
