package watchdog

// What becomes of a body that nobody asks for, and of its connection.

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

type refusalCase struct {
	name, url, method, path string
	status                  int
}

// refusals starts handlers that answer without a body's help.
func refusals(t *testing.T) []refusalCase {
	in, out := io.Pipe()
	t.Cleanup(func() { out.Close() })
	busy, h, _ := serve(t, testConfig(t, "cat", "max_inflight=1"))
	go http.Post(busy, "text/plain", in) // ends with the test
	for end := time.Now().Add(10 * time.Second); h.Inflight() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the first call does not come in")
		}
	}
	static, _, _ := serve(t, testConfig(t, "", "mode=static", "static_path="+t.TempDir()))
	dead, _, _ := serve(t, testConfig(t, "false", "mode=http", "upstream_url=http://127.0.0.1:1"))
	return []refusalCase{
		{"busy", busy, "POST", "/", 429},
		{"busy, ready", busy, "POST", "/_/ready", 429},
		{"health", busy, "POST", "/_/health", 200},
		{"no method of files", static, "POST", "/", 405},
		{"no file", static, "GET", "/nope", 404},
		{"no process", dead, "POST", "/", 503},
		{"unhealthy", dead, "POST", "/_/health", 503},
	}
}

// ask sends a request and reads its answer.
func (tt refusalCase) ask(t *testing.T, c net.Conn, br *bufio.Reader, rest string) *http.Response {
	t.Helper()
	fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: x\r\n%s", tt.method, tt.path, rest)
	resp, err := http.ReadResponse(br, &http.Request{Method: tt.method})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != tt.status {
		t.Errorf("got %d, %v, want %d", resp.StatusCode, err, tt.status)
	}
	return resp
}

func (tt refusalCase) dial(t *testing.T) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(tt.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c, bufio.NewReader(c)
}

// A body that has come with its head costs nobody the connection.
func TestRefusalKeepsConnection(t *testing.T) {
	for _, tt := range refusals(t) {
		for _, body := range []string{"Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"} {
			t.Run(tt.name, func(t *testing.T) {
				c, br := tt.dial(t)
				for range 2 {
					if tt.ask(t, c, br, body).Close {
						t.Fatal("the connection is closed, want it kept")
					}
				}
			})
		}
	}
}

// An answer that needs no body does not wait for one. Then the connection is closed,
// for the body could still come; a client that sends it gets the answer nevertheless.
func TestRefusalDoesNotWait(t *testing.T) {
	const pause = 400 * time.Millisecond // net/http's is 500 ms
	for _, tt := range refusals(t) {
		for _, head := range []string{
			"Content-Length: 1000000\r\n", "Content-Length: 10\r\n", "Transfer-Encoding: chunked\r\n",
			"Content-Length: 10\r\nExpect: 100-continue\r\n",
		} {
			t.Run(tt.name+" "+head, func(t *testing.T) {
				took := time.Hour
				for try := 0; try < 5 && took > pause; try++ { // this machine may be busy
					c, br := tt.dial(t)
					began := time.Now()
					resp := tt.ask(t, c, br, head+"\r\n")
					took = min(took, time.Since(began))
					if !resp.Close {
						t.Error("the connection is kept, want it closed")
					}
					if _, err := fmt.Fprint(c, "x"); err != nil {
						t.Errorf("sending on: %v", err)
					}
					if _, err := br.ReadByte(); err != io.EOF {
						t.Errorf("after the answer: got %v, want its end", err)
					}
				}
				if took > pause {
					t.Errorf("got the answer after %v, want less than %v", took, pause)
				}
			})
		}
	}
}
