package main

import (
	"bytes"
	"context"
	"fmt"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The root module has two direct requirements, Docker is imported by one file,
// and the watchdog takes the standard library alone.
func TestDependencyBudget(t *testing.T) {
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	var direct []string
	inRequire := false
	for line := range strings.Lines(string(mod)) {
		line = strings.TrimSpace(line)
		switch {
		case line == "require (":
			inRequire = true
		case line == ")":
			inRequire = false
		case strings.HasPrefix(line, "require "), inRequire && line != "":
			if !strings.Contains(line, "// indirect") {
				direct = append(direct, strings.Fields(strings.TrimPrefix(line, "require "))[0])
			}
		}
	}
	if want := []string{"github.com/docker/docker", "github.com/prometheus/client_golang"}; !slices.Equal(direct, want) {
		t.Errorf("go.mod requires %v, want %v", direct, want)
	}

	imports := func(file string) []string {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		var paths []string
		for _, i := range f.Imports {
			path, _ := strconv.Unquote(i.Path.Value)
			paths = append(paths, path)
		}
		return paths
	}
	isStandard := func(path string) bool { return !strings.Contains(strings.Split(path, "/")[0], ".") }
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, file := range files {
		for _, path := range imports(file) {
			if strings.HasPrefix(path, "github.com/docker/") && !strings.HasPrefix(file, "swarm") {
				t.Errorf("%s imports %s, which swarm.go and its neighbours by name alone may", file, path)
			}
		}
	}
	err = filepath.WalkDir("watchdog", func(file string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(file) != ".go" {
			return err
		}
		for _, path := range imports(file) {
			// What is internal is of the standard library itself, see below.
			internal := slices.Contains([]string{"faas/internal/buildinfo", "faas/internal/field", "faas/internal/healthcheck", "faas/internal/transport", "faas/internal/wire"}, path) ||
				strings.HasPrefix(path, "faas/watchdog/internal/") || strings.HasSuffix(file, "_test.go") && strings.HasPrefix(path, "faas/internal/")
			if path != "faas/watchdog" && !internal && (!isStandard(path) || strings.HasPrefix(path, "faas/")) {
				t.Errorf("%s imports %s, want the standard library alone", file, path)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	err = filepath.WalkDir("internal", func(file string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(file) != ".go" {
			return err
		}
		name := strings.Split(filepath.ToSlash(file), "/")[1]
		for _, path := range imports(file) {
			allowed := isStandard(path)
			if own, ok := strings.CutPrefix(path, "faas/internal/"); ok {
				// The watchdog's are those that import field alone.
				allowed = own == "field" || strings.HasSuffix(file, "_test.go") || slices.Contains([]string{"deployment", "swarmspec"}, name)
			} else if strings.HasPrefix(path, "github.com/docker/docker/api/types/") {
				allowed = name == "swarmspec" || name == "registryauth"
			} else if strings.HasPrefix(path, "faas/") {
				allowed = false
			}
			if !allowed {
				t.Errorf("%s imports %s, which it may not", file, path)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// A program is run in this process.
type program struct {
	addr    string
	signals chan os.Signal
	ended   chan int
	log     *logBuffer
}

var servingAt = regexp.MustCompile(`msg="gateway is serving" address=(\S+)`)

// startProgram calls run and waits until it serves.
func startProgram(t *testing.T, args ...string) *program {
	t.Helper()
	p := &program{signals: make(chan os.Signal, 2), ended: make(chan int, 1), log: new(logBuffer)}
	lines, w := io.Pipe()
	go func() {
		p.ended <- run(t.Context(), append([]string{"-listen=127.0.0.1:0"}, args...), env("PATH", os.Getenv("PATH")), io.Discard, io.MultiWriter(p.log, w), p.signals)
		w.Close()
	}()
	seen := make([]byte, 0, 4096)
	for buf := make([]byte, 4096); ; {
		n, err := lines.Read(buf)
		seen = append(seen, buf[:n]...)
		if m := servingAt.FindSubmatch(seen); m != nil {
			p.addr = string(m[1])
			break
		}
		if err != nil {
			t.Fatalf("it did not serve:\n%s", seen)
		}
	}
	go io.Copy(io.Discard, lines)
	return p
}

func (p *program) wait(t *testing.T, status int) {
	t.Helper()
	select {
	case got := <-p.ended:
		if got != status {
			t.Errorf("got exit status %d, want %d", got, status)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it did not end")
	}
}

func TestASignalDrainsBeforeItEnds(t *testing.T) {
	inside, release := make(chan struct{}), make(chan struct{})
	addr := startReplica(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			inside <- struct{}{}
			<-release
		}
		io.WriteString(w, "done")
	})
	p := startProgram(t, "-function=f=http://"+addr, "-drain=4s", "-shutdown-timeout=10s")
	base := "http://" + p.addr
	slow := make(chan string, 1)
	go func() {
		resp, err := http.Get(base + "/function/f/slow")
		if err != nil {
			slow <- err.Error()
			return
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		slow <- fmt.Sprint(string(b), " ", err)
	}()
	<-inside
	kept := dialRaw(t, base)
	p.signals <- syscall.SIGTERM
	for drains := false; !drains; {
		resp, body := call(t, "GET", base+"/healthz", "")
		drains = resp.StatusCode == http.StatusServiceUnavailable && body == "draining\n"
	}
	if resp, body := call(t, "GET", base+"/function/f", ""); resp.StatusCode != 200 || body != "done" {
		t.Errorf("while draining: got %d %q, want 200 done", resp.StatusCode, body)
	}
	// Who keeps its connection is told to leave it.
	kept.send("GET /function/f HTTP/1.1\r\nHost: x\r\n\r\n")
	if resp, body := kept.receive("GET"); resp.StatusCode != 200 || body != "done" || !resp.Close {
		t.Errorf("kept-alive while draining: got %d %q, close %v, want 200, done and Connection: close", resp.StatusCode, body, resp.Close)
	}
	// The listener closes after the drain, though a request is still inside.
	for deadline := time.Now().Add(15 * time.Second); ; {
		c, err := net.Dial("tcp", p.addr)
		if err != nil {
			break
		}
		c.Close()
		if time.Now().After(deadline) {
			t.Fatal("connections are still accepted after the drain")
		}
		time.Sleep(20 * time.Millisecond)
	}
	select {
	case got := <-p.ended:
		t.Fatalf("it ended with %d while a request was in flight", got)
	default:
	}
	close(release)
	if got := <-slow; got != "done <nil>" {
		t.Errorf("the request in flight: got %s, want done", got)
	}
	p.wait(t, 0)
	if p.log.count("gateway ended, nothing was in flight") != 1 {
		t.Error("the end was not logged")
	}
}

// A connection that was accepted before the listener closed gets an answer to what it
// sends right after.
func TestTheLastRequestIsAnswered(t *testing.T) {
	addr := startReplica(t, echoReplica)
	p := startProgram(t, "-function=f=http://"+addr, "-drain=200ms")
	last := dialRaw(t, "http://"+p.addr)
	p.signals <- syscall.SIGTERM
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		c, err := net.Dial("tcp", p.addr)
		if err != nil {
			break // the listener is closed
		}
		c.Close()
		if time.Now().After(deadline) {
			t.Fatal("connections are still accepted after the drain")
		}
	}
	last.send("POST /function/f HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi")
	if resp, _ := last.receive("POST"); resp.StatusCode != 200 || !resp.Close {
		t.Errorf("got status %d, close %v, want 200 and Connection: close", resp.StatusCode, resp.Close)
	}
	p.wait(t, 0)
}

// A terminal that goes away may send SIGHUP more than once: what is in flight
// ends in its own time all the same.
func TestHangupsEndItGracefully(t *testing.T) {
	inside, release := make(chan struct{}), make(chan struct{})
	addr := startReplica(t, func(w http.ResponseWriter, r *http.Request) {
		inside <- struct{}{}
		<-release
		io.WriteString(w, "done")
	})
	p := startProgram(t, "-function=f=http://"+addr, "-drain=0", "-shutdown-timeout=10m")
	answer := make(chan string, 1)
	go func() {
		_, body := call(t, "GET", "http://"+p.addr+"/function/f", "")
		answer <- body
	}()
	<-inside
	for range cap(p.signals) + 2 { // the last one is sent when two have been received
		p.signals <- syscall.SIGHUP
	}
	close(release)
	if got := <-answer; got != "done" {
		t.Errorf("got %q, want done", got)
	}
	p.wait(t, 0)
}

func TestASecondSignalEndsItNow(t *testing.T) {
	for _, phase := range []string{"draining", "shutting down"} {
		t.Run(phase, func(t *testing.T) {
			inside := make(chan struct{})
			addr := startReplica(t, func(w http.ResponseWriter, r *http.Request) {
				inside <- struct{}{}
				<-r.Context().Done()
			})
			drain := "10m"
			if phase == "shutting down" {
				drain = "0"
			}
			p := startProgram(t, "-function=f=http://"+addr, "-drain="+drain, "-shutdown-timeout=10m")
			go http.Get("http://" + p.addr + "/function/f")
			<-inside
			p.signals <- syscall.SIGTERM
			if phase == "shutting down" {
				for {
					c, err := net.Dial("tcp", p.addr)
					if err != nil {
						break
					}
					c.Close()
				}
			}
			p.signals <- syscall.SIGTERM
			p.wait(t, exitFailure)
		})
	}
}

func TestWhatIsInFlightTooLongIsCutOff(t *testing.T) {
	inside := make(chan struct{})
	addr := startReplica(t, func(w http.ResponseWriter, r *http.Request) {
		inside <- struct{}{}
		<-r.Context().Done()
	})
	p := startProgram(t, "-function=f=http://"+addr, "-drain=0", "-shutdown-timeout=100ms")
	failed := make(chan error, 1)
	go func() {
		resp, err := http.Get("http://" + p.addr + "/function/f")
		if err == nil {
			resp.Body.Close()
		}
		failed <- err
	}()
	<-inside
	p.signals <- syscall.SIGTERM
	p.wait(t, exitFailure)
	if err := <-failed; err == nil {
		t.Error("the request that was cut off got an answer")
	}
	if p.log.count("level=ERROR", "cut off") != 1 {
		t.Error("the log does not say so")
	}
}

func TestHealthcheck(t *testing.T) {
	addr := startReplica(t, echoReplica)
	p := startProgram(t, "-function=f=http://"+addr, "-drain=10m")
	check := func(listen string) (int, string) {
		var stderr bytes.Buffer
		return run(t.Context(), []string{"-run-healthcheck", "-listen", listen}, env(), io.Discard, &stderr, nil), stderr.String()
	}
	_, port, _ := net.SplitHostPort(p.addr)
	for _, listen := range []string{p.addr, ":" + port, "0.0.0.0:" + port} {
		if got, text := check(listen); got != 0 || text != "" {
			t.Errorf("%s: got %d %q, want 0 and nothing", listen, got, text)
		}
	}
	if got, text := check(closedAddr(t)); got != exitFailure || !strings.Contains(text, "unhealthy") {
		t.Errorf("nobody listens: got %d %q, want %d and why", got, text, exitFailure)
	}
	p.signals <- syscall.SIGTERM
	for {
		if resp, _ := call(t, "GET", "http://"+p.addr+"/healthz", ""); resp.StatusCode == 503 {
			break
		}
	}
	if got, text := check(p.addr); got != exitFailure || !strings.Contains(text, "503") {
		t.Errorf("draining: got %d %q, want %d and the status", got, text, exitFailure)
	}
	p.signals <- syscall.SIGTERM
	p.wait(t, exitFailure)
}

func TestAPortThatIsTakenIsAClearError(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var stderr bytes.Buffer
	got := run(t.Context(), []string{"-listen", ln.Addr().String()}, env("PATH", os.Getenv("PATH")), io.Discard, &stderr, nil)
	if got != exitFailure || !strings.Contains(stderr.String(), ln.Addr().String()) || !strings.Contains(stderr.String(), "address already in use; -listen takes another") {
		t.Errorf("got %d, want %d and the address, what is wrong with it and what to do:\n%s", got, exitFailure, &stderr)
	}
}

// The end of the context ends the gateway as a signal does, without the drain.
func TestTheContextEndsIt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	r, w := io.Pipe()
	go func() {
		ended <- run(ctx, []string{"-listen=127.0.0.1:0"}, env("PATH", os.Getenv("PATH")), io.Discard, w, nil)
		w.Close()
	}()
	var seen []byte
	for buf := make([]byte, 4096); !servingAt.Match(seen); {
		n, err := r.Read(buf)
		if err != nil {
			t.Fatalf("it did not serve:\n%s", seen)
		}
		seen = append(seen, buf[:n]...)
	}
	go io.Copy(io.Discard, r)
	cancel()
	if got := <-ended; got != 0 {
		t.Errorf("got exit status %d, want 0", got)
	}
}
