package forkserver

// Nothing is left of what was forked.

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// soakVariable sets how many forks the soak makes.
const soakVariable = "FAAS_SOAK"

// What exists before and after a soak.
type census struct{ children, descriptors, goroutines int }

func takeCensus(t *testing.T, pid int) (c census) {
	t.Helper()
	v, err := inspect(pid)
	if err != nil {
		t.Fatal(err)
	}
	c = census{children: len(v.children), descriptors: len(v.files)}
	if pid == os.Getpid() {
		c.goroutines = runtime.NumGoroutine()
	}
	return c
}

func (c census) exceeds(other census) bool {
	return c.children > other.children || c.descriptors > other.descriptors || c.goroutines > other.goroutines
}

// Calls that succeed, fail, are killed with what they have started, or ask for
// too much: afterwards there is no process, descriptor or goroutine more than
// before, here and in the template, and the template has not grown.
func TestSoak(t *testing.T) {
	count := 1000
	if v := os.Getenv(soakVariable); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil {
			t.Fatalf("%s: %v", soakVariable, err)
		}
		count = n
	}
	// The first process starts a goroutine of package os for good.
	exec.Command("true").Run()
	before := takeCensus(t, os.Getpid())
	// In every environment, so that what is left could be found.
	mark := fmt.Sprintf("FORKSERVER_SOAK=%d.%d", os.Getpid(), time.Now().UnixNano())
	t.Run("calls", func(t *testing.T) {
		s, book := start(t, Options{Template: []string{"python"}, Command: []string{interpreter(t, "python"), script(t, "handler.py", `
import json, os, subprocess, sys, time
kind = os.environ["KIND"]
if kind == "ok": print(json.dumps(len(sys.stdin.read())))
elif kind == "exit": sys.exit(3)
elif kind == "raise": raise ValueError(kind)
elif kind == "signal": os.kill(os.getpid(), 9)
elif kind == "group":
    subprocess.Popen(["sleep", "1000"])
    os.write(1, b"x")
    time.sleep(1000)
elif kind == "leave":
    subprocess.Popen(["sleep", "1000"])
`)}, MaxForks: 10 * count})
		var middle atomic.Int64
		run := func(i int) {
			kinds := []string{"ok", "exit", "ok", "raise", "ok", "signal", "ok", "group", "ok", "leave", "ok", "large", "ok", "refused"}
			want := map[string]syscall.WaitStatus{"exit": 3 << 8, "raise": 1 << 8, "signal": 9, "group": 9}
			kind := kinds[i%len(kinds)]
			r := Request{Env: []string{"PATH=" + os.Getenv("PATH"), "KIND=" + kind, mark}}
			switch kind {
			case "large":
				r.Env[1] = "KIND=ok"
				for n := range 4 {
					r.Env = append(r.Env, fmt.Sprintf("X%d=%s", n, strings.Repeat("x", 100_000)))
				}
			case "refused":
				r.Env = append(r.Env, "X="+strings.Repeat("x", 200_000))
			}
			pipes := newStreams(t)
			r.Files = pipes.theirs
			c, err := s.Fork(r)
			if err != nil {
				if kind != "refused" {
					t.Error(err)
				}
				pipes.run("")
				return
			}
			for _, f := range pipes.theirs {
				f.Close()
			}
			pipes.in.Close()
			if kind == "group" { // what it has started is up
				pipes.out.Read(make([]byte, 1))
				syscall.Kill(-c.Pid, syscall.SIGKILL)
			}
			if status := reap(t, c); status != want[kind] {
				t.Errorf("%s: got status %#x, want %#x", kind, int(status), int(want[kind]))
			}
			pipes.out.Close()
			pipes.err.Close()
		}
		until(t, "a template", func() bool { return s.now.Load().template != nil })
		first := s.now.Load().template
		template := takeCensus(t, first.pid)
		var next atomic.Int64
		var callers sync.WaitGroup
		for range 8 {
			callers.Go(func() {
				for {
					i := int(next.Add(1)) - 1
					if i >= count {
						return
					}
					if i == count/5 {
						middle.Store(resident(first.pid))
					}
					run(i)
				}
			})
		}
		callers.Wait()
		if s.now.Load().template != first {
			t.Errorf("got another template, want the first to last:\n%s", book)
		}
		if after := takeCensus(t, first.pid); after.exceeds(template) {
			t.Errorf("template after: %+v; want no more than before: %+v", after, template)
		}
		grown := resident(first.pid) - middle.Load()
		if t.Logf("%d calls; the template grew by %d KiB in the last four fifths, to %d KiB", count, grown>>10, resident(first.pid)>>10); grown > 256<<10 {
			t.Errorf("the template grew by %d KiB, want 256 at most", grown>>10)
		}
	})
	var after census
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		runtime.GC() // closes files that nothing refers to any more
		if after = takeCensus(t, os.Getpid()); !after.exceeds(before) || time.Now().After(end) {
			break
		}
	}
	if after.exceeds(before) {
		t.Errorf("after: %+v; want no more than before: %+v", after, before)
	}
	if left := marked(mark); len(left) > 0 {
		t.Errorf("processes are left: %v", left)
	}
	t.Logf("before: %+v, after: %+v", before, after)
}

// marked returns the processes with a variable in their environment.
func marked(variable string) (pids []string) {
	all, _ := names("/proc")
	for _, pid := range all {
		if b, err := os.ReadFile("/proc/" + pid + "/environ"); err == nil && strings.Contains(string(b), variable) {
			pids = append(pids, pid)
		}
	}
	return pids
}
