package forkserver

// When there is another template, and how all of it ends.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A change to the script, or to a module of its own, counts from the next call
// on: that one is not forked from what was loaded before.
func TestChanges(t *testing.T) {
	for _, c := range []struct{ language, file, text, helper, change string }{
		{"python", "helper.py", "import helper\nprint('script', helper.x)\n", "x = 1\n", "x = 234\n"},
		{"perl", "Helper.pm", "use FindBin; use lib $FindBin::Bin; use Helper;\nprint \"script $Helper::x\\n\"", "package Helper; our $x = 1;", "package Helper; our $x = 234;"},
		{"ruby", "helper.rb", "require_relative 'helper'\nputs \"script #{X}\"\n", "X = 1\n", "X = 234\n"},
	} {
		t.Run(c.language, func(t *testing.T) {
			t.Parallel()
			name := script(t, "handler", c.text)
			helper := filepath.Join(filepath.Dir(name), c.file)
			write(t, helper, c.helper)
			argv := []string{interpreter(t, c.language), name}
			s, book := start(t, Options{Command: argv, Template: []string{c.language}})
			expect := func(want string) {
				t.Helper()
				if got := forked(t, s, Request{}, ""); got.stdout != want+"\n" {
					t.Errorf("got %v, want %s\n%s", got, want, book)
				}
			}
			expect("script 1")
			write(t, helper, c.change)
			if _, err := s.Fork(Request{}); !errors.Is(err, ErrNotNow) {
				t.Errorf("got %v, want ErrNotNow", err)
			}
			expect("script 234")
			// An older file takes its place.
			next := filepath.Join(filepath.Dir(name), "next")
			write(t, next, strings.ReplaceAll(c.text, "script", "SCRIPT"))
			os.Chtimes(next, time.Time{}, time.Unix(1e9, 0))
			if err := os.Rename(next, name); err != nil {
				t.Fatal(err)
			}
			expect("SCRIPT 234")
			if n := strings.Count(book.String(), "level=WARN"); n != 0 {
				t.Errorf("got %d warnings, want none:\n%s", n, book)
			}
		})
	}
}

// A script that is broken for a while has its calls run the plain way until it
// is whole again.
func TestBrokenForAWhile(t *testing.T) {
	name := script(t, "handler.py", "import sys\nprint(1)\n")
	s, _ := start(t, Options{Command: []string{interpreter(t, "python"), name}, Template: []string{"python"}})
	for i := range 2 {
		if got := forked(t, s, Request{}, ""); got.stdout != fmt.Sprintln(i+1) {
			t.Errorf("got %v, want %d", got, i+1)
		}
		write(t, name, "import sys\nprint(\n")
		until(t, "no template", func() bool {
			_, err := s.Fork(Request{})
			return errors.Is(err, ErrNotNow) && strings.Contains(err.Error(), "SyntaxError")
		})
		write(t, name, fmt.Sprintf("import sys\nprint(%d)\n", i+2))
	}
}

// Imports that fail only sometimes: each call gets an answer that the plain way
// may give.
func TestDiesAtImportSometimes(t *testing.T) {
	for _, end := range []string{"os._exit(9)", "sys.exit(9)", "raise SystemExit(9)"} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			name := script(t, "handler.py", "import helper\nprint('on')\n")
			write(t, filepath.Join(filepath.Dir(name), "helper.py"), "import os, random, sys\nif random.random() < 0.5:\n    "+end+"\n")
			argv := []string{interpreter(t, "python"), name}
			s, _ := start(t, Options{Command: argv, Template: []string{"python"}})
			forks := 0
			for range 30 {
				pipes := newStreams(t)
				var got result
				if c, err := s.Fork(Request{Files: pipes.theirs}); err == nil {
					forks++
					got.stdout, got.stderr = pipes.run("")
					got.status = reap(t, c)
				} else if errors.Is(err, ErrNotNow) {
					pipes.run("")
					got = plain(t, argv, Request{}, "")
				} else {
					t.Fatal(err)
				}
				if got != (result{"on\n", "", 0}) && got != (result{"", "", 9 << 8}) {
					t.Errorf("got %v, want on or exit status 9", got)
				}
			}
			t.Logf("%d of 30 calls were forked", forks)
		})
	}
}

// A template is renewed after so many forks. A call never has to do without,
// and the children of the old one are seen to their end.
func TestRenewal(t *testing.T) {
	name := script(t, "handler.py", "import os, sys\nprint(os.getppid())\nsys.stdout.flush()\nsys.stdin.read()\nsys.exit(4)\n")
	s, _ := start(t, Options{Command: []string{interpreter(t, "python"), name}, Template: []string{"python"}, MaxForks: 3})
	pipes := newStreams(t)
	first := fork(t, s, Request{Files: pipes.theirs})
	templates := map[string]bool{}
	for len(templates) < 3 {
		other := newStreams(t)
		c, err := s.Fork(Request{Files: other.theirs})
		if err != nil {
			t.Fatalf("got %v, want a child at any time", err)
		}
		out, _ := other.run("")
		reap(t, c)
		templates[out] = true
	}
	if first.template.hasEnded() {
		t.Error("the first template has ended before its last child")
	}
	pipes.run("")
	if status := reap(t, first); status.ExitStatus() != 4 {
		t.Errorf("got status %v, want 4", status)
	}
	select {
	case <-first.template.ended:
	case <-time.After(patience):
		t.Error("the first template does not end")
	}
}

// A template that grows is renewed, too.
func TestRenewalOfWhatGrows(t *testing.T) {
	name := script(t, "template.py", `
import array, os, socket
s = socket.socket(fileno=3)
s.send(b"hello 1"); s.recv(99)
s.send(b"ready")
kept = []
while True:
    message, attached, _, _ = s.recvmsg(99, 99)
    if message == b"fork":
        kept.append(b"x" * 100_000)
        if os.fork() == 0:
            os.setpgid(0, 0)
            s.send(b"forked")
            os._exit(0)
        for fd in array.array("i", attached[0][2]): os.close(fd)
    elif message:
        s.send(b"reaped %d" % os.waitpid(int(message[5:]), 0)[1])
    else:
        break
`)
	s, _ := start(t, Options{Command: []string{"true"}, Template: []string{interpreter(t, "python"), name}, MaxGrowth: 3 << 20})
	until(t, "a template", func() bool { return s.now.Load().template != nil })
	first := s.now.Load().template
	for n := 0; s.now.Load().template == first; n++ {
		if got := forked(t, s, Request{}, ""); got.status != 0 {
			t.Fatalf("got %v", got)
		}
		if n > 10*growthInterval {
			t.Fatalf("the template is not renewed after %d forks", n)
		}
	}
}

// Run ends with the last child, and may run again.
func TestRunEndsAndRunsAgain(t *testing.T) {
	name := script(t, "handler.py", "import sys\nsys.stdin.read()\nprint('x')\n")
	s, err := New(Options{Command: []string{interpreter(t, "python"), name}, Template: []string{"python"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Fork(Request{}); !errors.Is(err, ErrNotNow) {
		t.Errorf("before Run got %v, want ErrNotNow", err)
	}
	for range 2 {
		ctx, cancel := context.WithCancel(context.Background())
		ran := make(chan struct{})
		go func() { s.Run(ctx); close(ran) }()
		pipes := newStreams(t)
		c := fork(t, s, Request{Files: pipes.theirs})
		cancel()
		until(t, "the end of the server", func() bool { _, err := s.Fork(Request{}); return errors.Is(err, errNotRunning) })
		select {
		case <-ran:
			t.Error("Run has returned before the last child has ended")
		default:
		}
		if out, _ := pipes.run("go on"); out != "x\n" {
			t.Errorf("got %q, want x", out)
		}
		reap(t, c)
		select {
		case <-ran:
		case <-time.After(patience):
			t.Fatal("Run does not return")
		}
	}
}

// The pid of a child is its own until Reap returns, and its group is there from
// the start.
func TestPidAndGroup(t *testing.T) {
	for language, text := range map[string]string{
		"python": "import signal, subprocess, sys, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nsubprocess.Popen(['sleep', '1000'])\ntime.sleep(1000)\n",
		"perl":   "$SIG{TERM} = 'IGNORE'; system 'sleep 1000 &'; sleep 1000",
		"ruby":   "trap('TERM', 'IGNORE'); spawn('sleep 1000'); sleep 1000",
	} {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			s, _ := start(t, Options{Command: []string{interpreter(t, language), script(t, "handler", text)}, Template: []string{language}})
			for i := range 10 {
				pipes := newStreams(t)
				c := fork(t, s, Request{Files: pipes.theirs})
				if group, err := syscall.Getpgid(c.Pid); group != c.Pid {
					t.Errorf("got group %d (%v), want %d", group, err, c.Pid)
				}
				if i%2 == 0 { // some end before they run anything
					time.Sleep(time.Duration(i) * 10 * time.Millisecond)
				}
				syscall.Kill(-c.Pid, syscall.SIGTERM)
				syscall.Kill(-c.Pid, syscall.SIGKILL)
				pipes.run("") // ends when the whole group has
				if !readable(c.Pidfd, patience) {
					t.Fatal("the child does not end")
				}
				if err := syscall.Kill(c.Pid, 0); err != nil {
					t.Errorf("before Reap: got %v, want the pid to be taken", err)
				}
				if status, err := c.Reap(); err != nil || !status.Signaled() {
					t.Errorf("got status %v (%v), want a signal", status, err)
				}
				if err := syscall.Kill(c.Pid, 0); err != syscall.ESRCH {
					t.Errorf("after Reap: got %v, want ESRCH", err)
				}
				syscall.Close(c.Pidfd)
			}
		})
	}
}

// What a template writes once it is ready is logged.
func TestTemplateWrites(t *testing.T) {
	name := script(t, "template.py", `
import os, socket
s = socket.socket(fileno=3)
s.send(b"hello 1"); s.recv(99)
s.send(b"ready")
s.recvmsg(99, 99)
print("a line", flush=True)
os.write(2, b"another")
`)
	s, book := start(t, Options{Command: []string{"true"}, Template: []string{interpreter(t, "python"), name}})
	until(t, "a template", func() bool { return s.now.Load().template != nil })
	s.Fork(Request{Files: [3]*os.File{os.Stdin, os.Stdout, os.Stderr}})
	until(t, "the log", func() bool {
		return strings.Contains(book.String(), `stream=stdout line="a line"`) && strings.Contains(book.String(), "stream=stderr line=another")
	})
}

// Modules that the settings name are there for every child.
func TestPreload(t *testing.T) {
	for language, c := range map[string]struct{ text, module string }{
		"python": {"import sys\nprint('decimal' in sys.modules, 'json.tool' in sys.modules)\n", "json.tool"},
		"perl":   {"print defined $INC{'Text/Wrap.pm'} ? 'True' : 'False', ' True'", "Text::Wrap"},
		"ruby":   {"print defined?(OpenStruct) ? 'True' : 'False', ' True'", "ostruct"},
	} {
		t.Run(language, func(t *testing.T) {
			preload := []string{c.module}
			if language == "python" {
				preload = append(preload, "decimal")
			}
			s, _ := start(t, Options{Command: []string{interpreter(t, language), script(t, "handler", c.text)}, Template: []string{language}, Preload: preload})
			if got := forked(t, s, Request{}, ""); strings.TrimSpace(got.stdout) != "True True" {
				t.Errorf("got %v, want True True", got)
			}
		})
	}
}
