package watchdog

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// countCGI answers with what it is told of its body and what that is.
const countCGI = `sh -c 'printf "X: y\n\n%s " "$CONTENT_LENGTH"; sha256sum'`

func TestKeptBody(t *testing.T) {
	url, _, _ := serve(t, testConfig(t, countCGI, "mode=cgi", "max_body=2MiB"))
	for _, size := range []int{0, 1, pipeBody, pipeBody + 1, keptInMemory - 1, keptInMemory, keptInMemory + 1, 2 << 20, 2<<20 + 1, 5 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			body := make([]byte, size)
			rand.Read(body)
			resp, got := do(t, "POST", url, io.MultiReader(bytes.NewReader(body))) // hides the length
			if size > 2<<20 {
				if resp.StatusCode != http.StatusRequestEntityTooLarge || !strings.Contains(got, "max_body") {
					t.Errorf("got status %d, %q, want 413 that names max_body", resp.StatusCode, got)
				}
				return
			}
			length := ""
			if size > 0 {
				length = fmt.Sprint(size)
			}
			if want := fmt.Sprintf("%s %x  -\n", length, sha256.Sum256(body)); resp.StatusCode != 200 || got != want {
				t.Errorf("got status %d, %q, want %q", resp.StatusCode, got, want)
			}
		})
	}
}

func TestKeptBodyNone(t *testing.T) {
	url, _, _ := serve(t, testConfig(t, countCGI, "mode=cgi", "max_body=0"))
	if resp, _ := do(t, "POST", url, io.MultiReader(strings.NewReader("x"))); resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("chunked: got status %d, want 413", resp.StatusCode)
	}
	if resp, got := do(t, "POST", url, strings.NewReader("x")); resp.StatusCode != 200 || !strings.HasPrefix(got, "1 ") {
		t.Errorf("sized: got status %d, %q, want 200", resp.StatusCode, got)
	}
}

// Where nothing can be stored a body that fits into memory passes, and one that
// does not is refused.
func TestKeptBodyWithoutStorage(t *testing.T) {
	url, _, log := serve(t, testConfig(t, countCGI, "mode=cgi"))
	t.Setenv("TMPDIR", os.DevNull)
	if resp, _ := do(t, "POST", url, io.MultiReader(strings.NewReader(strings.Repeat("x", keptInMemory-1)))); resp.StatusCode != 200 {
		t.Errorf("short: got status %d, want 200", resp.StatusCode)
	}
	resp, got := do(t, "POST", url, io.MultiReader(strings.NewReader(strings.Repeat("x", keptInMemory+1))))
	if resp.StatusCode != http.StatusLengthRequired || resp.Header.Get("Retry-After") != "" || !strings.Contains(got, "Content-Length") || strings.Contains(got, os.DevNull) || !strings.Contains(log.String(), os.DevNull) {
		t.Errorf("long: got status %d, %q, log %q, want 411 that says what to do, and where in the log alone", resp.StatusCode, got, log)
	}
}

// All bodies that are kept share one room, and leave it again.
func TestKeptBodiesShareARoom(t *testing.T) {
	const size = 1000
	url, h, log := serve(t, testConfig(t, countCGI, "mode=cgi", fmt.Sprint("max_body=", size)))
	stalled := make([]net.Conn, keptAtOnce)
	for i := range stalled {
		c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", size, strings.Repeat("x", size))
		stalled[i] = c
	}
	for h.kept.used.Load() < keptAtOnce*size {
		time.Sleep(time.Millisecond)
	}
	resp, got := do(t, "POST", url, io.MultiReader(strings.NewReader(strings.Repeat("x", size))))
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || !strings.Contains(log.String(), "too much is kept") {
		t.Errorf("got status %d, %q, want 503 with Retry-After", resp.StatusCode, got)
	}
	if resp, _ := do(t, "POST", url, strings.NewReader("x")); resp.StatusCode != http.StatusOK {
		t.Errorf("sized: got status %d, want 200", resp.StatusCode)
	}
	io.WriteString(stalled[0], "0\r\n\r\n")
	if resp, err := http.ReadResponse(bufio.NewReader(stalled[0]), nil); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("got %v, %v to what was kept, want 200", resp, err)
	}
	for _, c := range stalled {
		c.Close()
	}
	wantIdle(t, h)
	if used := h.kept.used.Load(); used != 0 {
		t.Errorf("%d bytes are in use in the end, want 0", used)
	}
	if resp, _ := do(t, "POST", url, io.MultiReader(strings.NewReader("x"))); resp.StatusCode != http.StatusOK {
		t.Errorf("once there is room: got status %d, want 200", resp.StatusCode)
	}
}

// A body that stalls or breaks off while it is kept starts no process.
func TestKeptBodyBreaks(t *testing.T) {
	w := newWitness(t)
	url, _, _ := serve(t, testConfig(t, `sh -c 'echo up >`+w.path+`'`, "mode=cgi"))
	const line, chunk = "POST / HTTP/1.1\r\nHost: x\r\n", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
	want504(t, url, line+"X-Timeout: 200ms\r\n"+chunk)
	if resp, _, _ := raw(t, url, line+chunk+"nonsense\r\n"); resp.StatusCode != http.StatusBadRequest {
		t.Errorf("got status %d, want 400", resp.StatusCode)
	}
	if n, _ := w.file.Read(make([]byte, 1)); n > 0 {
		t.Error("a process was started")
	}
}
