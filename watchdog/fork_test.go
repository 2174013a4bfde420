package watchdog

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestForkEchoes(t *testing.T) {
	url, _, _ := serve(t, testConfig(t, "cat"))
	for _, size := range []int{0, 1, 6, pipeBody - 1, pipeBody, pipeBody + 1, 64 << 10, 3 << 20} {
		for _, chunked := range []bool{false, true} {
			name := strconv.Itoa(size)
			if chunked {
				name += "/chunked"
			}
			t.Run(name, func(t *testing.T) {
				want := make([]byte, size)
				rand.Read(want)
				var body io.Reader = bytes.NewReader(want)
				if chunked {
					body = io.MultiReader(body) // hides the length from the client
				}
				resp, got := do(t, "POST", url, body, "Content-Type: image/png")
				if resp.StatusCode != 200 || got != string(want) {
					t.Errorf("got status %d and %d bytes, want 200 and the %d that were sent", resp.StatusCode, len(got), size)
				}
				if got := resp.Header.Get("Content-Type"); got != "image/png" {
					t.Errorf("got content type %q, want the request's", got)
				}
			})
		}
	}
}

func TestForkOutcomes(t *testing.T) {
	for _, tt := range []struct {
		name, command string
		settings      []string
		method, body  string
		header        []string
		status        int
		want          string
		wantHeader    []string
	}{
		{name: "success", command: `echo hi`, status: 200, want: "hi\n",
			wantHeader: []string{"Content-Length: 3", "Content-Type: text/plain; charset=utf-8"}},
		{name: "content type set", command: `echo hi`, settings: []string{"content_type=text/html"}, status: 200, want: "hi\n",
			wantHeader: []string{"Content-Type: text/html"}},
		{name: "no output", command: `true`, status: 200, wantHeader: []string{"Content-Length: 0"}},
		{name: "HEAD", command: `echo hi`, method: "HEAD", status: 200, wantHeader: []string{"Content-Length: 3"}},
		{name: "exit code", command: `echo no; exit 3`, status: 500, want: "no\n", wantHeader: []string{"X-Exit-Code: 3"}},
		{name: "slow exit code", command: `sleep 0.05; echo no; exit 3`, status: 500, want: "no\n", wantHeader: []string{"X-Exit-Code: 3"}},
		{name: "signal", command: `echo no; kill -9 $$`, status: 500, want: "no\n", wantHeader: []string{"X-Exit-Code: 137"}},
		{name: "large output, then exit code", command: `head -c 100000 /dev/zero; exit 4`, status: 500,
			want: strings.Repeat("\x00", 100000), wantHeader: []string{"X-Exit-Code: 4"}},
		{name: "streaming, exit code before output", command: `exit 5`, settings: []string{"mode=streaming"}, status: 500,
			wantHeader: []string{"X-Exit-Code: 5"}},
		{name: "limit", command: `echo no; sleep 60`, settings: []string{"exec_timeout=50ms"}, status: 504,
			want: "function exceeded its limit of 50ms\n"},
		{name: "limit from the caller", command: `sleep 60`, header: []string{"X-Timeout: 50ms"}, status: 504,
			want: "function exceeded its limit of 50ms\n"},
		{name: "caller cannot extend", command: `sleep 60`, settings: []string{"exec_timeout=50ms"}, header: []string{"X-Timeout: 1h"},
			status: 504, want: "function exceeded its limit of 50ms\n"},
		{name: "limit of the caller is none", command: `echo hi`, header: []string{"X-Timeout: soon"}, status: 200, want: "hi\n"},
		{name: "negative limit of the caller", command: `echo hi`, header: []string{"X-Timeout: -1s"}, status: 200, want: "hi\n"},
		{name: "no limit", command: `echo hi`, settings: []string{"exec_timeout=0"}, status: 200, want: "hi\n"},
		{name: "never reads", command: `echo hi`, method: "POST", body: strings.Repeat("x", 10<<20), status: 200, want: "hi\n"},
		{name: "never reads nor ends", command: `sleep 60`, settings: []string{"exec_timeout=50ms"}, method: "POST",
			body: strings.Repeat("x", 10<<20), status: 504, want: "function exceeded its limit of 50ms\n"},
		{name: "closes STDOUT first", command: `echo hi; exec >&-; sleep 0.1; exit 6`, status: 500, want: "hi\n",
			wantHeader: []string{"X-Exit-Code: 6"}},
		{name: "grandchild holds STDOUT", command: `sleep 60 & echo hi`, status: 200, want: "hi\n"},
		{name: "grandchild holds STDOUT for long", command: `sleep 60 & sleep 0.1; echo hi`, status: 200, want: "hi\n"},
		{name: "STDERR apart", command: `echo out; echo err >&2`, status: 200, want: "out\n"},
		{name: "STDERR combined", command: `echo out; echo err >&2`, settings: []string{"combine_output=true"}, status: 200, want: "out\nerr\n"},
		{name: "much STDERR", command: `head -c 1000000 /dev/zero >&2; echo hi`, status: 200, want: "hi\n"},
		{name: "headers beyond an environment", command: `echo hi`, header: []string{"X-Large: " + strings.Repeat("x", 200<<10)}, status: 431,
			want: "the request's headers do not fit into an environment\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			url, _, _ := serve(t, testConfig(t, "sh -c '"+tt.command+"'", tt.settings...))
			method := tt.method
			if method == "" {
				method = "GET"
			}
			resp, got := do(t, method, url, strings.NewReader(tt.body), tt.header...)
			if resp.StatusCode != tt.status || got != tt.want {
				t.Errorf("got status %d, %q, want %d, %q", resp.StatusCode, clip(got), tt.status, clip(tt.want))
			}
			for _, h := range tt.wantHeader {
				name, value, _ := strings.Cut(h, ": ")
				if got := resp.Header.Get(name); got != value {
					t.Errorf("got %s: %q, want %q", name, got, value)
				}
			}
			if got := resp.Header.Get("X-Duration-Seconds"); (got != "") != (tt.status == 200) {
				t.Errorf("got X-Duration-Seconds %q with status %d", got, tt.status)
			}
		})
	}
}

func clip(s string) string { return s[:min(len(s), 100)] }

func TestCommandGoneIs503(t *testing.T) {
	script := filepath.Join(t.TempDir(), "function")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho hi\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	url, _, log := serve(t, testConfig(t, script))
	if err := os.Remove(script); err != nil {
		t.Fatal(err)
	}
	resp, body := do(t, "GET", url, nil)
	if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("got status %d, Retry-After %q, want 503 with one", resp.StatusCode, resp.Header.Get("Retry-After"))
	}
	if strings.Contains(body, script) {
		t.Errorf("got body %q, want nothing internal", body)
	}
	if !strings.Contains(log.String(), script) {
		t.Errorf("got log %q, want the path", log)
	}
}

// At the limit, and when the caller goes away, the whole group ends; one that
// ignores SIGTERM gets SIGKILL.
func TestGroupEnds(t *testing.T) {
	for _, tt := range []struct{ name, script string }{
		{"child and grandchild", `sleep 60 & sleep 60`},
		{"deaf to SIGTERM", `trap "" TERM; sleep 60 & sleep 60; sleep 60`},
	} {
		for _, gone := range []bool{false, true} {
			name := tt.name + "/limit"
			if gone {
				name = tt.name + "/caller gone"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				w := newWitness(t)
				url, h, _ := serve(t, testConfig(t, `sh -c 'exec 9>`+w.path+`; echo up >&9; `+tt.script+`'`, "exec_timeout=0"))
				if !gone {
					w.wantEndsAtLimit(t, url)
				} else {
					w.wantEndsWithCaller(t, url)
				}
				// A client that goes away does not wait for the last of it.
				for end := time.Now().Add(10 * time.Second); h.Inflight() > 0 && time.Now().Before(end); {
					time.Sleep(time.Millisecond)
				}
				h.family.members.Range(func(pid, _ any) bool {
					t.Errorf("process %d is left", pid)
					return true
				})
			})
		}
	}
}

// wantEndsWithCaller wants the process that writes to the witness to end when its caller
// goes away.
func (w *witness) wantEndsWithCaller(t *testing.T, url string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, "POST", url, strings.NewReader("x"))
	answered := make(chan error, 1)
	go func() {
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			resp.Body.Close()
		}
		answered <- err
	}()
	w.wantSeen(t)
	cancel()
	w.wantGone(t)
	if err := <-answered; err == nil {
		t.Error("got an answer for a caller that had gone")
	}
}

// wantEndsAtLimit wants it to end at the limit, which is long enough for it to start.
func (w *witness) wantEndsAtLimit(t *testing.T, url string) {
	t.Helper()
	for limit := 200 * time.Millisecond; ; limit *= 4 {
		if resp, _ := do(t, "POST", url, strings.NewReader("x"), "X-Timeout: "+limit.String()); resp.StatusCode != 504 {
			t.Fatalf("got status %d, want 504", resp.StatusCode)
		}
		w.file.SetReadDeadline(time.Now().Add(30 * time.Second))
		seen, err := io.ReadAll(w.file)
		if err != nil {
			t.Fatalf("a process is left: %v", err)
		}
		if len(seen) > 0 {
			return
		}
		if limit > 30*time.Second {
			t.Fatal("the process never came up")
		}
	}
}

// A process that has left its own group ends at the limit like any other.
func TestRegroupedProcessEnds(t *testing.T) {
	for _, deaf := range []string{"", "true"} {
		t.Run("deaf="+deaf, func(t *testing.T) {
			t.Parallel()
			outlived := filepath.Join(t.TempDir(), "outlived")
			cfg := testConfig(t, os.Args[0], "exec_timeout=500ms")
			cfg.Env = append(os.Environ(), childVariable+"=regroup", "DEAF="+deaf, "OUTLIVED="+outlived)
			url, _, _ := serve(t, cfg)
			if resp, _ := do(t, "GET", url, nil); resp.StatusCode != http.StatusGatewayTimeout {
				t.Errorf("got status %d, want 504", resp.StatusCode)
			}
			if _, err := os.Stat(outlived); err == nil {
				t.Error("the process went on to its own end, want it ended")
			}
		})
	}
}

// A process that has left its group cannot be ended with it, but holds up
// nobody by having STDOUT open.
func TestEscapedProcessHoldsUpNobody(t *testing.T) {
	fifo := newWitness(t)
	gate := filepath.Join(t.TempDir(), "gate")
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	url, _, _ := serve(t, testConfig(t, `sh -c 'setsid sh -c "exec 9>`+fifo.path+`; echo up >&9; while test -e `+gate+`; do echo x; sleep 0.01; done" & sleep 0.1; echo hi'`))
	resp, body := do(t, "GET", url, nil)
	if resp.StatusCode != 200 || !strings.Contains(body, "hi\n") {
		t.Errorf("got status %d, %q, want 200 with hi", resp.StatusCode, body)
	}
	fifo.wantSeen(t)
	os.Remove(gate)
	fifo.wantGone(t)
}

func TestLateFailureAborts(t *testing.T) {
	for _, tt := range []struct {
		name, command string
		settings      []string
	}{
		{"exit code", `head -c 200000 /dev/zero; exit 3`, []string{"buffer_output=64KiB"}},
		{"exit code, nothing held", `echo hi; exit 3`, []string{"buffer_output=0"}},
		{"limit", `echo hi; sleep 60`, []string{"mode=streaming", "exec_timeout=10s"}},
		{"signal", `echo hi; kill -9 $$`, []string{"mode=streaming"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			url, _, _ := serve(t, testConfig(t, "sh -c '"+tt.command+"'", tt.settings...))
			resp, err := http.Get(url)
			if err == nil {
				_, err = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
			if err == nil {
				t.Error("got a complete response, want it broken off")
			}
		})
	}
}

// What a process writes reaches the client while it still reads, in mode
// streaming; the connection is full duplex.
func TestStreamingDuplex(t *testing.T) {
	url, _, _ := serve(t, testConfig(t, "cat", "mode=streaming"))
	r, w := io.Pipe()
	req, _ := http.NewRequest("POST", url, r)
	first := make(chan error, 1)
	go func() {
		_, err := w.Write([]byte("one"))
		first <- err
	}()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"one", "two", "three"} {
		if want != "one" {
			if _, err := w.Write([]byte(want)); err != nil {
				t.Fatal(err)
			}
		}
		got := make([]byte, len(want))
		if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != want {
			t.Fatalf("got %q, %v, want %q", got, err, want)
		}
	}
	w.Close()
	if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
		t.Errorf("got %q, %v after the end, want nothing", rest, err)
	}
}

// A process may pause for longer than write_timeout, at its end as well.
func TestPauseInAnswer(t *testing.T) {
	url, _, _ := serve(t, testConfig(t, `sh -c 'echo one; sleep 1.5'`, "mode=streaming", "write_timeout=1s"))
	if resp, got := do(t, "GET", url, nil); resp.StatusCode != 200 || got != "one\n" {
		t.Errorf("got status %d, %q, want 200, one", resp.StatusCode, got)
	}
}

func TestMaxInflight(t *testing.T) {
	w := newWitness(t)
	gate := filepath.Join(t.TempDir(), "gate")
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	url, _, _ := serve(t, testConfig(t, `sh -c 'echo up >`+w.path+`; while test -e `+gate+`; do sleep 0.01; done'`, "max_inflight=1"))
	if resp, _ := do(t, "GET", url+"/_/ready", nil); resp.StatusCode != 200 {
		t.Errorf("idle: got /_/ready %d, want 200", resp.StatusCode)
	}
	first := make(chan int, 1)
	go func() {
		resp, err := http.Get(url)
		if err != nil {
			first <- 0
			return
		}
		resp.Body.Close()
		first <- resp.StatusCode
	}()
	w.wantSeen(t)
	for path, want := range map[string]int{"/": 429, "/_/ready": 429, "/_/health": 200} {
		resp, _ := do(t, "GET", url+path, nil)
		if resp.StatusCode != want || want == 429 && resp.Header.Get("Retry-After") == "" {
			t.Errorf("%s while busy: got %d, Retry-After %q, want %d", path, resp.StatusCode, resp.Header.Get("Retry-After"), want)
		}
	}
	os.Remove(gate)
	if got := <-first; got != 200 {
		t.Errorf("got %d from the first request, want 200", got)
	}
}

func TestExpectContinue(t *testing.T) {
	url, _, _ := serve(t, testConfig(t, "cat"))
	client := &http.Client{Transport: &http.Transport{ExpectContinueTimeout: time.Minute}}
	defer client.CloseIdleConnections()
	req, _ := http.NewRequest("POST", url, strings.NewReader("hello"))
	req.Header.Set("Expect", "100-continue")
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); string(b) != "hello" {
		t.Errorf("got %q, want hello", b)
	}
}
