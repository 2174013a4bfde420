package main

// Requests that cannot be sent on, and bodies that the caller cuts short: its
// own mistakes, which no function is blamed for.

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestAMalformedRequestIsARefusal(t *testing.T) {
	bothTransports(t, func(t *testing.T, args ...string) {
		var seen atomic.Int64
		p := newMemoryProvider()
		p.set("echo", nil, startReplica(t, func(w http.ResponseWriter, r *http.Request) { seen.Add(1) }))
		base := startGateway(t, p, args...)
		refusals := map[string]int{}

		for _, c := range []struct {
			head   string
			reason string
		}{
			{"Transfer-Encoding: chunked\r\nTrailer: Host\r\n\r\n0\r\n\r\n", malformedTrailer},
			{"Transfer-Encoding: chunked\r\nTrailer: X T\r\n\r\n0\r\n\r\n", malformedTrailer},
			{"Transfer-Encoding: chunked\r\nTrailer: X-Ok, host\r\n\r\n0\r\n\r\n", malformedTrailer},
			{"Connection: Upgrade\r\nUpgrade: \xff\r\n\r\n", malformedUpgrade},
		} {
			raw := dialRaw(t, base)
			raw.send("%s", "POST /function/echo HTTP/1.1\r\nHost: a\r\n"+c.head)
			if resp, text := raw.receive("POST"); resp.StatusCode != 400 || !strings.Contains(text, string(c.reason)) {
				t.Errorf("%q: got %d %q, want 400 that says %q", c.head, resp.StatusCode, text, c.reason)
			}
			refusals[c.reason]++
		}
		for _, c := range []struct {
			method, authority, path string
			reason                  string
		}{
			{"GE T", "a", "/function/echo", malformedMethod},
			{"GET", "a/b", "/function/echo", malformedHost},
			{"GET", "a", "/function/echo?a b", malformedQuery},
		} {
			got := http2Status(t, base, "", ":method", c.method, ":scheme", "http", ":authority", c.authority, ":path", c.path)
			if got != 400 {
				t.Errorf("%q %q %q: got %d, want 400", c.method, c.authority, c.path, got)
			}
			refusals[c.reason]++
		}
		if got := http2Status(t, base, "", ":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/function/echo"); got != 200 {
			t.Errorf("a sound request: got %d, want 200", got)
		}

		if got := seen.Load(); got != 1 {
			t.Errorf("the function got %d requests, want the sound one", got)
		}
		for reason, n := range refusals {
			waitForMetric(t, base, fmt.Sprintf(`gateway_wire_refusals_total{reason=%q} %d`, reason, n))
		}
		wantCodes(t, base, "echo", map[int]int{200: 1})
	})
}

// A body that ends early is answered with 400, since its caller may have closed
// its side only, however long it took to do so.
func TestABodyCutShortIsTheCallersMistake(t *testing.T) {
	bothTransports(t, func(t *testing.T, args ...string) {
		p := newMemoryProvider()
		p.set("echo", nil, startReplica(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }))
		base := startGateway(t, p, args...)
		n := 0
		for _, pause := range []time.Duration{0, 5 * guardDelay} {
			for _, rest := range []string{
				"Content-Length: 100000\r\n\r\nshort", // streamed
				"Content-Length: 100\r\n\r\nshort",    // read ahead
				"Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
				"Transfer-Encoding: chunked\r\n\r\n9\r\nshort",
				"Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n0\r\n",
			} {
				c := dialRaw(t, base)
				c.send("POST /function/echo HTTP/1.1\r\nHost: a\r\n%s", rest)
				time.Sleep(pause) // the case itself: the invocation is guarded by now
				c.Conn.(*net.TCPConn).CloseWrite()
				if resp, err := http.ReadResponse(c.br, nil); err != nil || resp.StatusCode != 400 {
					t.Errorf("%q after %v: got %v, %v, want 400", rest, pause, resp, err)
				}
				n++
			}
		}
		if got := http2Status(t, base, "short", ":method", "POST", ":scheme", "http", ":authority", "a", ":path", "/function/echo", "content-length", "100"); got != 400 {
			t.Errorf("HTTP/2: got %d, want 400", got)
		}
		n++
		waitForMetric(t, base, fmt.Sprintf(`gateway_wire_refusals_total{reason=%q} %d`, malformedShortEnd, n))
		wantCodes(t, base, "echo", map[int]int{400: n})
	})
}

// A caller that stalls in a body that no replica has seen a byte of has itself to
// blame; a replica that was sent the beginning has not answered either.
func TestACallerThatStallsInItsBody(t *testing.T) {
	bothTransports(t, func(t *testing.T, args ...string) {
		var seen atomic.Int64
		p := newMemoryProvider()
		p.set("echo", func(d *definition) { d.timeout = time.Second }, startReplica(t, func(w http.ResponseWriter, r *http.Request) {
			seen.Add(1)
			io.Copy(io.Discard, r.Body)
		}))
		base := startGateway(t, p, args...)
		awaitReady(t, base, "echo")
		for i := range 2 { // on a new connection to the replica, and on one that was kept
			raw := dialRaw(t, base)
			raw.send("POST /function/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabc")
			resp, text := raw.receive("POST")
			if resp.StatusCode != http.StatusRequestTimeout || !resp.Close || !strings.Contains(text, "body did not arrive within 1s") {
				t.Errorf("got %d %q, closed %v, want 408 that says why, and the connection closed", resp.StatusCode, text, resp.Close)
			}
			if got := seen.Load(); got != int64(i) {
				t.Errorf("the function got %d requests, want %d", got, i)
			}
			if i == 0 {
				call(t, "POST", base+"/function/echo", "whole")
			}
		}
		waitForMetric(t, base, fmt.Sprintf(`gateway_wire_refusals_total{reason=%q} 2`, stalledBody))
		wantCodes(t, base, "echo", map[int]int{200: 1, 408: 2})

		raw := dialRaw(t, base)
		raw.send("POST /function/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n%s", strings.Repeat("x", 50_000))
		if resp, text := raw.receive("POST"); resp.StatusCode != http.StatusGatewayTimeout {
			t.Errorf("a body that is streamed: got %d %q, want 504", resp.StatusCode, text)
		}
	})
}

// A connection that breaks in the middle of a body is a caller that went away.
func TestABodyThatBreaksOffIsACallerThatWentAway(t *testing.T) {
	bothTransports(t, func(t *testing.T, args ...string) {
		p := newMemoryProvider()
		p.set("echo", nil, startReplica(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }))
		base := startGateway(t, p, args...)
		for i, pause := range []time.Duration{0, 5 * guardDelay} {
			c := dialRaw(t, base)
			c.send("POST /function/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nshort")
			waitForMetric(t, base, `gateway_function_invocation_inflight{function_name="echo"} 1`)
			time.Sleep(pause)
			c.Conn.(*net.TCPConn).SetLinger(0)
			c.Close()
			waitForMetric(t, base, fmt.Sprintf(`gateway_function_invocation_total{code="499",function_name="echo"} %d`, i+1))
		}
		wantCodes(t, base, "echo", map[int]int{499: 2})
	})
}

// wantCodes waits until the function's invocations have ended, and compares
// how many did with which status.
func wantCodes(t *testing.T, base, function string, want map[int]int) {
	t.Helper()
	waitForMetric(t, base, fmt.Sprintf(`gateway_function_invocation_inflight{function_name=%q} 0`, function))
	_, text := call(t, "GET", base+"/metrics", "")
	got := map[int]int{}
	for line := range strings.Lines(text) {
		var code, n int
		if _, err := fmt.Sscanf(line, `gateway_function_invocation_total{code="%d",function_name="`+function+`"} %d`, &code, &n); err == nil {
			got[code] = n
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("invocations of %s by status: got %v, want %v", function, got, want)
	}
}

// http2Status sends one request over HTTP/2 in frames of its own, as Go's
// client refuses to send what is malformed, and returns the answer's status.
func http2Status(t *testing.T, base, body string, fields ...string) int {
	t.Helper()
	const data, headers, endStream, endHeaders = 0, 1, 1, 4
	frame := func(kind, flags byte, stream uint32, payload string) string {
		head := binary.BigEndian.AppendUint32(nil, uint32(len(payload)))
		head = append(head[1:], kind, flags)
		return string(binary.BigEndian.AppendUint32(head, stream)) + payload
	}
	var block strings.Builder // RFC 7541, section 6.2.2: literals without indexing
	for i := 0; i < len(fields); i += 2 {
		fmt.Fprintf(&block, "\x00%c%s%c%s", len(fields[i]), fields[i], len(fields[i+1]), fields[i+1])
	}
	c := dialRaw(t, base)
	defer c.Close()
	c.send("%s", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"+frame(4, 0, 0, ""))
	if body == "" {
		c.send("%s", frame(headers, endStream|endHeaders, 1, block.String()))
	} else {
		c.send("%s", frame(headers, endHeaders, 1, block.String())+frame(data, endStream, 1, body))
	}
	for {
		var head [9]byte
		if _, err := io.ReadFull(c.br, head[:]); err != nil {
			t.Fatalf("%q: no answer: %v", fields, err)
		}
		payload := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
		if _, err := io.ReadFull(c.br, payload); err != nil {
			t.Fatal(err)
		}
		if head[3] == headers {
			// RFC 7541, appendix A: what a server sends :status as first.
			return map[byte]int{0x88: 200, 0x8c: 400, 0x8d: 404, 0x8e: 500}[payload[0]]
		}
	}
}
