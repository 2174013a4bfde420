package watchdog

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// serveUpstream serves mode http with the test binary as its server.
func serveUpstream(t *testing.T, settings ...string) (string, *Handler, *logBuffer) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0") // a port that is free
	if err != nil {
		t.Fatal(err)
	}
	address := ln.Addr().String()
	ln.Close()
	cfg := testConfig(t, os.Args[0], append(settings, "mode=http", "upstream_url=http://"+address)...)
	cfg.Env = append(os.Environ(), childVariable+"=server", "ADDRESS="+address)
	return serve(t, cfg)
}

func TestHTTPProxies(t *testing.T) {
	url, h, _ := serveUpstream(t)
	// The first request waits until the process is up.
	resp, body := do(t, "PUT", url+"/a%2Fb/c?x=1;y&%zz", strings.NewReader("hello"), "Host: example.com")
	if resp.StatusCode != http.StatusTeapot || body != "hello" {
		t.Errorf("got status %d, %q, want 418, hello", resp.StatusCode, body)
	}
	if got, want := resp.Header.Get("X-Saw"), "PUT /a%2Fb/c?x=1;y&%zz "; !strings.HasPrefix(got, want) {
		t.Errorf("the process saw %q, want %q", got, want)
	}
	left, err := time.ParseDuration(resp.Header.Get("X-Saw-Timeout"))
	if err != nil || left <= 0 || left > 30*time.Second {
		t.Errorf("the process saw the limit %v, %v, want what is left of 30s", left, err)
	}
	if resp.Header.Get("X-Duration-Seconds") == "" {
		t.Error("got no X-Duration-Seconds")
	}
	if resp, _ := do(t, "GET", url+"/_/health", nil); resp.StatusCode != 200 {
		t.Errorf("got health %d, want 200", resp.StatusCode)
	}
	if h.Inflight() != 0 {
		t.Errorf("got %d in flight, want 0", h.Inflight())
	}
}

// The limit cuts one request; the process goes on.
func TestHTTPLimit(t *testing.T) {
	url, _, _ := serveUpstream(t)
	resp, _ := do(t, "GET", url, nil)
	pid := resp.Header.Get("X-Pid")
	if resp, body := do(t, "GET", url+"/hang", nil, "X-Timeout: 50ms"); resp.StatusCode != 504 || !strings.Contains(body, "50ms") {
		t.Errorf("got status %d, %q, want 504 with the limit", resp.StatusCode, body)
	}
	resp, _ = do(t, "GET", url, nil)
	if got := resp.Header.Get("X-Pid"); got != pid {
		t.Errorf("got an answer of process %s, want still %s", got, pid)
	}
}

// read_timeout is for a client that sends, and not for one that waits.
func TestHTTPReadTimeoutEndsWithBody(t *testing.T) {
	url, _, _ := serveUpstream(t, "read_timeout=100ms")
	for _, chunked := range []bool{false, true} {
		var body io.Reader = strings.NewReader("hello")
		if chunked {
			body = io.MultiReader(body) // hides the length from the client
		}
		if resp, got := do(t, "POST", url+"/slow", body); resp.StatusCode != 200 || got != "5 <nil>" {
			t.Errorf("chunked %v: got status %d, %q, want 200 and 5 bytes read", chunked, resp.StatusCode, got)
		}
	}
}

// write_timeout is for a client that does not read, and not for a process that
// pauses.
func TestHTTPPauseInAnswer(t *testing.T) {
	url, _, _ := serveUpstream(t, "write_timeout=100ms")
	if resp, got := do(t, "GET", url+"/pause", nil); resp.StatusCode != 200 || got != "one" {
		t.Errorf("got status %d, %q, want 200, one", resp.StatusCode, got)
	}
}

// A client that stalls in its body has its answer at the limit.
func TestHTTPLimitWithStalledBody(t *testing.T) {
	url, _, _ := serveUpstream(t, "read_timeout=0")
	do(t, "GET", url, nil) // the process is up
	want504(t, url, "POST /slow HTTP/1.1\r\nHost: x\r\nX-Timeout: 200ms\r\nContent-Length: 10\r\n\r\nhalf")
}

// A process that dies is started again; callers meanwhile get 503 or 502.
func TestHTTPRestarts(t *testing.T) {
	url, _, log := serveUpstream(t)
	resp, _ := do(t, "GET", url, nil)
	pid := resp.Header.Get("X-Pid")
	// A POST is not sent again to a process that may have had it.
	if resp, _ := do(t, "POST", url+"/exit", strings.NewReader("x")); resp.StatusCode != 502 {
		t.Errorf("got status %d from a process that exits, want 502", resp.StatusCode)
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		resp, _ := do(t, "GET", url, nil)
		if resp.StatusCode == http.StatusTeapot {
			if resp.Header.Get("X-Pid") == pid {
				t.Errorf("got an answer of process %s, which has exited", pid)
			}
			break
		}
		// 502: the process had taken the connection when it died.
		if resp.StatusCode != 502 && (resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "") {
			t.Errorf("got status %d meanwhile, want 503 with Retry-After", resp.StatusCode)
		}
		if time.Now().After(deadline) {
			t.Fatal("the process does not come back")
		}
	}
	if !strings.Contains(log.String(), "exit code 3") {
		t.Errorf("got log %q, want the exit code", log)
	}
}

func TestHTTPNeverUp(t *testing.T) {
	url, _, _ := serve(t, testConfig(t, "false", "mode=http", "upstream_url=http://127.0.0.1:1"))
	if resp, _ := do(t, "GET", url, nil); resp.StatusCode != 503 {
		t.Errorf("got status %d, want 503", resp.StatusCode)
	}
	if resp, _ := do(t, "GET", url+"/_/health", nil); resp.StatusCode != 503 {
		t.Errorf("got health %d, want 503", resp.StatusCode)
	}
}

// A switch of protocols, as for WebSocket, passes.
func TestHTTPUpgrade(t *testing.T) {
	upstream := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		line, _ := buf.ReadString('\n')
		io.WriteString(conn, "got "+line)
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := http.Server{Handler: upstream}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	defer func() { srv.Close(); <-served }()

	url, _, _ := serve(t, testConfig(t, "sleep 60", "mode=http", "upstream_url=http://"+ln.Addr().String()))
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
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
	io.WriteString(c, "ping\n")
	if b, err := io.ReadAll(in); err != nil || string(b) != "got ping\n" {
		t.Errorf("got %q, %v, want an echo", b, err)
	}
}

// Run ends the process, and returns when it has ended.
func TestHTTPRunEndsProcess(t *testing.T) {
	w := newWitness(t)
	h, err := New(testConfig(t, `sh -c 'exec 9>`+w.path+`; echo up >&9; sleep 60 & sleep 60'`, "mode=http", "upstream_url=http://127.0.0.1:1"), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- h.Run(ctx) }()
	w.wantSeen(t)
	cancel()
	if err := <-ran; err != nil {
		t.Errorf("Run: %v", err)
	}
	w.wantGone(t)
	h.family.members.Range(func(pid, _ any) bool {
		t.Errorf("process %d is left", pid)
		return true
	})
}
