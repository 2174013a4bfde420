package watchdog

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

// Each process that was started ahead serves one request, and only one.
func TestPreforkServesOnce(t *testing.T) {
	w := newWitness(t)
	url, _, _ := serve(t, testConfig(t, `sh -c 'echo up >`+w.path+`; read x; echo $x $$'`, "cgi_headers=false", "prefork=2"))
	seen := map[string]bool{}
	for i := range 12 {
		if i < 2 {
			w.wantSeen(t)
		}
		resp, body := do(t, "POST", url, strings.NewReader(fmt.Sprintf("%d\n", i)))
		number, pid, _ := strings.Cut(body, " ")
		if resp.StatusCode != 200 || number != fmt.Sprint(i) {
			t.Errorf("got status %d, %q, want 200 and %d", resp.StatusCode, body, i)
		}
		if seen[pid] {
			t.Errorf("process %s served twice", pid)
		}
		seen[pid] = true
	}
}

func TestPreforkBodies(t *testing.T) {
	url, _, _ := serve(t, testConfig(t, "cat", "cgi_headers=false", "prefork=3"))
	for _, size := range []int{0, 6, 5000, 3 << 20} {
		want := strings.Repeat("x", size)
		if resp, got := do(t, "POST", url, strings.NewReader(want)); resp.StatusCode != 200 || got != want {
			t.Errorf("got status %d and %d bytes, want 200 and %d", resp.StatusCode, len(got), size)
		}
	}
}

// The limit counts from the hand-over: waiting for a request takes nothing of
// it.
func TestPreforkLimit(t *testing.T) {
	w := newWitness(t)
	url, _, _ := serve(t, testConfig(t, `sh -c 'echo up >`+w.path+`; cat; sleep 60 & sleep 60'`, "cgi_headers=false", "prefork=1", "exec_timeout=300ms"))
	w.wantSeen(t)
	started := time.Now()
	resp, _ := do(t, "POST", url, strings.NewReader("x"))
	if took := time.Since(started); resp.StatusCode != 504 || took < 300*time.Millisecond {
		t.Errorf("got status %d after %s, want 504 after 300ms", resp.StatusCode, took)
	}
}

// Processes that do not wait for a request make prefork turn itself off.
func TestPreforkTurnsOff(t *testing.T) {
	h, err := New(testConfig(t, `sh -c 'echo early >&2; echo hi; exit 3'`, "cgi_headers=false", "prefork=2"), nil)
	if err != nil {
		t.Fatal(err)
	}
	log := &logBuffer{}
	h.ready.log = newTestLog(log)
	h.ready.run(t.Context()) // returns when prefork is off
	for _, want := range []string{"turns itself off", "exit code 3", "line=early"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("got log %q, want %q", log, want)
		}
	}
	if p := h.ready.take(); p != nil {
		t.Errorf("got process %d, want none", p.pid)
	}
}

// A process that ends between its hand-over and its use counts, and is none to
// use.
func TestPreforkEndsAtHandover(t *testing.T) {
	h, err := New(testConfig(t, `sh -c 'exit 3'`, "cgi_headers=false", "prefork=1"), nil)
	if err != nil {
		t.Fatal(err)
	}
	log := &logBuffer{}
	h.ready.log = newTestLog(log)
	ended, err := h.ready.start()
	if err != nil {
		t.Fatal(err)
	}
	ended.attach()
	<-ended.done
	handed := make(chan struct{})
	go func() {
		h.ready.handover <- ended
		close(handed)
	}()
	for waiting := true; waiting; {
		if p := h.ready.take(); p != nil {
			t.Fatal("got a process that has ended, want none")
		}
		select {
		case <-handed:
			waiting = false
		default:
			runtime.Gosched()
		}
	}
	if got := h.ready.spoilt.Load(); got != 1 || !strings.Contains(log.String(), "exit code 3") {
		t.Errorf("got a count of %d and log %q, want 1 and the exit code", got, log)
	}
}

// With prefork off the function still answers.
func TestPreforkOffServes(t *testing.T) {
	url, _, _ := serve(t, testConfig(t, "echo hi", "cgi_headers=false", "prefork=1"))
	for range 10 {
		if resp, body := do(t, "GET", url, nil); resp.StatusCode != 200 || body != "hi\n" {
			t.Fatalf("got status %d, %q, want 200, hi", resp.StatusCode, body)
		}
	}
}
