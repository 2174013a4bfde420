package watchdog

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Bodies that break off, are not read or stall, in the modes with a process per
// request.

// A body that breaks off ends the process: it must not answer for half of it.
func TestBrokenBody(t *testing.T) {
	w := newWitness(t)
	url, _, _ := serve(t, testConfig(t, `sh -c 'exec 9>`+w.path+`; echo up >&9; cat >/dev/null; sleep 60'`))
	r, body := io.Pipe()
	req, _ := http.NewRequest("POST", url, r)
	done := make(chan error, 1)
	go func() {
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			resp.Body.Close()
		}
		done <- err
	}()
	w.wantSeen(t)
	body.CloseWithError(errors.New("broken off"))
	if err := <-done; err == nil {
		t.Error("got an answer, want an error")
	}
	w.wantGone(t)
}

// A process need not read its body, whatever its length; the server copes with
// what is left of it.
func TestUnreadBody(t *testing.T) {
	for _, tt := range []struct {
		name, command string
		settings      []string
	}{
		{"held back", "echo hi", nil},
		{"streaming", "echo hi", []string{"mode=streaming"}},
		{"failure", "echo hi; exit 3", nil},
		{"late failure", "echo hi; exit 3", []string{"mode=streaming"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			url, _, log := serve(t, testConfig(t, "sh -c '"+tt.command+"'", tt.settings...))
			for _, size := range []int{70 << 10, 200 << 10, 1 << 20} {
				for range 5 {
					resp, err := http.Post(url, "text/plain", strings.NewReader(strings.Repeat("x", size)))
					var body []byte
					if err == nil {
						body, err = io.ReadAll(resp.Body)
						resp.Body.Close()
					}
					if tt.name == "late failure" {
						if err == nil {
							t.Errorf("%d bytes: got a complete answer, want it broken off", size)
						}
					} else if err != nil || string(body) != "hi\n" {
						t.Errorf("%d bytes: got %q, %v, want hi", size, body, err)
					}
					do(t, "GET", url+"/_/health", nil)
				}
			}
			if strings.Contains(log.String(), "panic") {
				t.Errorf("got log %q, want no panic", clip(log.String()))
			}
		})
	}
}

// A client that stalls in the middle of its body is waited for read_timeout.
func TestStalledBody(t *testing.T) {
	for _, size := range []int{10, 1 << 20} {
		t.Run(strconv.Itoa(size), func(t *testing.T) {
			url, _, _ := serve(t, testConfig(t, "cat", "read_timeout=100ms"))
			c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\nhalf", size)
			c.SetReadDeadline(time.Now().Add(30 * time.Second))
			got, err := io.ReadAll(c)
			if err != nil {
				t.Fatalf("the connection stays open: %v", err)
			}
			if strings.HasPrefix(string(got), "HTTP/1.1 200") {
				t.Errorf("got %q for half a body, want a failure", got)
			}
		})
	}
}

// The limit holds for the body, too: for one that is read ahead and for one
// that is not.
func TestLimitWithStalledBody(t *testing.T) {
	url, _, _ := serve(t, testConfig(t, "cat", "read_timeout=30s", "exec_timeout=200ms"))
	for _, size := range []int{10, 1 << 20} {
		t.Run(strconv.Itoa(size), func(t *testing.T) {
			want504(t, url, fmt.Sprintf("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\nhalf", size))
		})
	}
}

// A client that takes nothing is waited for write_timeout; then the process
// ends.
func TestStalledReader(t *testing.T) {
	w := newWitness(t)
	url, _, _ := serve(t, testConfig(t, `sh -c 'exec 9>`+w.path+`; echo up >&9; yes'`, "write_timeout=100ms", "exec_timeout=0"))
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	w.wantSeen(t)
	w.wantGone(t)
}
