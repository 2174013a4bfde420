package main

// Replicas that die while their caller pauses, and what is left of the caller's
// connection when its function has failed.

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"faas/internal/tcptest"
)

// bodyFramings are two ways to send a body in two parts.
var bodyFramings = []struct {
	name string
	head func(size int) string
	part func(data string) string
	end  string
}{
	{"sized", func(size int) string { return fmt.Sprintf("Content-Length: %d\r\n", size) }, func(data string) string { return data }, ""},
	{"chunked", func(int) string { return "Transfer-Encoding: chunked\r\n" },
		func(data string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(data), data) }, "0\r\n\r\n"},
}

// A replica that dies while the caller pauses in its body is noticed then, and
// not when the limit is reached. Where it may, the request goes on elsewhere,
// and nothing of its body is lost, doubled or out of order.
func TestAReplicaThatDiesWhileTheCallerPauses(t *testing.T) {
	const sizeSoFar, size = 20 << 10, 40 << 10
	body := newChaff(size)
	text, _ := io.ReadAll(body)
	bothTransports(t, func(t *testing.T, args ...string) {
		for _, framing := range bodyFramings {
			for _, c := range []struct {
				method string
				soFar  int // sent before the pause
				reset  bool
				status int
			}{
				{"POST", sizeSoFar, false, 502},
				{"POST", sizeSoFar, true, 502},
				{"PUT", 0, true, 200},
				{"PUT", sizeSoFar, false, 200},
				{"PUT", sizeSoFar, true, 200},
				{"PUT", replayLimit + 1, true, 502},
			} {
				t.Run(fmt.Sprintf("%s %s %d reset=%v", framing.name, c.method, c.soFar, c.reset), func(t *testing.T) {
					second := make(chan struct{})
					p := newMemoryProvider()
					p.set("f", nil, tcptest.Start(t, func(n int64, conn net.Conn) {
						br := bufio.NewReader(conn)
						req, err := http.ReadRequest(br)
						if err != nil {
							return
						}
						if n == 1 {
							io.CopyN(io.Discard, req.Body, int64(c.soFar))
							if c.reset {
								conn.(*net.TCPConn).SetLinger(0)
							}
							return
						}
						close(second)
						got, _ := io.ReadAll(req.Body) // what is missing shows in the answer
						answer := fmt.Sprintf("%v %d", string(got) == string(text), len(got))
						fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(answer), answer)
					}))
					conn := dialRaw(t, startGateway(t, p, args...))
					conn.send("%s /function/f HTTP/1.1\r\nHost: a\r\n%s\r\n", c.method, framing.head(size))
					if c.soFar > 0 {
						conn.send("%s", framing.part(string(text[:c.soFar])))
					}
					if c.status == 200 {
						within(t, "second attempt", second)
						conn.send("%s", framing.part(string(text[c.soFar:]))+framing.end)
					}
					resp, got := conn.receive(c.method)
					if resp.StatusCode != c.status || c.status == 200 && got != fmt.Sprintf("true %d", size) {
						t.Errorf("got %d %q, want %d and the whole body", resp.StatusCode, got, c.status)
					}
				})
			}
		}
	})
}

// Failures of a function do not cost its caller the connection, as long as the
// request has been read.
func TestAFailureKeepsTheCallersConnection(t *testing.T) {
	bothTransports(t, func(t *testing.T, args ...string) {
		p := newMemoryProvider()
		p.set("dies", nil, tcptest.Start(t, func(_ int64, c net.Conn) {
			if req, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				io.Copy(io.Discard, req.Body)
			}
		}))
		p.set("sleeps", func(d *definition) { d.timeout = 500 * time.Millisecond },
			startReplica(t, func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				<-r.Context().Done()
			}))
		p.set("none", func(d *definition) { d.scale.Fixed = true; d.timeout = 100 * time.Millisecond })
		base := startGateway(t, p, args...)
		awaitReady(t, base, "dies", "sleeps")
		c := dialRaw(t, base)
		for _, s := range []struct {
			function, body string
			status         int
		}{
			{"dies", "", 502}, {"sleeps", "", 504}, {"none", "", 503},
			{"dies", "body", 502}, {"sleeps", "body", 504},
			{"dies", strings.Repeat("x", 100<<10), 502}, {"sleeps", strings.Repeat("x", 100<<10), 504},
		} {
			head := ""
			if s.body != "" {
				head = fmt.Sprintf("Content-Length: %d\r\n", len(s.body))
			}
			c.send("POST /function/%s HTTP/1.1\r\nHost: a\r\n%s\r\n%s", s.function, head, s.body)
			resp, _ := c.receive("POST")
			if resp.StatusCode != s.status || resp.Close {
				t.Fatalf("%s, %d bytes: got %d, close %v, want %d and the connection kept", s.function, len(s.body), resp.StatusCode, resp.Close, s.status)
			}
		}
	})
}
