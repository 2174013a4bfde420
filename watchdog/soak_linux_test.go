package watchdog

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// soakVariable sets how many invocations the soak makes; the full figure is
// 10000.
const soakVariable = "FAAS_SOAK"

// What exists before and after a soak.
type census struct{ children, processes, descriptors, goroutines int }

func (c census) String() string {
	return fmt.Sprintf("%d children, %d processes in the namespace, %d descriptors, %d goroutines", c.children, c.processes, c.descriptors, c.goroutines)
}

func (c census) exceeds(other census) bool {
	return c.children > other.children || c.processes > other.processes ||
		c.descriptors > other.descriptors || c.goroutines > other.goroutines
}

func takeCensus(t *testing.T) census {
	t.Helper()
	pids, err := children()
	if err != nil {
		t.Fatal(err)
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	c := census{children: len(pids), descriptors: len(fds), goroutines: runtime.NumGoroutine()}
	if os.Getpid() == 1 { // elsewhere other programs come and go
		all, err := filepath.Glob("/proc/[0-9]*")
		if err != nil {
			t.Fatal(err)
		}
		c.processes = len(all)
	}
	return c
}

// A third of the invocations times out with grandchildren, some of which have
// left the group, a third fails, a third succeeds. Afterwards there is no
// process, no zombie, no descriptor and no goroutine more than before.
func TestSoak(t *testing.T) {
	soak(t, testConfig(t, `sh -c 'case $Http_Query in
		slow) sleep 60 & sleep 60 ;;
		escape) setsid sleep 60 & sleep 60 & sleep 60 ;;
		fail) cat >/dev/null; exit 3 ;;
		ok) cat ;;
	esac'`))
}

// soak calls a function that does what the query says.
func soak(t *testing.T, cfg Config) {
	count := 600
	if v := os.Getenv(soakVariable); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil {
			t.Fatalf("%s: %v", soakVariable, err)
		}
		count = n
	}
	// os/signal keeps one goroutine for good, from its first use on.
	warm := make(chan os.Signal, 1)
	signal.Notify(warm, syscall.SIGCHLD)
	signal.Stop(warm)
	before := takeCensus(t)
	var got [3]atomic.Int64
	t.Run("invocations", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		var reaping sync.WaitGroup
		// As in the program, after Run: a template that is renewed at the end leaves
		// an orphan, too.
		t.Cleanup(func() { cancel(); reaping.Wait() })
		url, h, _ := serve(t, cfg)
		if err := h.AdoptOrphans(); err != nil {
			t.Fatal(err)
		}
		reaping.Go(func() { h.ReapOrphans(ctx) })
		if len(cfg.ForkServer) > 0 {
			awaitTemplate(t, url)
		}

		client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
		defer client.CloseIdleConnections()
		var next atomic.Int64
		var callers sync.WaitGroup
		for range 8 {
			callers.Go(func() {
				for {
					i := int(next.Add(1)) - 1
					if i >= count {
						return
					}
					kind := [][2]string{{"ok", "200"}, {"fail", "500"}, {"slow", "504"}}[i%3]
					if i%9 == 8 {
						kind[0] = "escape"
					}
					req, _ := http.NewRequest("POST", url+"/?"+kind[0], strings.NewReader("hello"))
					if kind[1] == "504" {
						req.Header.Set("X-Timeout", "40ms")
					}
					resp, err := client.Do(req)
					if err != nil {
						t.Error(err)
						continue
					}
					resp.Body.Close()
					if status := strconv.Itoa(resp.StatusCode); status != kind[1] {
						t.Errorf("%s: got status %s, want %s", kind[0], status, kind[1])
					}
					if code := resp.Header.Get("X-Exit-Code"); kind[0] == "fail" && code != "3" {
						t.Errorf("got exit code %q, want 3", code)
					}
					got[i%3].Add(1)
				}
			})
		}
		callers.Wait()
	})
	after := takeCensus(t)
	for end := time.Now().Add(10 * time.Second); after.exceeds(before) && time.Now().Before(end); after = takeCensus(t) {
		runtime.GC() // closes files that nothing refers to any more
		time.Sleep(10 * time.Millisecond)
	}
	if after.exceeds(before) {
		t.Errorf("after: %s; want no more than before: %s", after, before)
	}
	t.Logf("as PID %d: %d invocations: %d succeeded, %d failed, %d timed out", os.Getpid(), count, got[0].Load(), got[1].Load(), got[2].Load())
	t.Logf("before: %s", before)
	t.Logf("after:  %s", after)
}

// The same as PID 1 of a PID namespace, where orphans come without asking.
func TestSoakAsPID1(t *testing.T) {
	if os.Getpid() == 1 {
		t.Skip("is PID 1 already")
	}
	missing := ""
	if os.Getuid() != 0 {
		missing = "root"
	} else if _, err := exec.LookPath("unshare"); err != nil {
		missing = "unshare (package util-linux)"
	}
	if missing != "" {
		if os.Getenv("FAAS_E2E") == "required" {
			t.Fatalf("a PID namespace needs %s", missing)
		}
		t.Skipf("a PID namespace needs %s", missing)
	}
	cmd := exec.CommandContext(t.Context(), "unshare", "--pid", "--fork", "--mount-proc", os.Args[0], "-test.run=^TestSoak$", "-test.v")
	out, err := cmd.CombinedOutput()
	for line := range bytes.Lines(out) {
		if bytes.Contains(line, []byte("soak_linux_test.go")) {
			t.Logf("%s", bytes.TrimSpace(line))
		}
	}
	if err != nil {
		t.Errorf("got %v, want success:\n%s", err, out)
	}
}
