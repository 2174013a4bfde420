package forkserver

// What the tests share: a server that runs, and a command run through it or the
// plain way.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// closeInherited keeps descriptors that whoever runs the tests has left open from
// processes: one that is started would have them, a fork would not.
func closeInherited() {
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for _, f := range open {
		if fd, err := strconv.Atoi(f.Name()); err == nil && fd > 2 {
			syscall.CloseOnExec(fd)
		}
	}
}

// patience bounds what takes no time on a machine that is not busy.
const patience = 60 * time.Second

// A result is what a process answers.
type result struct {
	stdout, stderr string
	status         syscall.WaitStatus
}

var address = regexp.MustCompile(`0x[0-9a-f]{6,}`)

// masked returns r without addresses of memory.
func (r result) masked() result {
	r.stdout, r.stderr = address.ReplaceAllString(r.stdout, "0x"), address.ReplaceAllString(r.stderr, "0x")
	return r
}

func (r result) String() string {
	return fmt.Sprintf("status %#x, STDOUT %.4000q, STDERR %.4000q", int(r.status), r.stdout, r.stderr)
}

// A logbook keeps what is logged.
type logbook struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logbook) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// start runs a server for o, until the test ends.
func start(t testing.TB, o Options) (*Server, *logbook) {
	t.Helper()
	book := new(logbook)
	o.Log = slog.New(slog.NewTextHandler(book, nil))
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() { s.Run(ctx); close(ran) }()
	t.Cleanup(func() {
		cancel()
		select {
		case <-ran:
		case <-time.After(patience):
			t.Errorf("the server does not end; it logged:\n%s", book)
		}
	})
	return s, book
}

// until waits for cond to hold.
func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, patience)
		}
		time.Sleep(time.Millisecond)
	}
}

// fork has s fork, once there is a template.
func fork(t testing.TB, s *Server, r Request) (c *Child) {
	t.Helper()
	var err error
	until(t, "fork", func() bool {
		c, err = s.Fork(r)
		if err != nil && !errors.Is(err, ErrNotNow) {
			t.Fatal(err)
		}
		return err == nil
	})
	return c
}

// streams are the standard streams of a process.
type streams struct {
	theirs   [3]*os.File
	in       *os.File
	out, err *os.File
}

func newStreams(t testing.TB) *streams {
	t.Helper()
	var s streams
	for i, ours := range []**os.File{&s.in, &s.out, &s.err} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			s.theirs[i], *ours = r, w
		} else {
			s.theirs[i], *ours = w, r
		}
	}
	return &s
}

// run feeds and reads the streams until they end.
func (s *streams) run(stdin string) (stdout, stderr string) {
	for _, f := range s.theirs {
		f.Close()
	}
	var all sync.WaitGroup
	all.Go(func() { io.WriteString(s.in, stdin); s.in.Close() })
	all.Go(func() { b, _ := io.ReadAll(s.err); stderr = string(b); s.err.Close() })
	b, _ := io.ReadAll(s.out)
	s.out.Close()
	all.Wait()
	return string(b), stderr
}

// forked runs a request through s.
func forked(t testing.TB, s *Server, r Request, stdin string) result {
	t.Helper()
	pipes := newStreams(t)
	r.Files = pipes.theirs
	c := fork(t, s, r)
	out, errs := pipes.run(stdin)
	return result{out, errs, reap(t, c)}
}

// reap sees a child to its end as the watchdog does.
func reap(t testing.TB, c *Child) syscall.WaitStatus {
	t.Helper()
	if !readable(c.Pidfd, patience) {
		t.Fatalf("process %d does not end", c.Pid)
	}
	syscall.Kill(-c.Pid, syscall.SIGKILL)
	status, err := c.Reap()
	if err != nil {
		t.Error(err)
	}
	syscall.Close(c.Pidfd)
	return status
}

// plain runs a command the plain way.
func plain(t testing.TB, argv []string, r Request, stdin string) result {
	t.Helper()
	pipes := newStreams(t)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env, cmd.Dir = r.Env, r.Dir
	cmd.Stdin, cmd.Stdout, cmd.Stderr = pipes.theirs[0], pipes.theirs[1], pipes.theirs[2]
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out, errs := pipes.run(stdin)
	cmd.Wait()
	return result{out, errs, cmd.ProcessState.Sys().(syscall.WaitStatus)}
}

// script writes a file into a new directory and returns its name.
func script(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	write(t, path, text)
	return path
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// pythonVariable names the interpreter to test Python with, if it is not to be
// that of PATH.
const pythonVariable = "FAAS_PYTHON"

// interpreter returns the path of a language's interpreter.
func interpreter(t testing.TB, language string) string {
	t.Helper()
	name := map[string]string{"python": "python3", "perl": "perl", "ruby": "ruby"}[language]
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("FAAS_E2E") == "required" {
			t.Fatalf("%s is needed: package %s", name, name)
		}
		t.Skipf("needs %s: package %s", name, name)
	}
	if other := os.Getenv(pythonVariable); other != "" && language == "python" {
		return other
	}
	if language == "python" {
		// It may be a script that finds the right one, which takes long.
		out, err := exec.Command(path, "-c", "import sys; print(sys.executable)").Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	return path
}
