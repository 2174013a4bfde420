package forkserver

// A template: a process that has loaded the script and is forked per request.

import (
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// endDelay is how long a template has to end when it is no longer needed.
const endDelay = 2 * time.Second

// A template is one process that speaks the protocol.
type template struct {
	log     *slog.Logger
	link    *link
	text    *feeder      // of what it runs
	leader  int          // pid of the process that was started, and of its group
	pid     int          // pid of the one that speaks; another only if the command wraps it
	pidfd   *os.File     // of the leader
	reap    func() error // waits for the leader
	outputs []*output    // STDOUT, STDERR
	files   stamps
	started time.Time

	maxForks  int
	maxMemory int64

	ended chan struct{} // closed when it has ended and is reaped
	spent chan struct{} // closed when it is to be renewed

	mu       sync.Mutex
	children map[*Child]bool
	users    int // children, and requests under way
	forks    int
	retired  bool // takes no more requests
	gone     bool // reaped
	closed   bool // the link is
	killer   *time.Timer
	fateOf   error // how the leader ended; nil: exit status 0
}

// start starts a template, which has loaded nothing yet. The kernel has pidfds.
func (s *Server) start() (_ *template, err error) {
	l, peer, err := newLink()
	if err != nil {
		return nil, err
	}
	ours, theirs := []*os.File{}, []*os.File{peer}
	defer func() {
		for _, f := range theirs {
			f.Close()
		}
		if err != nil {
			l.conn.Close()
			for _, f := range ours {
				f.Close()
			}
		}
	}()
	for range 3 {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		ours, theirs = append(ours, r), append(theirs, w)
	}
	cmd := exec.Command(s.argv[0], s.argv[1:]...)
	cmd.Env = s.o.Env
	// STDIN cannot be read: imports that try to fail, instead of taking an
	// empty input for that of a request.
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs[1], theirs[2], theirs[3]
	cmd.ExtraFiles = []*os.File{peer}
	var text *feeder
	if s.text != "" {
		var fd int
		if fd, text, err = feed([]byte(s.text)); err != nil {
			return nil, err
		}
		theirs = append(theirs, os.NewFile(uintptr(fd), "text"))
		cmd.ExtraFiles = append(cmd.ExtraFiles, theirs[4])
	}
	pidfd := -1
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, PidFD: &pidfd}
	started := time.Now()
	reap, err := s.o.Spawn(cmd)
	if err != nil {
		text.stop()
		return nil, err
	}
	ours[0].Close()
	t := &template{
		log: s.o.Log, link: l, text: text, leader: cmd.Process.Pid, reap: reap, started: started,
		maxForks: s.o.MaxForks, maxMemory: s.o.MaxGrowth,
		ended: make(chan struct{}), spent: make(chan struct{}), children: map[*Child]bool{},
	}
	syscall.SetNonblock(pidfd, true)
	t.pidfd = os.NewFile(uintptr(pidfd), "pidfd")
	for i, name := range []string{"stdout", "stderr"} {
		o := newOutput(ours[i+1], func(line string) {
			t.log.Warn("template wrote", "pid", t.leader, "stream", name, "line", line)
		})
		t.outputs = append(t.outputs, o)
		go o.run()
	}
	s.templates.Add(1)
	go func() {
		defer s.templates.Done()
		t.watch()
	}()
	return t, nil
}

// watch waits for the end of the template and kills what it leaves behind.
func (t *template) watch() {
	if conn, err := t.pidfd.SyscallConn(); err == nil {
		err = conn.Read(func(fd uintptr) bool { return readable(int(fd), 0) })
		if err != nil { // not in the poller
			readable(int(t.pidfd.Fd()), -1)
		}
	}
	t.pidfd.Close()
	t.mu.Lock()
	// The leader is a zombie: its pid still names this group and no other.
	syscall.Kill(-t.leader, syscall.SIGKILL)
	t.fateOf = t.reap()
	t.gone = true
	if t.killer != nil {
		t.killer.Stop()
	}
	for c := range t.children {
		c.orphaned()
	}
	t.mu.Unlock()
	t.link.cut()
	t.text.stop()
	for _, o := range t.outputs {
		o.settle(false)
		<-o.done
	}
	close(t.ended)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.close()
}

// enter reports whether the template takes a request. If so, leave must follow.
func (t *template) enter() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.retired || t.gone {
		return false
	}
	t.users++
	return true
}

// leave takes back an enter.
func (t *template) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.users--
	t.close()
}

// retire ends the template once it has no more children. t may be nil.
func (t *template) retire() {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.retired = true
	t.close()
}

// close closes the link if nobody uses it, which is what ends a template.
func (t *template) close() {
	if t.closed || t.users > 0 || !t.retired && !t.gone {
		return
	}
	t.closed = true
	t.link.conn.Close()
	if !t.gone {
		t.killer = time.AfterFunc(endDelay, t.kill)
	}
}

// kill ends the template at once.
func (t *template) kill() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.gone {
		syscall.Kill(-t.leader, syscall.SIGKILL)
	}
}

// ask puts a question to the template. One that does not answer is ended.
func (t *template) ask(question string, files ...int) (message, error) {
	m, err := t.link.ask(question, files...)
	if err != nil {
		t.kill()
	}
	return m, err
}

func (t *template) hasEnded() bool {
	select {
	case <-t.ended:
		return true
	default:
		return false
	}
}

// fate says how the template ended, once it has.
func (t *template) fate() string {
	if t.fateOf == nil {
		return "exit status 0"
	}
	return t.fateOf.Error()
}

func (t *template) age() time.Duration { return time.Since(t.started) }

// spend says that the template is to be renewed.
func (t *template) spend() {
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case <-t.spent:
	default:
		close(t.spent)
	}
}
