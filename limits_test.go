package main

// Gateway and watchdog as processes of their own: what they hold in memory,
// and what is left of a function that misbehaves.

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// build compiles gateway and watchdog, which takes longer than the tests.
func build(t testing.TB) (gateway, fwatchdog string) {
	t.Helper()
	if testing.Short() {
		t.Skip("builds the programs and moves gigabytes")
	}
	dir := t.TempDir()
	out, err := exec.CommandContext(t.Context(), "go", "build", "-ldflags=-s -w", "-o", dir+string(filepath.Separator), ".", "./watchdog/fwatchdog").CombinedOutput()
	if err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return filepath.Join(dir, "faas"), filepath.Join(dir, "fwatchdog")
}

// A daemon is a process that serves on an address that it logs.
type daemon struct {
	*exec.Cmd
	addr string
}

// startDaemon runs a program until the test ends. pattern finds the address in
// its log.
func startDaemon(t testing.TB, pattern string, path string, env []string, args ...string) *daemon {
	t.Helper()
	cmd := exec.Command(path, args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + t.TempDir()}, env...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(stderr)
	d := &daemon{Cmd: cmd}
	address := regexp.MustCompile(pattern)
	for d.addr == "" {
		line, err := lines.ReadString('\n')
		if m := address.FindStringSubmatch(line); m != nil {
			d.addr = m[1]
		}
		if err != nil {
			t.Fatalf("%s did not serve: %v", path, err)
		}
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		io.Copy(io.Discard, lines)
	}()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Process.Signal(syscall.SIGTERM) // now
		<-drained
		cmd.Wait()
	})
	return d
}

// peak returns the most memory that the process ever had, in bytes.
func (d *daemon) peak(t testing.TB) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.Process.Pid))
	if err != nil {
		t.Skip("there is no /proc to read the memory of a process from: ", err)
	}
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	kb, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kb << 10
}

// children counts the processes that the daemon has, zombies included.
func (d *daemon) children(t testing.TB) int {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", d.Process.Pid))
	if err != nil || len(tasks) == 0 {
		t.Skip("this kernel does not tell the children of a process")
	}
	n := 0
	for _, task := range tasks {
		b, err := os.ReadFile(task)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		n += len(strings.Fields(string(b)))
	}
	return n
}

// A chaff is an endless body of which the hash is kept.
type chaff struct {
	left  int64
	block []byte
	sum   hash.Hash
}

func newChaff(n int64) *chaff {
	c := &chaff{left: n, block: make([]byte, 256<<10), sum: sha256.New()}
	rng := rand.NewChaCha8([32]byte{1})
	rng.Read(c.block)
	return c
}

func (c *chaff) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.block[:min(int64(len(c.block)), c.left)])
	c.left -= int64(n)
	c.block[n%len(c.block)]++ // no two blocks are the same
	c.sum.Write(p[:n])
	return n, nil
}

const serving = `address=(\S+)`

func startFunction(t testing.TB, fwatchdog string, settings ...string) *daemon {
	t.Helper()
	d := startDaemon(t, serving, fwatchdog, append([]string{"port=0"}, settings...))
	d.addr = strings.Replace(d.addr, "[::]", "127.0.0.1", 1)
	return d
}

func TestTwoProcesses(t *testing.T) {
	gateway, fwatchdog := build(t)
	t.Run("a GiB in bounded memory", func(t *testing.T) { testGibibyte(t, gateway, fwatchdog) })
	t.Run("bad functions", func(t *testing.T) { testBadFunctions(t, gateway, fwatchdog) })
}

func testGibibyte(t *testing.T, gateway, fwatchdog string) {
	const (
		size = 1 << 30
		most = 64 << 20
	)
	function := startFunction(t, fwatchdog, "fprocess=cat")
	g := startDaemon(t, serving, gateway, nil, "-listen=127.0.0.1:0", "-function=cat=http://"+function.addr)
	body := newChaff(size)
	req, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+g.addr+"/function/cat", io.NopCloser(body))
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got := sha256.New()
	n, err := io.Copy(got, resp.Body)
	if err != nil || n != size || resp.StatusCode != 200 || string(got.Sum(nil)) != string(body.sum.Sum(nil)) {
		t.Errorf("got %d, %d bytes, %v, want 200 and the %d bytes that were sent", resp.StatusCode, n, err, size)
	}
	t.Logf("1 GiB there and back in %v; peak memory: gateway %.1f MiB, watchdog %.1f MiB", time.Since(began).Round(time.Millisecond),
		float64(g.peak(t))/(1<<20), float64(function.peak(t))/(1<<20))
	if peak := g.peak(t); peak > most {
		t.Errorf("gateway: got a peak of %d bytes, want %d at most", peak, most)
	}
	if peak := function.peak(t); peak > most {
		t.Errorf("watchdog: got a peak of %d bytes, want %d at most", peak, most)
	}
}

// Functions that misbehave get their status, and nothing of them is left.
func testBadFunctions(t *testing.T, gateway, fwatchdog string) {
	names := []string{"cat", "exits3", "killed", "writes", "never-reads", "never-ends"}
	commands := map[string]string{
		"cat":         "cat",
		"exits3":      "sh -c 'echo sorry; exit 3'",
		"killed":      "sh -c 'kill -9 $$'",
		"writes":      "head -c 1073741824 /dev/zero",
		"never-reads": "echo done",
		"never-ends":  `sh -c "sleep 60 & sleep 60"`,
	}
	functions := map[string]*daemon{}
	args := []string{"-listen=127.0.0.1:0"}
	for _, name := range names {
		env := []string{"fprocess=" + commands[name]}
		if name == "never-ends" {
			env = append(env, "exec_timeout=1s")
		}
		functions[name] = startFunction(t, fwatchdog, env...)
		args = append(args, "-function="+name+"=http://"+functions[name].addr)
	}
	g := startDaemon(t, serving, gateway, nil, args...)
	for _, c := range []struct {
		name   string
		size   int64
		status int
		bytes  int64 // -1: not looked at
		header string
	}{
		{"cat", 0, 200, 0, ""},
		{"cat", 1, 200, 1, ""},
		{"exits3", 10, 500, 6, "3"},
		{"killed", 10, 500, 0, "137"},
		{"writes", 0, 200, 1 << 30, ""},
		{"never-reads", 64 << 20, 200, 5, ""},
		{"never-ends", 10, 504, -1, ""},
	} {
		t.Run(fmt.Sprint(c.name, " ", c.size), func(t *testing.T) {
			began := time.Now()
			req, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+g.addr+"/function/"+c.name, io.NopCloser(newChaff(c.size)))
			if err != nil {
				t.Fatal(err)
			}
			req.ContentLength = c.size
			if c.size == 0 {
				req.Body = http.NoBody
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			n, err := io.Copy(io.Discard, resp.Body)
			if err != nil || resp.StatusCode != c.status || c.bytes >= 0 && n != c.bytes || resp.Header.Get("X-Exit-Code") != c.header {
				t.Errorf("got %d, %d bytes, %v, X-Exit-Code %q, want %d, %d bytes and %q", resp.StatusCode, n, err, resp.Header.Get("X-Exit-Code"), c.status, c.bytes, c.header)
			}
			deadline := time.Now().Add(10 * time.Second)
			for functions[c.name].children(t) > 0 {
				if time.Now().After(deadline) {
					t.Fatal("a process of the function is left")
				}
				time.Sleep(20 * time.Millisecond)
			}
			t.Logf("%d after %v", resp.StatusCode, time.Since(began).Round(time.Millisecond))
		})
	}
	if resp, _ := call(t, "GET", "http://"+g.addr+"/healthz", ""); resp.StatusCode != 200 {
		t.Errorf("/healthz: got %d, want 200", resp.StatusCode)
	}
}
