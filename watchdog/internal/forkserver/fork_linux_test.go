package forkserver

// What each child has for itself, and what nobody has.

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// bytesVariable sets how much a script writes that writes a lot.
const bytesVariable = "FAAS_BYTES"

// Requests at the same time do not get each other's input, variables or output.
func TestForksAtOnce(t *testing.T) {
	for language, text := range map[string]string{
		"python": "import os, sys\nprint(os.environ['N'], sys.stdin.read(), sys.argv[1:])\n",
		"perl":   "use strict;\nmy $in = <STDIN>; print \"$ENV{N} $in ['\", join(\"', '\", @ARGV), \"']\\n\";" + strings.Repeat("\n# so long that it is read in pieces", 1000),
		"ruby":   "puts \"#{ENV['N']} #{STDIN.read} ['#{ARGV.join(\"', '\")}']\"\n",
	} {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			s, _ := start(t, Options{Command: []string{interpreter(t, language), script(t, "handler", text), "default"}, Template: []string{language}})
			var callers sync.WaitGroup
			for caller := range 4 {
				callers.Go(func() {
					for i := range 10 {
						n := strconv.Itoa(100*caller + i)
						r := Request{Env: append([]string{"N=" + n}, s.o.Env...), Args: []string{n}}
						if i%2 == 0 {
							r.Args = nil
						}
						want := fmt.Sprintf("%s %s ['%s']\n", n, n, append(r.Args, "default")[0])
						if got := forked(t, s, r, n); got.stdout != want || got.status != 0 {
							t.Errorf("got %v, want %q", got, want)
						}
					}
				})
			}
			callers.Wait()
		})
	}
}

// Nothing of a request is in the memory of the template, from where the next
// child would have it.
func TestNothingLeftInTemplate(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("reading another process's memory needs root")
	}
	for language, text := range map[string]string{
		"python": "import os, sys\nprint(os.environ['SECRET'] + sys.stdin.read() + sys.argv[1])\n",
		"perl":   "print $ENV{SECRET}, <STDIN>, \"$ARGV[0]\\n\";",
		"ruby":   "puts ENV['SECRET'] + STDIN.read + ARGV[0]\n",
	} {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			s, _ := start(t, Options{Command: []string{interpreter(t, language), script(t, "handler", text)}, Template: []string{language}, Env: environment()})
			secret := fmt.Sprintf("%x", sha256.Sum256([]byte(t.Name())))
			r := Request{Env: append(environment(), "SECRET="+secret), Args: []string{secret}}
			for range 5 {
				if got := forked(t, s, r, secret); got.stdout != secret+secret+secret+"\n" {
					t.Errorf("got %v", got)
				}
			}
			pid := s.now.Load().template.pid
			if memory := memoryOf(t, pid); bytes.Contains(memory, []byte(secret[:20])) {
				t.Error("the template has the request in its memory")
			} else if !bytes.Contains(memory, []byte("GREETING=hello")) {
				t.Error("the template does not have its own environment in its memory: the test looks in the wrong place")
			}
		})
	}
}

// memoryOf returns what process pid can write to.
func memoryOf(t *testing.T, pid int) (all []byte) {
	t.Helper()
	proc := "/proc/" + strconv.Itoa(pid)
	maps, err := os.ReadFile(proc + "/maps")
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open(proc + "/mem")
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		var mode string
		if fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); !strings.HasPrefix(mode, "rw") {
			continue
		}
		b := make([]byte, to-from)
		n, _ := mem.ReadAt(b, from) // some cannot be read
		all = append(all, b[:n]...)
	}
	return all
}

// Each child has random numbers of its own, also where imports have used some.
func TestRandomNumbers(t *testing.T) {
	for language, c := range map[string]struct{ text, helper, file string }{
		"python": {"import random, uuid, helper, numpy.random, os\nprint(random.random(), uuid.uuid4(), os.urandom(8), numpy.random.state, sep='\\n')\n", "import random\nrandom.random()\n", "helper.py"},
		"perl":   {"use FindBin; use lib $FindBin::Bin; use Helper; print rand()", "rand(); 1", "Helper.pm"},
		"ruby":   {"require_relative 'helper'\nputs rand, Random.new.rand, SecureRandom.hex, [*1..50].shuffle.join(' ')\n", "rand\nrequire 'securerandom'\nSecureRandom.hex\n", "helper.rb"},
	} {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			name := script(t, "handler", c.text)
			write(t, filepath.Join(filepath.Dir(name), c.file), c.helper)
			if language == "python" { // stands for numpy, whose state is seeded when it is imported
				os.Mkdir(filepath.Join(filepath.Dir(name), "numpy"), 0o755)
				write(t, filepath.Join(filepath.Dir(name), "numpy", "__init__.py"), "")
				write(t, filepath.Join(filepath.Dir(name), "numpy", "random.py"), "import os\ndef seed():\n    global state\n    state = os.urandom(8)\nseed()\n")
			}
			s, _ := start(t, Options{Command: []string{interpreter(t, language), name}, Template: []string{language}})
			seen := map[string]bool{}
			for range 8 {
				got := forked(t, s, Request{}, "")
				numbers := strings.Split(strings.TrimSpace(got.stdout), "\n")
				for _, n := range numbers {
					if seen[n] || got.status != 0 || n == "" {
						t.Errorf("got %q again, of %v", n, got)
					}
					seen[n] = true
				}
			}
		})
	}
}

// An environment that is longer than a packet, and than a pipe, comes through;
// one that no process can have is refused as for any process.
func TestLargeEnvironments(t *testing.T) {
	text := "import os, sys\nprint(sum(len(k) + len(v) for k, v in os.environb.items() if k.startswith(b'Http_')), len(sys.argv[1]))\n"
	s, _ := start(t, Options{Command: []string{interpreter(t, "python"), script(t, "handler", text)}, Template: []string{"python"}, Env: environment()})
	env := environment()
	total := 0
	for i := range 15 {
		name, value := "Http_"+strconv.Itoa(i), strings.Repeat("x", 120_000)
		env = append(env, name+"="+value)
		total += len(name) + len(value)
	}
	r := Request{Env: env, Args: []string{strings.Repeat("y", 100_000)}}
	if got := forked(t, s, r, ""); got.stdout != fmt.Sprintf("%d 100000\n", total) {
		t.Errorf("got %v, want %d 100000", got, total)
	}
	for name, r := range map[string]Request{
		"variable": {Env: []string{"X=" + strings.Repeat("x", 128<<10-2)}},
		"argument": {Args: []string{strings.Repeat("x", 128<<10)}},
		"total":    {Env: append(env, env...)},
	} {
		r.Files = [3]*os.File{os.Stdin, os.Stdout, os.Stderr}
		if _, err := s.Fork(r); !errors.Is(err, syscall.E2BIG) {
			t.Errorf("%s too large: got %v, want E2BIG", name, err)
		}
		attr := syscall.ProcAttr{Env: r.Env, Files: []uintptr{0, 1, 2}}
		if _, err := syscall.ForkExec("/bin/true", append([]string{"true"}, r.Args...), &attr); err != syscall.E2BIG {
			t.Errorf("%s too large: the plain way got %v, want E2BIG", name, err)
		}
	}
	for _, r := range []Request{{Env: []string{"X=\x00"}}, {Args: []string{"\x00"}}, {Dir: "\x00"}} {
		if _, err := s.Fork(r); !errors.Is(err, errNUL) {
			t.Errorf("got %v, want %v", err, errNUL)
		}
	}
}

// Output comes as it is written, however much there is.
func TestMuchOutput(t *testing.T) {
	count := 32 << 20
	if v := os.Getenv(bytesVariable); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil {
			t.Fatalf("%s: %v", bytesVariable, err)
		}
		count = n
	}
	for language, text := range map[string]string{
		"python": "import sys\nn = int(sys.argv[1])\nb = bytes(range(256)) * 4096\nwhile n > 0:\n    n -= sys.stdout.buffer.write(b[:n])\n",
		"perl":   "my ($n, $b) = ($ARGV[0], pack('C*', 0 .. 255) x 4096); while ($n > 0) { print substr($b, 0, $n); $n -= length $b }",
		"ruby":   "n = ARGV[0].to_i\nb = (0..255).to_a.pack('C*') * 4096\nn -= STDOUT.write(b.byteslice(0, n)) while n > 0\n",
	} {
		t.Run(language, func(t *testing.T) {
			s, _ := start(t, Options{Command: []string{interpreter(t, language), script(t, "handler", text), strconv.Itoa(count)}, Template: []string{language}})
			pipes := newStreams(t)
			c := fork(t, s, Request{Files: pipes.theirs})
			for _, f := range append(pipes.theirs[:], pipes.in) {
				f.Close()
			}
			sum := sha256.New()
			n, err := io.Copy(sum, pipes.out)
			if err != nil || n != int64(count) {
				t.Errorf("got %d bytes (%v), want %d", n, err, count)
			}
			want := sha256.New()
			block := make([]byte, 1<<20)
			for i := range block {
				block[i] = byte(i)
			}
			for left := count; left > 0; left -= len(block) {
				want.Write(block[:min(left, len(block))])
			}
			if !bytes.Equal(sum.Sum(nil), want.Sum(nil)) {
				t.Error("got other bytes than were written")
			}
			if status := reap(t, c); status != 0 {
				t.Errorf("got status %v, want 0", status)
			}
		})
	}
}
