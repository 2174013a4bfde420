package main

// What passes through the whole gateway on the wire, with both transports.

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

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

// A few of the shapes of internal/wire's tests, through everything.
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
