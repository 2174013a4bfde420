package main

// What passes through the whole gateway on the wire, with both transports.

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A rawClient is a connection on which a test writes bytes itself.
type rawClient struct {
	net.Conn
	t  *testing.T
	br *bufio.Reader
}

func dialRaw(t *testing.T, base string) *rawClient {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return &rawClient{c, t, bufio.NewReader(c)}
}

func (c *rawClient) send(format string, args ...any) {
	c.t.Helper()
	if _, err := fmt.Fprintf(c, format, args...); err != nil {
		c.t.Fatal(err)
	}
}

// receive reads one answer to a request of the method.
func (c *rawClient) receive(method string) (*http.Response, string) {
	c.t.Helper()
	resp, err := http.ReadResponse(c.br, &http.Request{Method: method})
	if err != nil {
		c.t.Fatalf("no answer: %v", err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatalf("body of a %d: %v", resp.StatusCode, err)
	}
	return resp, string(b)
}

func TestAnUpgradedConnectionPasses(t *testing.T) {
	bothTransports(t, func(t *testing.T, args ...string) {
		ended := make(chan struct{})
		p := newMemoryProvider()
		p.set("ws", nil, startReplica(t, func(w http.ResponseWriter, r *http.Request) {
			defer close(ended)
			if r.Header.Get("Connection") != "Upgrade" || r.Header.Get("Upgrade") != "websocket" || r.Header.Get("Sec-Websocket-Key") != "k" {
				t.Errorf("the function got headers %v", r.Header)
			}
			conn, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: a\r\n\r\nhello")
			io.Copy(conn, rw)
		}))
		base := startGateway(t, p, args...)
		c := dialRaw(t, base)
		c.send("GET /function/ws/chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\nSec-WebSocket-Version: 13\r\n\r\n")
		resp, err := http.ReadResponse(c.br, nil)
		if err != nil || resp.StatusCode != 101 || resp.Header.Get("Sec-Websocket-Accept") != "a" || resp.Header.Get("Upgrade") != "websocket" {
			t.Fatalf("got %+v, %v, want 101 and the function's headers", resp, err)
		}
		// A masked text frame, and bytes that are no HTTP at all.
		for _, part := range []string{"hello", "\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", "\r\n\x00\xff GET / HTTP/9.9\n\n"} {
			if part != "hello" {
				c.send("%s", part)
			}
			got := make([]byte, len(part))
			if _, err := io.ReadFull(c.br, got); err != nil || string(got) != part {
				t.Fatalf("got %q, %v, want %q", got, err, part)
			}
		}
		c.Close()
		<-ended
		// The handler of the gateway has counted it when its replica is free.
		waitForMetric(t, base, `gateway_function_invocation_total{code="101",function_name="ws"} 1`)
	})
}

// waitForMetric waits until a line is exposed: what is counted after the
// answer is counted a moment after the caller has it.
func waitForMetric(t *testing.T, base, want string) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		_, text := call(t, "GET", base+"/metrics", "")
		if strings.Contains(text, want+"\n") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("metrics lack %s", want)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestServerSentEventsAreFlushedAtOnce(t *testing.T) {
	bothTransports(t, func(t *testing.T, args ...string) {
		next := make(chan string)
		p := newMemoryProvider()
		p.set("sse", nil, startReplica(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			for event := range next {
				fmt.Fprintf(w, "data: %s\n\n", event)
				http.NewResponseController(w).Flush()
			}
		}))
		base := startGateway(t, p, args...)
		c := dialRaw(t, base)
		c.send("GET /function/sse HTTP/1.1\r\nHost: x\r\n\r\n")
		var body *bufio.Reader
		for i := range 3 {
			next <- fmt.Sprint(i)
			if body == nil {
				resp, err := http.ReadResponse(c.br, nil)
				if err != nil {
					t.Fatal(err)
				}
				body = bufio.NewReader(resp.Body)
			}
			if got, err := body.ReadString('\n'); err != nil || got != fmt.Sprintf("data: %d\n", i) {
				t.Fatalf("event %d: got %q, %v", i, got, err)
			}
			body.ReadString('\n')
		}
		close(next)
		if rest, err := io.ReadAll(body); err != nil || len(rest) > 0 {
			t.Errorf("got %q, %v, want the end", rest, err)
		}
	})
}

func TestTrailersPassBothWays(t *testing.T) {
	bothTransports(t, func(t *testing.T, args ...string) {
		p := newMemoryProvider()
		p.set("f", nil, startReplica(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Trailer", "X-Announced")
			b, _ := io.ReadAll(r.Body)
			w.Write(b)
			http.NewResponseController(w).Flush()
			w.Header().Set("X-Announced", r.Trailer.Get("X-Sum"))
			w.Header().Set(http.TrailerPrefix+"X-Late", "late")
		}))
		base := startGateway(t, p, args...)
		c := dialRaw(t, base)
		for range 2 {
			c.send("POST /function/f HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 42\r\n\r\n")
			resp, body := c.receive("POST")
			if body != "hello" || resp.Trailer.Get("X-Announced") != "42" || resp.Trailer.Get("X-Late") != "late" {
				t.Errorf("got %q and trailers %v, want hello, X-Announced: 42 from the request's trailer, X-Late: late", body, resp.Trailer)
			}
		}
	})
}

func TestMethodsAndFraming(t *testing.T) {
	bothTransports(t, func(t *testing.T, args ...string) {
		p := newMemoryProvider()
		p.set("f", nil, startReplica(t, func(w http.ResponseWriter, r *http.Request) {
			http.NewResponseController(w).EnableFullDuplex()
			w.Header().Set("Seen", fmt.Sprintf("%s %d %v", r.Method, r.ContentLength, r.TransferEncoding))
			switch r.Method {
			case "HEAD":
				w.Header().Set("Content-Length", "1234")
			case "OPTIONS":
				w.WriteHeader(http.StatusNoContent)
			case "DELETE":
				w.WriteHeader(http.StatusNotModified)
			default:
				io.Copy(w, r.Body)
			}
		}))
		base := startGateway(t, p, args...)
		c := dialRaw(t, base) // one connection for all: each answer must end where it should
		for _, s := range []struct {
			method, rest string
			status       int
			seen, body   string
		}{
			{"HEAD", "\r\n", 200, "HEAD 0 []", ""},
			{"OPTIONS", "\r\n", 204, "OPTIONS 0 []", ""},
			{"DELETE", "\r\n", 304, "DELETE 0 []", ""},
			{"POST", "Content-Length: 5\r\n\r\nhello", 200, "POST 5 []", "hello"},
			{"POST", "Content-Length: 0\r\n\r\n", 200, "POST 0 []", ""},
			{"POST", "Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;ext=1\r\nlo\r\n0\r\n\r\n", 200, "POST -1 [chunked]", "hello"},
			{"PROPFIND", "Content-Length: 2\r\n\r\nhi", 200, "PROPFIND 2 []", "hi"},
			{"PATCH", "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n", 200, "PATCH 5 []", "hello"},
			{"GET", "\r\n", 200, "GET 0 []", ""},
		} {
			c.send("%s /function/f HTTP/1.1\r\nHost: x\r\n%s", s.method, s.rest)
			if s.method == "PATCH" {
				if line, err := c.br.ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" {
					t.Fatalf("Expect: got %q, %v, want 100 Continue", line, err)
				}
				c.br.ReadString('\n')
				c.send("hello")
			}
			resp, body := c.receive(s.method)
			if resp.StatusCode != s.status || resp.Header.Get("Seen") != s.seen || body != s.body {
				t.Errorf("%s %q: got %d, seen %q, body %q, want %d, %q, %q", s.method, s.rest, resp.StatusCode, resp.Header.Get("Seen"), body, s.status, s.seen, s.body)
			}
			if s.method == "HEAD" && resp.ContentLength != 1234 {
				t.Errorf("HEAD: got Content-Length %d, want the function's 1234", resp.ContentLength)
			}
		}
	})
}

func TestInterimResponsesPass(t *testing.T) {
	bothTransports(t, func(t *testing.T, args ...string) {
		p := newMemoryProvider()
		p.set("f", nil, startReplica(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "</style.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			io.WriteString(w, "done")
		}))
		base := startGateway(t, p, args...)
		var hints []string
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			hints = append(hints, fmt.Sprint(code, " ", h.Get("Link")))
			return nil
		}})
		req, _ := http.NewRequestWithContext(ctx, "GET", base+"/function/f", nil)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if b, _ := io.ReadAll(resp.Body); string(b) != "done" || len(hints) != 1 || hints[0] != "103 </style.css>; rel=preload" {
			t.Errorf("got %q after %q, want done after one 103", b, hints)
		}
	})
}

func TestHTTP2WithoutTLS(t *testing.T) {
	bothTransports(t, func(t *testing.T, args ...string) {
		p := newMemoryProvider()
		p.set("echo", nil, startReplica(t, echoReplica))
		base := startGateway(t, p, args...)
		protocols := new(http.Protocols)
		protocols.SetUnencryptedHTTP2(true)
		transport := &http.Transport{Protocols: protocols}
		defer transport.CloseIdleConnections()
		client := &http.Client{Transport: transport}
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				body := strings.Repeat(fmt.Sprint(i, " "), 10000)
				resp, err := client.Post(base+"/function/echo/x?y=1", "text/plain", strings.NewReader(body))
				if err != nil {
					t.Error(err)
					return
				}
				defer resp.Body.Close()
				got, err := io.ReadAll(resp.Body)
				if err != nil || resp.ProtoMajor != 2 || resp.StatusCode != 200 || string(got) != body {
					t.Errorf("got HTTP/%d, %d, %d bytes, %v, want HTTP/2, 200 and the body", resp.ProtoMajor, resp.StatusCode, len(got), err)
				}
			})
		}
		wg.Wait()
		// HTTP/2 can carry a target that HTTP/1.1 cannot.
		req, _ := http.NewRequestWithContext(t.Context(), "GET", base, nil)
		req.URL.Path, req.URL.RawQuery = "/function/echo", "a b HTTP/1.1"
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if seen := resp.Header.Get("Seen-Request"); resp.StatusCode != 400 || seen != "" {
			t.Errorf("a query with spaces: got %d, and the function saw %q, want 400 and nothing", resp.StatusCode, seen)
		}
	})
}

func TestAPipelinedPair(t *testing.T) {
	bothTransports(t, func(t *testing.T, args ...string) {
		p := newMemoryProvider()
		p.set("echo", nil, startReplica(t, echoReplica))
		c := dialRaw(t, startGateway(t, p, args...))
		c.send("POST /function/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nfirst" +
			"POST /function/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nsecond\r\n0\r\n\r\n")
		for _, want := range []string{"first", "second"} {
			if resp, got := c.receive("POST"); resp.StatusCode != 200 || got != want {
				t.Errorf("got %d %q, want 200 %q", resp.StatusCode, got, want)
			}
		}
	})
}

// A few of the shapes of wire_test.go, through everything.
func TestSmugglingShapesReachNoFunction(t *testing.T) {
	bothTransports(t, func(t *testing.T, args ...string) {
		var seen atomic.Int64
		p := newMemoryProvider()
		p.set("f", nil, startReplica(t, func(w http.ResponseWriter, r *http.Request) { seen.Add(1) }))
		base := startGateway(t, p, args...)
		const line = "POST /function/f HTTP/1.1\r\nHost: x\r\n"
		for name, request := range map[string]string{
			"two lengths":               line + "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
			"length and coding":         line + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
			"odd coding":                line + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
			"two codings":               line + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
			"bare LF":                   "POST /function/f HTTP/1.1\nHost: x\n\n",
			"folded line":               line + "X-A: 1\r\n 2\r\n\r\n",
			"space before colon":        line + "Content-Length : 3\r\n\r\nabc",
			"signed length":             line + "Content-Length: +3\r\n\r\nabc",
			"two hosts":                 line + "Host: y\r\n\r\n",
			"no host":                   "GET /function/f HTTP/1.1\r\n\r\n",
			"NUL in a value":            line + "X-A: \x00\r\n\r\n",
			"coding with HTTP/1.0":      "POST /function/f HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
			"a space in the target":     "GET /function/f x HTTP/1.1\r\nHost: x\r\n\r\n",
			"control byte in the query": "GET /function/f?\x01 HTTP/1.1\r\nHost: x\r\n\r\n",
		} {
			c := dialRaw(t, base)
			c.send("%s", request)
			resp, err := http.ReadResponse(c.br, nil)
			if err != nil || resp.StatusCode != 400 {
				t.Errorf("%s: got %v, %v, want 400", name, resp, err)
			}
		}
		if n := seen.Load(); n > 0 {
			t.Errorf("the function saw %d of them", n)
		}
	})
}

// Who sends or reads slowly loses its own request at the limit, and others
// are answered meanwhile.
func TestSlowPeersCostOnlyThemselves(t *testing.T) {
	bothTransports(t, func(t *testing.T, args ...string) {
		p := newMemoryProvider()
		limit := func(d *definition) { d.timeout = 500 * time.Millisecond }
		p.set("sink", limit, startReplica(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }))
		var broken atomic.Int64
		source := make(chan struct{}, 1)
		p.set("source", limit, startReplica(t, func(w http.ResponseWriter, r *http.Request) {
			defer func() { source <- struct{}{} }()
			chunk := make([]byte, 1<<20)
			for {
				if _, err := w.Write(chunk); err != nil {
					broken.Add(1)
					return
				}
			}
		}))
		base := startGateway(t, p, args...)

		sender := dialRaw(t, base)
		sender.send("POST /function/sink HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nsome")
		reader := dialRaw(t, base)
		reader.send("GET /function/source HTTP/1.1\r\nHost: x\r\n\r\n")
		for range 20 {
			if resp, _ := call(t, "POST", base+"/function/sink", "quick"); resp.StatusCode != 200 {
				t.Errorf("somebody else: got %d, want 200", resp.StatusCode)
			}
		}
		if resp, body := sender.receive("POST"); resp.StatusCode != 504 || !strings.Contains(body, "500ms") {
			t.Errorf("slow sender: got %d %q, want 504 that names the limit", resp.StatusCode, body)
		}
		// What it sends now must not be taken for a request.
		io.WriteString(sender, "GET /function/sink HTTP/1.1\r\nHost: x\r\n\r\n")
		if rest, _ := io.ReadAll(sender.br); len(rest) > 0 {
			t.Errorf("slow sender: got %q after its answer", rest)
		}
		<-source // the function was cut off, too
		if broken.Load() != 1 {
			t.Error("slow reader: the function could write on")
		}
		waitForMetric(t, base, `gateway_function_invocation_total{code="504",function_name="source"} 1`)
	})
}

// A function may answer without reading the body. The caller has the answer at
// once, and a body that it never finishes holds neither a place nor a replica.
func TestAnAnswerDoesNotWaitForTheRestOfTheBody(t *testing.T) {
	bothTransports(t, func(t *testing.T, args ...string) {
		p := newMemoryProvider()
		// net/http's server would wait for the body.
		addr := startScriptedReplica(t, func(_ int64, c net.Conn) {
			for br := bufio.NewReader(c); ; {
				line, err := br.ReadString('\n')
				if err != nil {
					return
				}
				if line == "\r\n" {
					break
				}
			}
			io.WriteString(c, "HTTP/1.1 403 Forbidden\r\nContent-Length: 7\r\n\r\ngo away")
			io.Copy(io.Discard, c)
		})
		p.set("hasty", func(d *definition) { d.maxInflight = 1; d.timeout = 15 * time.Second }, addr)
		base := startGateway(t, p, args...)
		for name, framing := range map[string]string{
			"length":  "Content-Length: 100000\r\n\r\nsome",
			"chunked": "Transfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n",
		} {
			began := time.Now()
			c := dialRaw(t, base)
			c.send("POST /function/hasty HTTP/1.1\r\nHost: x\r\n%s", framing)
			if resp, body := c.receive("POST"); resp.StatusCode != 403 || body != "go away" {
				t.Errorf("%s: got %d %q, want 403 go away", name, resp.StatusCode, body)
			}
			io.WriteString(c, "GET /function/hasty HTTP/1.1\r\nHost: x\r\n\r\n")
			if rest, _ := io.ReadAll(c.br); len(rest) > 0 {
				t.Errorf("%s: got %q after the answer", name, rest)
			}
			waitForMetric(t, base, `gateway_function_invocation_inflight{function_name="hasty"} 0`)
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("%s: the answer or the place in the function took %v, want no wait for the limit", name, took)
			}
		}
	})
}

// A caller that stops sending is not waited for where nothing is invoked.
func TestARefusalDoesNotWaitForABody(t *testing.T) {
	p := newMemoryProvider()
	p.set("full", func(d *definition) { d.scale.fixed = true })
	base := startGateway(t, p, "-queue", "0")
	for path, status := range map[string]int{"/function/nope": 404, "/nope": 404, "/healthz": 200, "/function/full": 429} {
		c := dialRaw(t, base)
		c.send("PUT %s HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nsome", path)
		if resp, _ := c.receive("PUT"); resp.StatusCode != status {
			t.Errorf("%s: got %d, want %d", path, resp.StatusCode, status)
		}
	}
}

// A caller that has closed its side is taken for gone. It must not read an
// empty 200.
func TestACallerThatIsGoneGetsNoSuccess(t *testing.T) {
	bothTransports(t, func(t *testing.T, args ...string) {
		inside := make(chan struct{}, 1)
		p := newMemoryProvider()
		p.set("f", nil, startReplica(t, func(w http.ResponseWriter, r *http.Request) {
			inside <- struct{}{}
			<-r.Context().Done()
		}))
		base := startGateway(t, p, args...)
		c := dialRaw(t, base)
		c.send("GET /function/f HTTP/1.1\r\nHost: x\r\n\r\n")
		<-inside
		c.Conn.(*net.TCPConn).CloseWrite()
		if got, _ := io.ReadAll(c.br); len(got) > 0 {
			t.Errorf("got %q, want no answer", got)
		}
		waitForMetric(t, base, `gateway_function_invocation_total{code="499",function_name="f"} 1`)
	})
}

// What is left of the limit is told after the wait for a replica.
func TestTheTimeLeftIsCountedAfterTheQueue(t *testing.T) {
	p := newMemoryProvider()
	p.set("late", func(d *definition) { d.scale.fixed = true })
	base := startGateway(t, p)
	addr := startReplica(t, echoReplica)
	answer := make(chan *http.Response, 1)
	go func() {
		resp, err := http.Get(base + "/function/late")
		if err != nil {
			t.Error(err)
		}
		answer <- resp
	}()
	waitForMetric(t, base, `gateway_queue_waiting{function_name="late"} 1`)
	time.Sleep(500 * time.Millisecond) // not for order: for time to pass
	p.setAddrs("late", addr)
	resp := <-answer
	if resp == nil {
		t.FailNow()
	}
	resp.Body.Close()
	left, err := time.ParseDuration(resp.Header.Get("Seen-X-Timeout"))
	if err != nil || left > 9500*time.Millisecond {
		t.Errorf("got X-Timeout %v, %v, want at most 9.5s of 10s", left, err)
	}
}

// Waiting for a replica until the function's own limit is over is still
// waiting for a replica.
func TestALimitShorterThanTheQueueIs503(t *testing.T) {
	p := newMemoryProvider()
	p.set("none", func(d *definition) { d.scale.fixed = true; d.timeout = 100 * time.Millisecond })
	base := startGateway(t, p, "-queue-timeout", "20s")
	if resp, body := call(t, "GET", base+"/function/none", ""); resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("got %d %q, want 503 with Retry-After", resp.StatusCode, body)
	}
}

func TestIdleConnectionsKeepNobodyOut(t *testing.T) {
	p := newMemoryProvider()
	p.set("echo", nil, startReplica(t, echoReplica))
	base := startGateway(t, p)
	n := 1000 // 10,000 are in BenchmarkIdleConnections, in a process of its own
	for range n {
		dialRaw(t, base)
	}
	if resp, got := call(t, "POST", base+"/function/echo", "hello"); resp.StatusCode != 200 || got != "hello" {
		t.Errorf("got %d %q, want 200 hello", resp.StatusCode, got)
	}
}

func TestAVeryLargeBodyOfAPUTIsNotSentTwice(t *testing.T) {
	bothTransports(t, func(t *testing.T, args ...string) {
		var got atomic.Int64
		addr := startScriptedReplica(t, func(n int64, c net.Conn) {
			got.Add(1)
			io.CopyN(io.Discard, c, 2*replayLimit)
		})
		p := newMemoryProvider()
		p.set("dies", nil, addr)
		base := startGateway(t, p, args...)
		req, _ := http.NewRequestWithContext(t.Context(), "PUT", base+"/function/dies", bytes.NewReader(make([]byte, 8<<20)))
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode != 502 {
				t.Errorf("got %d, want 502", resp.StatusCode)
			}
		} else if errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if got.Load() != 1 {
			t.Errorf("it was sent %s times, want once", strconv.FormatInt(got.Load(), 10))
		}
	})
}
