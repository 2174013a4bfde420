package main

// /async-function/ with another program behind it, which a test stands in for.

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// startAsyncStandIn starts a program that takes calls, and tells of each what it
// got.
func startAsyncStandIn(t *testing.T) (url string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			w.Header().Set("Seen-Error", err.Error())
		}
		w.Header().Set("Seen", r.Method+" "+r.RequestURI)
		w.Header().Set("Seen-Host", r.Host)
		w.Header().Set("Seen-For", r.Header.Get("X-Forwarded-For"))
		w.Header().Set("X-Call-Id", r.Header.Get("X-Call-Id"))
		w.Header().Set("X-Start-Time", r.Header.Get("X-Start-Time"))
		w.WriteHeader(http.StatusAccepted)
		w.Write(body)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestAsyncRoute(t *testing.T) {
	p := newMemoryProvider()
	p.set("echo", nil, startReplica(t, echoReplica))
	base := startGateway(t, p, "-async", startAsyncStandIn(t))
	for _, c := range []struct {
		name, method, path string
		status             int // 202: it was passed on
	}{
		{"a call", "POST", "/async-function/echo", 202},
		{"path and query", "PUT", "/async-function/echo/a%2Fb/%e2%82%ac//c/../d?x=1&y=%zz;", 202},
		{"an empty query", "POST", "/async-function/echo?", 202},
		{"with the namespace", "POST", "/async-function/echo.openfaas-fn/x", 202},
		{"with another namespace", "POST", "/async-function/echo.other/x", 404},
		{"no such function", "POST", "/async-function/nope", 404},
		{"no name", "POST", "/async-function/", 404},
		{"no function's name", "POST", "/async-function/a%2fb", 404},
		{"about a call", "GET", "/async-function/0f3c-1", 202},
		{"cancelling a call", "DELETE", "/async-function/0f3c-1", 202},
		{"a call by GET", "GET", "/async-function/echo/", 202},
		{"a call by GET of no function", "GET", "/async-function/nope/", 404},
		{"not below it", "POST", "/async-function", 404},
	} {
		t.Run(c.name, func(t *testing.T) {
			resp, body := call(t, c.method, base+c.path, "hello", "Host", "shop.example", "X-Forwarded-For", "6.6.6.6", "X-Start-Time", "1")
			if resp.StatusCode != c.status {
				t.Fatalf("got status %d, body %q, want %d", resp.StatusCode, body, c.status)
			}
			if c.status != http.StatusAccepted {
				return
			}
			if got, want := resp.Header.Get("Seen"), c.method+" "+c.path; got != want {
				t.Errorf("the other end saw %q, want %q", got, want)
			}
			if body != "hello" {
				t.Errorf("it got the body %q, want hello", body)
			}
			if got, want := resp.Header.Get("Seen-Host"), strings.TrimPrefix(base, "http://"); got != want {
				t.Errorf("it saw the host %q, want the caller's, %q", got, want)
			}
			if got := resp.Header.Get("Seen-For"); got != "127.0.0.1" {
				t.Errorf("it saw X-Forwarded-For %q, want 127.0.0.1", got)
			}
			if got := resp.Header.Get("X-Call-Id"); len(got) != 36 {
				t.Errorf("got the call ID %q, want a UUID", got)
			}
			if got := resp.Header.Get("X-Start-Time"); len(got) != 19 {
				t.Errorf("got the start time %q, want nanoseconds of now", got)
			}
		})
	}
	if resp, _ := call(t, "POST", base+"/async-function/echo", "", "X-Call-Id", "mine-1"); resp.Header.Get("X-Call-Id") != "mine-1" {
		t.Errorf("got the call ID %q, want the caller's", resp.Header.Get("X-Call-Id"))
	}
	if _, body := call(t, "GET", base+"/metrics", ""); !strings.Contains(body, `gateway_requests_total{route="async"} 13`) {
		t.Errorf("the requests are not counted: %s", body)
	}
}

func TestAsyncRouteNotSet(t *testing.T) {
	p := newMemoryProvider()
	p.set("echo", nil, startReplica(t, echoReplica))
	resp, body := call(t, "POST", startGateway(t, p)+"/async-function/echo", "hello")
	if resp.StatusCode != http.StatusNotImplemented || !strings.Contains(body, "-async http://") {
		t.Errorf("got %d, %q, want 501 that names the flag", resp.StatusCode, body)
	}
}

// Where the other end is gone, or takes the connection and says nothing, the
// caller is told to come again; and is served once it is back.
func TestAsyncRouteAway(t *testing.T) {
	p := newMemoryProvider()
	p.set("echo", nil, startReplica(t, echoReplica))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	base := startGateway(t, p, "-async", "http://"+ln.Addr().String())
	for range 2 {
		resp, body := call(t, "POST", base+"/async-function/echo", "hello")
		if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || strings.Contains(body, ln.Addr().String()) {
			t.Errorf("got %d, Retry-After %q, %q, want 503 that says when, and nothing internal", resp.StatusCode, resp.Header.Get("Retry-After"), body)
		}
	}
	if ln, err = net.Listen("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) })}
	defer s.Close()
	go s.Serve(ln)
	if resp, body := call(t, "POST", base+"/async-function/echo", "hello"); resp.StatusCode != http.StatusAccepted {
		t.Errorf("back again: got %d, %q, want 202", resp.StatusCode, body)
	}
}

func TestAsyncRouteDeadline(t *testing.T) {
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	defer silent.Close()
	c, err := parseConfig([]string{"-async", silent.URL, "-samples=false"}, env(), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	r := newRegistry(&c, newMemoryProvider(), slog.New(slog.DiscardHandler))
	g := newGateway(&c, r, &upstream{}, newMetrics(r.functions), slog.New(slog.DiscardHandler))
	defer g.cutOff()
	g.async.deadline = 50 * time.Millisecond
	s := httptest.NewServer(g)
	defer s.Close()
	resp, body := call(t, "GET", s.URL+"/async-function/some-call", "")
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("got %d, %q, want 503", resp.StatusCode, body)
	}
}

// A body that its caller breaks off reaches the other end as such.
func TestAsyncRouteBrokenBody(t *testing.T) {
	p := newMemoryProvider()
	p.set("echo", nil, startReplica(t, echoReplica))
	whole, broken := make(chan string, 1), make(chan error, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			broken <- err
			return
		}
		whole <- string(body)
	}))
	defer s.Close()
	base := startGateway(t, p, "-async", s.URL)
	for _, c := range []struct{ name, rest string }{
		{"ends early", "Content-Length: 10\r\n\r\nhello"},
		{"chunks without an end", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprintf(conn, "POST /async-function/echo HTTP/1.1\r\nHost: x\r\n%s", c.rest)
			conn.(*net.TCPConn).CloseWrite()
			answer, _ := io.ReadAll(conn)
			if len(answer) > 0 && !strings.HasPrefix(string(answer), "HTTP/1.1 400 ") {
				t.Errorf("got %q, want 400 or nothing", answer)
			}
			select {
			case <-broken:
			case body := <-whole:
				t.Errorf("the other end took %q for all of the body", body)
			}
		})
	}
}

// A refusal of the other end does not wait for a body either, and costs nobody the
// connection whose body is here.
func TestAsyncRouteRefusal(t *testing.T) {
	p := newMemoryProvider()
	p.set("echo", nil, startReplica(t, echoReplica))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery == "read" {
			io.Copy(io.Discard, r.Body)
			w.WriteHeader(http.StatusAccepted)
			return
		}
		control := http.NewResponseController(w)
		control.EnableFullDuplex()
		control.SetReadDeadline(time.Unix(1, 0))
		w.Header().Set("Connection", "close")
		http.Error(w, "busy", http.StatusTooManyRequests)
	}))
	defer s.Close()
	base := startGateway(t, p, "-async", s.URL)
	for _, c := range []struct {
		query, rest string
		status      int
		closed      bool
	}{
		{"", "Content-Length: 10\r\n\r\n", 429, true},
		{"", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", 429, true},
		{"", "Content-Length: 10000000\r\n\r\n", 429, true},
		{"", "Content-Length: 5\r\n\r\nhello", 429, false},
		{"read", "Content-Length: 5\r\n\r\nhello", 202, false},
		{"read", "Content-Length: 5\r\nExpect: 100-continue\r\n\r\nhello", 202, false},
	} {
		t.Run(c.query+" "+c.rest, func(t *testing.T) {
			conn := dialRaw(t, base)
			conn.send("POST /async-function/echo?%s HTTP/1.1\r\nHost: x\r\n%s", c.query, c.rest)
			resp, _ := conn.receive("POST")
			for resp.StatusCode == http.StatusContinue {
				resp, _ = conn.receive("POST")
			}
			if resp.StatusCode != c.status || resp.Close != c.closed {
				t.Errorf("got %d, closed %v, want %d, closed %v", resp.StatusCode, resp.Close, c.status, c.closed)
			}
		})
	}
}
