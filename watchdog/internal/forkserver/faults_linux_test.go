package forkserver

// What goes wrong: scripts that cannot be forked, templates that die or talk
// nonsense.

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// peerVariable makes the test binary a template; its value says which one.
const peerVariable = "FORKSERVER_TEST_PEER"

func TestMain(m *testing.M) {
	if name := os.Getenv(peerVariable); name != "" {
		runPeer(name)
		os.Exit(0)
	}
	closeInherited()
	os.Exit(m.Run())
}

func packet(text string) { syscall.Write(3, []byte(text)) }

func question() string {
	b := make([]byte, 65536)
	n, err := syscall.Read(3, b)
	if n <= 0 || err != nil {
		os.Exit(0)
	}
	return string(b[:n])
}

// runPeer is a template that does something wrong, or nothing.
func runPeer(name string) {
	say := func(texts ...string) {
		for _, text := range texts {
			packet(text)
			question()
		}
	}
	ready := func() {
		say("hello 1", "loaded x")
		packet("ready")
		question()
	}
	switch name {
	case "exits":
		os.Exit(0)
	case "garbage":
		packet("\x00\xff\x00")
	case "version":
		packet("hello 2")
	case "long":
		packet("hello 1" + strings.Repeat("x", 100_000))
	case "empty":
		packet("")
	case "twice":
		say("hello 1", "hello 1")
	case "early":
		say("ready")
	case "descriptors":
		syscall.Sendmsg(3, []byte("hello 1"), syscall.UnixRights(0, 1, 2), nil, 0)
	case "unknown":
		say("hello 1", "launch")
	case "fork: garbage":
		ready()
		packet("\x00\xff")
	case "fork: ends":
		ready()
	case "fork: long":
		ready()
		packet("forked" + strings.Repeat("x", 100_000))
	case "fork: itself":
		ready()
		packet("forked")
	case "fork: reaped":
		ready()
		packet("reaped 0")
	case "fork: error of no kind":
		ready()
		packet("failed x")
	case "fork: no process left":
		ready()
		for {
			packet("failed " + strconv.Itoa(int(syscall.EAGAIN)))
			question()
		}
	case "fork: silent":
		ready()
		select {}
	}
	question()
	select {}
}

// A template that talks nonsense while it loads is ended, and there is one
// warning.
func TestNonsenseWhileLoading(t *testing.T) {
	for _, name := range []string{"exits", "garbage", "version", "long", "empty", "twice", "early", "descriptors", "unknown"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, book := start(t, Options{Command: []string{"true"}, Template: []string{os.Args[0]}, Env: []string{peerVariable + "=" + name}})
			until(t, "a warning", func() bool { return strings.Contains(book.String(), "level=WARN") })
			if _, err := s.Fork(Request{}); !errors.Is(err, ErrNotNow) {
				t.Errorf("got %v, want ErrNotNow", err)
			}
			if n := strings.Count(book.String(), "level=WARN"); n != 1 {
				t.Errorf("got %d warnings, want 1:\n%s", n, book)
			}
		})
	}
}

// One that answers a fork with nonsense is ended, too. The caller gets an error,
// and the streams stay the caller's.
func TestNonsenseForFork(t *testing.T) {
	for name, want := range map[string]error{
		"fork: garbage": nil, "fork: ends": ErrNotNow, "fork: long": ErrNotNow, "fork: itself": nil,
		"fork: reaped": nil, "fork: error of no kind": nil, "fork: no process left": syscall.EAGAIN,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, book := start(t, Options{Command: []string{"true"}, Template: []string{os.Args[0]}, Env: []string{peerVariable + "=" + name}})
			until(t, "a template", func() bool { return s.now.Load().template != nil })
			peer := s.now.Load().template
			pipes := newStreams(t)
			c, err := s.Fork(Request{Files: pipes.theirs})
			if err == nil {
				t.Fatalf("got child %d, want an error", c.Pid)
			}
			if want != nil && !errors.Is(err, want) {
				t.Errorf("got %v, want %v", err, want)
			}
			if out, errs := pipes.run(""); out+errs != "" {
				t.Errorf("got output %q %q, want none", out, errs)
			}
			if want == syscall.EAGAIN {
				if peer.hasEnded() {
					t.Error("the template has ended, want it to go on")
				}
				return
			}
			select {
			case <-peer.ended:
			case <-time.After(patience):
				t.Errorf("the template does not end:\n%s", book)
			}
		})
	}
}

// What would be shared by all children, or missing from them, is found, and the
// warning names the import.
func TestImportsThatCannotBeForked(t *testing.T) {
	for _, c := range []struct{ language, name, text, helper, want string }{
		{"python", "helper.py", "import helper\n", "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n", "1 more threads"},
		{"python", "helper.py", "import json\nimport helper\n", "import socket\ns = socket.create_server(('127.0.0.1', 0))\n", "descriptor 4 (socket:["},
		{"python", "helper.py", "try:\n    import helper\nexcept ImportError:\n    pass\n", "f = open('/dev/null')\n", "descriptor 4 (/dev/null)"},
		{"python", "helper.py", "import helper\n", "import subprocess\np = subprocess.Popen(['sleep', '1000'])\n", "child process "},
		{"python", "helper.py", "import helper\n", "import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n", "a handler for SIGCHLD"},
		{"perl", "Helper.pm", "use FindBin;\nuse lib $FindBin::Bin;\nuse Helper;\n", "open our $f, '<', '/dev/null'; 1", "(/dev/null)"},
		{"ruby", "helper.rb", "require_relative 'helper'\n", "Thread.new { sleep }\n", "1 more threads"},
		{"ruby", "helper.rb", "require_relative 'helper'\n", "$f = File.open('/dev/null')\n", "(/dev/null)"},
	} {
		t.Run(c.language+" "+c.want, func(t *testing.T) {
			t.Parallel()
			name := script(t, "handler", c.text)
			write(t, filepath.Join(filepath.Dir(name), c.name), c.helper)
			s, book := start(t, Options{Command: []string{interpreter(t, c.language), name}, Template: []string{c.language}})
			until(t, "a warning", func() bool { return strings.Contains(book.String(), "level=WARN") })
			for range 3 {
				if _, err := s.Fork(Request{}); !errors.Is(err, ErrNever) {
					t.Errorf("got %v, want ErrNever", err)
				}
			}
			logged := book.String()
			if strings.Count(logged, "level=WARN") != 1 || !strings.Contains(logged, c.want) || !strings.Contains(strings.ToLower(logged), "helper") {
				t.Errorf("got %s, want one warning with %q and the name of the module", logged, c.want)
			}

			// Once the script is another one, it is tried again.
			write(t, name, map[string]string{"python": "print('x')", "perl": "print \"x\\n\"", "ruby": "puts 'x'"}[c.language])
			if got := forked(t, s, Request{}, ""); got.stdout != "x\n" {
				t.Errorf("got %v, want x", got)
			}
		})
	}
}

// A template that dies is made anew, with pauses that grow, and calls go
// elsewhere in the meantime.
func TestTemplateDies(t *testing.T) {
	name := script(t, "handler.py", "import os, signal, sys\nif sys.stdin.read(): os.kill(os.getppid(), signal.SIGKILL)\nprint('x')\n")
	s, book := start(t, Options{Command: []string{interpreter(t, "python"), name}, Template: []string{"python"}})
	var dead []time.Time
	for range 3 {
		pipes := newStreams(t)
		c := fork(t, s, Request{Files: pipes.theirs})
		dead = append(dead, time.Now()) // in a moment
		pipes.run("kill")
		if !readable(c.Pidfd, patience) {
			t.Fatal("the child does not end")
		}
		if _, err := c.Reap(); !errors.Is(err, ErrLost) {
			t.Errorf("got %v, want ErrLost", err)
		}
		syscall.Close(c.Pidfd)
		<-c.template.ended
		until(t, "no template", func() bool { return s.now.Load().template != c.template })
		if now := s.now.Load(); now.template == nil && !errors.Is(now.err, ErrNotNow) {
			t.Errorf("got %v, want ErrNotNow or a child", now.err)
		}
	}
	if got := forked(t, s, Request{}, ""); got.stdout != "x\n" {
		t.Errorf("got %v, want x", got)
	}
	if pause := time.Since(dead[2]); pause < 4*minPause {
		t.Errorf("got the fourth template after %v, want a pause of %v at least", pause, 4*minPause)
	}
	if n := strings.Count(book.String(), "level=WARN"); n != 1 {
		t.Errorf("got %d warnings, want 1:\n%s", n, book)
	}
}

// Where this program inherits orphans, a child outlives its template.
func TestChildOutlivesTemplate(t *testing.T) {
	const subreaper = 36 // PR_SET_CHILD_SUBREAPER of prctl(2)
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, subreaper, 1, 0); errno != 0 {
		t.Fatal(errno)
	}
	defer syscall.RawSyscall(syscall.SYS_PRCTL, subreaper, 0, 0)
	name := script(t, "handler.py", "import sys\nsys.stdin.read()\nprint('x')\nsys.exit(5)\n")
	s, _ := start(t, Options{Command: []string{interpreter(t, "python"), name}, Template: []string{"python"}})
	pipes := newStreams(t)
	c := fork(t, s, Request{Files: pipes.theirs})
	syscall.Kill(c.template.pid, syscall.SIGKILL)
	<-c.template.ended
	out, _ := pipes.run("go on")
	if status := reap(t, c); out != "x\n" || status.ExitStatus() != 5 {
		t.Errorf("got %q and status %v, want x and 5", out, status)
	}
}

// A template that does not answer is given up. A child that it has made by then
// learns that nobody waits for it, before it runs anything.
func TestSilentTemplate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "template.py"), `
import os, socket, sys, time
s = socket.socket(fileno=3)
s.send(b"hello 1"); s.recv(99)
s.send(b"ready")
s.recvmsg(99, 99)
if os.fork() == 0:
    os.setpgid(0, 0)
    while not os.path.exists(sys.argv[1] + "/go"): time.sleep(0.01)
    try:
        s.send(b"forked")
        result = "ran"
    except BrokenPipeError:
        result = "refused"
    with open(sys.argv[1] + "/new", "w") as f: f.write(result)
    os.rename(sys.argv[1] + "/new", sys.argv[1] + "/result")
    os._exit(0)
time.sleep(1000)
`)
	s, book := start(t, Options{Command: []string{"true"}, Template: []string{interpreter(t, "python"), filepath.Join(dir, "template.py"), dir}})
	until(t, "a template", func() bool { return s.now.Load().template != nil })
	pipes := newStreams(t)
	if _, err := s.Fork(Request{Files: pipes.theirs}); !errors.Is(err, ErrNotNow) {
		t.Errorf("got %v, want ErrNotNow", err)
	}
	write(t, filepath.Join(dir, "go"), "")
	result := filepath.Join(dir, "result")
	until(t, "the child's end", func() bool { _, err := os.Stat(result); return err == nil })
	if b, _ := os.ReadFile(result); string(b) != "refused" {
		t.Errorf("got a child that %s, want refused:\n%s", b, book)
	}
	if out, errs := pipes.run(""); out+errs != "" {
		t.Errorf("got output %q %q, want none", out, errs)
	}
}
