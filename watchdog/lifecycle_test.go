package watchdog

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestDrain(t *testing.T) {
	url, h, _ := serve(t, testConfig(t, "cat"))
	for _, path := range []string{"/_/health", "/_/ready"} {
		if resp, body := do(t, "GET", url+path, nil); resp.StatusCode != 200 || body != "OK" {
			t.Errorf("%s: got status %d, %q, want 200 OK", path, resp.StatusCode, body)
		}
	}
	h.Drain()
	for _, path := range []string{"/_/health", "/_/ready"} {
		if resp, _ := do(t, "GET", url+path, nil); resp.StatusCode != 503 {
			t.Errorf("%s while draining: got status %d, want 503", path, resp.StatusCode)
		}
	}
	resp, body := do(t, "POST", url, strings.NewReader("hello"))
	if resp.StatusCode != 200 || body != "hello" || !resp.Close {
		t.Errorf("while draining: got status %d, %q, close %v, want 200, hello, and the connection closed", resp.StatusCode, body, resp.Close)
	}
}

func TestLockFile(t *testing.T) {
	dir := t.TempDir()
	h, err := New(testConfig(t, "cat", "suppress_lock=false", "TMPDIR="+dir), nil)
	if err != nil {
		t.Fatal(err)
	}
	health := func() int {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/_/health", nil))
		return w.Code
	}
	if got := health(); got != http.StatusServiceUnavailable {
		t.Errorf("before Run: got health %d, want 503", got)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- h.Run(ctx) }()
	for health() != http.StatusOK {
		select {
		case err := <-ran:
			t.Fatalf("Run: %v", err)
		default:
		}
	}
	lock := filepath.Join(dir, ".lock")
	if err := os.Remove(lock); err != nil {
		t.Fatal(err)
	}
	if got := health(); got != http.StatusServiceUnavailable {
		t.Errorf("without the lock file: got health %d, want 503", got)
	}
	cancel()
	if err := <-ran; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestLockFileCannotBeWritten(t *testing.T) {
	h, err := New(testConfig(t, "cat", "suppress_lock=false", "TMPDIR="+t.TempDir()+"/missing"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "TMPDIR") {
		t.Errorf("got %v, want an error that names TMPDIR", err)
	}
}

// Kill ends what runs at once.
func TestKill(t *testing.T) {
	w := newWitness(t)
	url, h, _ := serve(t, testConfig(t, `sh -c 'trap "" TERM; exec 9>`+w.path+`; echo up >&9; sleep 60 & sleep 60'`))
	failed := make(chan error, 1)
	go func() {
		resp, err := http.Get(url)
		if err == nil {
			resp.Body.Close()
		}
		failed <- err
	}()
	w.wantSeen(t)
	h.Kill()
	w.wantGone(t)
	if err := <-failed; err == nil {
		t.Error("got an answer of a function that was killed, want none")
	}
}

// A process runs before whoever starts it knows so. Kill ends that one, too.
func TestKillMeetsAStart(t *testing.T) {
	w := newWitness(t)
	h, err := New(testConfig(t, `sh -c 'exec 9>`+w.path+`; echo up >&9; exec sleep 60'`), nil)
	if err != nil {
		t.Fatal(err)
	}
	started, known := make(chan *process), make(chan struct{})
	go func() {
		h.family.add(func() (*process, error) {
			child, pid, err := h.program.child(h.environ, [3]*os.File{h.program.null, os.Stdout, os.Stderr})
			if err != nil {
				t.Error(err)
			}
			p := &process{family: &h.family, child: child, pid: pid}
			started <- p
			<-known
			return p, err
		})
	}()
	p := <-started
	w.wantSeen(t)
	killed := make(chan struct{})
	go func() {
		h.Kill()
		close(killed)
	}()
	time.Sleep(10 * time.Millisecond) // Kill has begun, most likely
	close(known)
	<-killed
	w.wantGone(t)
	p.reap()
	p.release()
}
