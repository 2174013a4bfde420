package watchdog

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The children of a program that is killed end with it, and must not end
// before: the system counts with the thread that started them.
func TestChildrenOutliveThreads(t *testing.T) {
	h, err := New(testConfig(t, "sleep 600"), nil)
	if err != nil {
		t.Fatal(err)
	}
	const threads = 40
	var (
		starting sync.WaitGroup
		mu       sync.Mutex
		started  []*process
	)
	r, w, err := newPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(r)
	for range threads {
		starting.Go(func() {
			// Reading holds this thread, so that each goroutine has one of its own.
			syscall.Read(r, make([]byte, 1))
			p, err := h.program.start(h.environ, wiring{}, &h.family)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			started = append(started, p)
		})
	}
	syscall.Close(w) // all of them read EOF, in whatever order
	starting.Wait()
	defer func() {
		for _, p := range started {
			p.attach()
			p.kill()
			<-p.done
			p.release()
		}
	}()
	for range 20 { // the threads idle, or find other work
		runtime.GC()
		time.Sleep(25 * time.Millisecond)
	}
	for _, p := range started {
		if p.endsWithin(0) {
			t.Errorf("process %d has ended, want it to go on", p.pid)
		}
	}
}

// leave starts a process as a watchdog does that is gone by now, and returns it
// and its input.
func leave(t *testing.T, mark, command string) (*exec.Cmd, io.Writer) {
	t.Helper()
	cmd := exec.Command("sh", "-c", command)
	cmd.Env = append(os.Environ(), markVariable+"="+mark)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd, in
}

// What a program left behind ends with the next Run; what has a live owner, or
// none, does not.
func TestEndLeftovers(t *testing.T) {
	_, _, ok := processStat(os.Getpid())
	if !ok {
		t.Fatal("got no start time of this process")
	}
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	w := newWitness(t)
	hold := `exec 9>` + w.path + `; echo up >&9; read line`
	for _, tt := range []struct {
		name, mark string
		ends       bool
	}{
		{"of this program", owner() + "-1", false},
		{"without a mark", "", false},
		{"of nobody", "nobody-1", false},
		{"of process 0", "0.1-1", false},
		{"of a program that is gone", strconv.Itoa(gone.Process.Pid) + ".1-1", true},
		{"of one that had this pid", strconv.Itoa(os.Getpid()) + ".1-1", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cmd, in := leave(t, tt.mark, hold)
			w.wantSeen(t)
			log := &logBuffer{}
			endLeftovers(newTestLog(log))
			// Another test's Run may find it first, but none twice.
			n := strings.Count(log.String(), fmt.Sprintf("pid=%d\n", cmd.Process.Pid))
			if n > 1 || n > 0 && !tt.ends {
				t.Errorf("got log %q with %d lines about the process %d", log, n, cmd.Process.Pid)
			}
			if !tt.ends {
				if _, err := fmt.Fprintln(in); err != nil {
					t.Errorf("got %v, want the process to read on", err)
				}
				if err := cmd.Wait(); err != nil {
					t.Errorf("got %v, want the process to end by itself", err)
				}
			}
			w.wantGone(t)
		})
	}
}
