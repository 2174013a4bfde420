package watchdog

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// awaitEnd waits until no process has the pid.
func awaitEnd(t *testing.T, pid int) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); syscall.Kill(pid, 0) == nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("process %d goes on", pid)
		}
	}
}

// A server that nobody calls ends, the function stays healthy, and the next
// call gets its answer from a new one.
func TestDoze(t *testing.T) {
	url, h, _ := serveUpstream(t, "doze=100ms")
	before := 0
	for range 3 {
		resp, body := do(t, "POST", url+"/x", strings.NewReader("hello"))
		pid, err := strconv.Atoi(resp.Header.Get("X-Pid"))
		if err != nil || resp.StatusCode != http.StatusTeapot || body != "hello" {
			t.Fatalf("got status %d, pid %q, %q, want 418 and hello", resp.StatusCode, resp.Header.Get("X-Pid"), body)
		}
		if pid == before {
			t.Errorf("got process %d again, want another", pid)
		}
		awaitEnd(t, pid)
		for end := time.Now().Add(10 * time.Second); !h.family.idle() && time.Now().Before(end); time.Sleep(time.Millisecond) {
		}
		if resp, _ := do(t, "GET", url+"/_/health", nil); resp.StatusCode != 200 || !h.family.idle() {
			t.Errorf("dozing: got status %d for health and processes %v, want 200 and none", resp.StatusCode, !h.family.idle())
		}
		before = pid
	}
}

// A call that comes as the process is about to doze fails as little as any
// other.
func TestDozeMeetsACall(t *testing.T) {
	url, _, log := serveUpstream(t, "doze=10ms")
	for round := 0; strings.Count(log.String(), `msg="process is up"`) < 2; round++ { // until a call has met a doze
		if round == 100 {
			t.Fatal("no call met a doze")
		}
		var callers sync.WaitGroup
		for caller := range 4 {
			callers.Go(func() {
				for i := range 25 {
					resp, err := http.Post(url, "text/plain", strings.NewReader("hello"))
					if err != nil {
						t.Error(err)
						return
					}
					resp.Body.Close()
					if resp.StatusCode != http.StatusTeapot {
						t.Errorf("got status %d, want 418", resp.StatusCode)
					}
					time.Sleep(time.Duration(5+(7*caller+3*i)%15) * time.Millisecond)
				}
			})
		}
		callers.Wait()
	}
}

// A process under use does not doze, however long its call takes.
func TestDozeWaitsForCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDozer(time.Minute)
		ctx, cancel := context.WithCancel(t.Context())
		runs := make(chan error)
		go func() {
			for ctx.Err() == nil {
				runs <- d.whileAwake(ctx, func() bool { return true }, func(awake context.Context) error {
					<-awake.Done()
					return awake.Err()
				})
			}
			close(runs)
		}()
		d.enter()
		time.Sleep(time.Hour)
		d.leave()
		time.Sleep(time.Minute - 1)
		d.mu.Lock()
		dozes := d.dozing
		d.mu.Unlock()
		if dozes {
			t.Error("dozes before its time")
		}
		time.Sleep(2 * time.Nanosecond)
		synctest.Wait()
		select {
		case err := <-runs:
			t.Errorf("got %v from a doze that no call has ended", err)
		default:
		}
		d.enter()
		if err := <-runs; err != errDoze {
			t.Errorf("got %v, want %v", err, errDoze)
		}
		d.leave()
		cancel()
		for range runs {
		}
	})
}

// A process that is deaf to SIGTERM is killed; who calls meanwhile waits.
func TestDozeKills(t *testing.T) {
	t.Parallel() // it waits for dozeGrace
	url, h, _ := serveUpstream(t, "doze=100ms", "exec_timeout=60s")
	resp, _ := do(t, "GET", url+"/deaf", nil)
	pid, err := strconv.Atoi(resp.Header.Get("X-Pid"))
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); !h.upstream.is(dozing); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("does not doze")
		}
	}
	if syscall.Kill(pid, 0) != nil {
		t.Error("the deaf process has ended by itself: the test shows nothing")
	}
	if resp, _ := do(t, "GET", url, nil); resp.StatusCode != http.StatusTeapot || resp.Header.Get("X-Pid") == fmt.Sprint(pid) {
		t.Errorf("got status %d from process %s, want 418 from another than %d", resp.StatusCode, resp.Header.Get("X-Pid"), pid)
	}
}
