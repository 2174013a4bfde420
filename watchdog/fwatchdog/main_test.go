package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestRunExitCodes(t *testing.T) {
	for _, tt := range []struct {
		name           string
		args           []string
		env            map[string]string
		code           int
		stdout, stderr string
	}{
		{name: "version", args: []string{"-version"}, code: 0, stdout: "devel"},
		{name: "help", args: []string{"-help"}, code: 0, stderr: "-run-healthcheck"},
		{name: "unknown flag", args: []string{"-x"}, code: 2, stderr: "-x"},
		{name: "argument", args: []string{"cat"}, code: 2, stderr: "environment"},
		{name: "no command", code: 2, stderr: "fprocess: "},
		{name: "all that is wrong", env: map[string]string{"fprocess": "no-such-command", "port": "x"}, code: 2, stderr: "port: "},
		{name: "no health", args: []string{"-run-healthcheck"}, env: map[string]string{"port": "1"}, code: 1, stderr: "refused"},
		{name: "bad port", args: []string{"-run-healthcheck"}, env: map[string]string{"port": "x y"}, code: 1, stderr: "port"},
		{name: "no directory for the lock", env: map[string]string{"fprocess": "cat", "port": "0", "TMPDIR": "/nonexistent"}, code: 1, stderr: "TMPDIR"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr strings.Builder
			code := run(t.Context(), tt.args, func(name string) string { return tt.env[name] }, &stdout, &stderr, nil)
			if code != tt.code || !strings.Contains(stdout.String(), tt.stdout) || !strings.Contains(stderr.String(), tt.stderr) {
				t.Errorf("got exit code %d, %q, %q, want %d, %q, %q", code, stdout.String(), stderr.String(), tt.code, tt.stdout, tt.stderr)
			}
		})
	}
}

// Function images hold nothing but what the standard library brings.
func TestStandardLibraryOnly(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Fields(string(out))
	if !slices.Contains(got, "faas/watchdog") {
		t.Errorf("got dependencies %q, want faas/watchdog among them", got)
	}
	for _, path := range got {
		if !strings.HasPrefix(path, "faas/") {
			t.Errorf("got dependency %s, want this project's own alone", path)
		}
	}
}

// build builds the binary as the images have it.
func build(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "fwatchdog")
	cmd := exec.Command("go", "build", "-trimpath", "-tags", "nethttpomithttp2", "-ldflags", "-s -w -X main.version=v1.2.3 -X main.revision=0a1b2c", "-o", name, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return name
}

// A server is a running fwatchdog.
type server struct {
	cmd    *exec.Cmd
	url    string
	ended  chan error
	copied chan struct{}
}

func start(t *testing.T, binary string, settings ...string) *server {
	t.Helper()
	cmd := exec.Command(binary)
	cmd.Env = append(os.Environ(), append([]string{"port=0", "suppress_lock=true"}, settings...)...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &server{cmd: cmd, ended: make(chan error, 1), copied: make(chan struct{})}
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		if m := regexp.MustCompile(`msg=listening address=\S*:(\d+)`).FindStringSubmatch(lines.Text()); m != nil {
			s.url = "http://127.0.0.1:" + m[1]
			break
		}
	}
	go func() {
		io.Copy(io.Discard, stderr)
		s.ended <- cmd.Wait()
		close(s.copied)
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-s.copied
	})
	if s.url == "" {
		t.Fatal("the server did not say where it listens")
	}
	return s
}

func (s *server) signal(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
}

// wantExit waits for the server to exit with this code.
func (s *server) wantExit(t *testing.T, code int) {
	t.Helper()
	select {
	case <-s.ended:
		if got := s.cmd.ProcessState.ExitCode(); got != code {
			t.Errorf("got exit code %d, want %d", got, code)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("it does not exit")
	}
}

// kilobytes reads a figure of /proc/PID/status.
func (s *server) kilobytes(t *testing.T, name string) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(name + `:\s+(\d+) kB`).FindSubmatch(b)
	if m == nil {
		t.Fatalf("no %s in %s", name, b)
	}
	n, _ := strconv.Atoi(string(m[1]))
	return n
}

func get(url string) (status int, body string, err error) {
	resp, err := http.Get(url)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// gate returns a pipe by name that a function blocks on until the test writes.
func gate(t *testing.T) (path string, open func()) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "gate")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return path, func() { f.WriteString("go\n") }
}

func TestBinary(t *testing.T) {
	binary := build(t)

	t.Run("size", func(t *testing.T) {
		info, err := os.Stat(binary)
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() >= 7e6 {
			t.Errorf("got %d bytes, want less than 7 MB", info.Size())
		}
		t.Logf("%d bytes", info.Size())
	})

	t.Run("version", func(t *testing.T) {
		out, err := exec.Command(binary, "-version").Output()
		want := "fwatchdog v1.2.3 (revision 0a1b2c, " + runtime.Version() + ")\n"
		if err != nil || string(out) != want {
			t.Errorf("got %q, %v, want %q", out, err, want)
		}
	})

	t.Run("health check", func(t *testing.T) {
		s := start(t, binary, "fprocess=cat")
		cmd := exec.Command(binary, "-run-healthcheck")
		_, port, _ := net.SplitHostPort(strings.TrimPrefix(s.url, "http://"))
		cmd.Env = []string{"port=" + port}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("got %v, %s, want success", err, out)
		}
	})

	// SIGTERM: unhealthy at once, still serving, what is in flight is
	// finished, and then it exits.
	t.Run("drain", func(t *testing.T) {
		in, open := gate(t)
		s := start(t, binary, "fprocess=sh -c 'case $Http_Path in /slow) read x <"+in+"; echo done ;; *) echo quick ;; esac'", "healthcheck_interval=5s")
		answered := make(chan string, 1)
		go func() {
			_, body, err := get(s.url + "/slow")
			answered <- fmt.Sprint(body, err)
		}()
		s.waitForChild(t)
		s.signal(t)
		for {
			status, _, err := get(s.url + "/_/health")
			if err != nil {
				t.Fatalf("not serving while it drains: %v", err)
			}
			if status == http.StatusServiceUnavailable {
				break
			}
		}
		if status, body, err := get(s.url + "/"); status != 200 || body != "quick\n" || err != nil {
			t.Errorf("while draining: got %d, %q, %v, want 200, quick", status, body, err)
		}
		open()
		if got := <-answered; got != "done\n<nil>" {
			t.Errorf("in flight: got %q, want done", got)
		}
		s.wantExit(t, 0)
	})

	// A connection that was accepted before the listener closed gets an answer to what
	// it sends right after.
	t.Run("drain, last request", func(t *testing.T) {
		s := start(t, binary, "fprocess=cat", "healthcheck_interval=50ms")
		addr := strings.TrimPrefix(s.url, "http://")
		last, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer last.Close()
		s.signal(t)
		for {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				break // the listener is closed
			}
			c.Close()
		}
		fmt.Fprint(last, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi")
		resp, err := http.ReadResponse(bufio.NewReader(last), nil)
		if err != nil {
			t.Fatalf("got no answer: %v", err)
		}
		if body, err := io.ReadAll(resp.Body); resp.StatusCode != 200 || string(body) != "hi" || err != nil {
			t.Errorf("got %d %q, %v, want 200 hi", resp.StatusCode, body, err)
		}
		s.wantExit(t, 0)
	})

	// The binary and its function are all that is in an image from scratch: no /tmp.
	t.Run("from scratch", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("only root can change the root")
		}
		root, wrapper := t.TempDir(), filepath.Join(t.TempDir(), "chroot")
		copied, err := os.ReadFile(binary)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.Mkdir(filepath.Join(root, "dev"), 0o755),
			syscall.Mknod(filepath.Join(root, "dev", "null"), syscall.S_IFCHR|0o666, 1<<8|3), // as Docker makes it
			os.WriteFile(filepath.Join(root, "fwatchdog"), copied, 0o755),
			os.WriteFile(wrapper, []byte("#!/bin/sh\nexec chroot "+root+" /fwatchdog\n"), 0o755)); err != nil {
			t.Fatal(err)
		}
		s := start(t, wrapper, "fprocess=/fwatchdog -version", "suppress_lock=false", "TMPDIR=", "healthcheck_interval=0")
		if status, body, err := get(s.url); status != 200 || !strings.Contains(body, "v1.2.3") || err != nil {
			t.Errorf("got %d %q, %v, want 200 and the version", status, body, err)
		}
		if status, _, err := get(s.url + "/_/health"); status != 200 || err != nil {
			t.Errorf("got health %d, %v, want 200", status, err)
		}
		s.signal(t)
		s.wantExit(t, 0)
	})

	// An upgraded connection is in flight like any other.
	t.Run("drain upgraded", func(t *testing.T) {
		upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			conn, buf, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
			io.Copy(conn, buf)
		}))
		defer upstream.Close()
		s := start(t, binary, "fprocess=sleep 60", "mode=http", "upstream_url="+upstream.URL, "healthcheck_interval=0s")
		c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(30 * time.Second))
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		in := bufio.NewReader(c)
		resp, err := http.ReadResponse(in, nil)
		if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("got %v, %v, want 101", resp, err)
		}
		s.signal(t)
		for err == nil {
			_, _, err = get(s.url + "/_/health") // until nobody listens
		}
		for range 30 {
			if _, err := io.WriteString(c, "ping\n"); err != nil {
				t.Fatal(err)
			}
			if line, err := in.ReadString('\n'); err != nil || line != "ping\n" {
				t.Fatalf("got %q, %v after the listener closed, want an echo", line, err)
			}
			time.Sleep(10 * time.Millisecond) // time to be cut off
		}
		c.Close()
		s.wantExit(t, 0)
	})

	// A second SIGTERM does not wait for what is in flight.
	t.Run("second signal", func(t *testing.T) {
		in, _ := gate(t)
		s := start(t, binary, "fprocess=sh -c 'trap \"\" TERM; read x <"+in+"'", "healthcheck_interval=1h", "exec_timeout=0")
		failed := make(chan error, 1)
		go func() {
			_, _, err := get(s.url)
			failed <- err
		}()
		s.waitForChild(t)
		s.signal(t)
		for {
			if status, _, err := get(s.url + "/_/health"); err != nil || status == http.StatusServiceUnavailable {
				break
			}
		}
		s.signal(t)
		if err := <-failed; err == nil {
			t.Error("got an answer of a function that was killed, want none")
		}
		s.wantExit(t, 0)
	})

	t.Run("memory", func(t *testing.T) {
		if runtime.GOOS != "linux" {
			t.Skip("needs /proc")
		}
		s := start(t, binary, "fprocess=sh -c 'case $Http_Path in /large) head -c 104857600 /dev/zero ;; *) cat ;; esac'")
		if status, _, err := get(s.url + "/_/health"); status != 200 {
			t.Fatalf("got health %d, %v", status, err)
		}
		if got := s.kilobytes(t, "VmRSS"); got >= 12<<10 {
			t.Errorf("idle: got %d kB, want less than 12 MiB", got)
		} else {
			t.Logf("idle: %d kB", got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for _, req := range []func() (*http.Request, error){
			func() (*http.Request, error) { return http.NewRequestWithContext(ctx, "GET", s.url+"/large", nil) },
			func() (*http.Request, error) {
				return http.NewRequestWithContext(ctx, "POST", s.url, io.LimitReader(zeros{}, 100<<20))
			},
		} {
			r, err := req()
			if err != nil {
				t.Fatal(err)
			}
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			n, err := io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if n != 100<<20 || err != nil {
				t.Errorf("got %d bytes, %v, want 100 MiB", n, err)
			}
			if got := s.kilobytes(t, "VmHWM"); got >= 32<<10 {
				t.Errorf("after 100 MiB: got a peak of %d kB, want less than 32 MiB", got)
			} else {
				t.Logf("after 100 MiB: peak of %d kB", got)
			}
		}
	})
}

// waitForChild waits until a function's process runs.
func (s *server) waitForChild(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", s.cmd.Process.Pid))
		for _, list := range lists {
			if b, err := os.ReadFile(list); err == nil && len(b) > 0 {
				return
			}
		}
	}
	t.Fatal("no process of the function")
}

// zeros reads zeros without end.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }
