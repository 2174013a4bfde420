package transport

// The transport is held to http.Transport's behaviour: every wire scenario
// runs with both, plain and under a ReverseProxy, with the same expectations.

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

func TestTransportConformance(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	type expectation struct {
		status  int
		body    string
		trailer http.Header
		interim []int
		fails   bool // the round trip
		breaks  bool // the body
		conns   int32
	}
	tests := []struct {
		name   string
		method string
		answer string
		hangUp bool
		ours   bool        // http.Transport may get it wrong
		want   expectation // of each of two requests; conns of both together
	}{
		{name: "length", answer: ok + "Content-Length: 5\r\n\r\nhello",
			want: expectation{status: 200, body: "hello", conns: 1}},
		{name: "length twice", answer: ok + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
			want: expectation{status: 200, body: "hello", conns: 1}},
		{name: "bare line feeds", answer: "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
			want: expectation{status: 200, body: "hello", conns: 1}},
		{name: "no reason", answer: "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
			want: expectation{status: 200, conns: 1}},
		{name: "empty", answer: ok + "Content-Length: 0\r\n\r\n",
			want: expectation{status: 200, conns: 1}},
		{name: "long head", answer: ok + "X-Long: " + strings.Repeat("x", 20000) + "\r\nContent-Length: 5\r\n\r\nhello",
			want: expectation{status: 200, body: "hello", conns: 1}},
		{name: "long body", answer: ok + "Content-Length: 100000\r\n\r\n" + strings.Repeat("x", 100000),
			want: expectation{status: 200, body: strings.Repeat("x", 100000), conns: 1}},
		{name: "chunked", answer: ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;x=y\r\n!\r\n0\r\n\r\n",
			want: expectation{status: 200, body: "hello!", conns: 1}},
		{name: "trailers", answer: ok + "Transfer-Encoding: chunked\r\nTrailer: X-Sum, X-None\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
			want: expectation{status: 200, body: "hello", trailer: http.Header{"X-Sum": {"1"}}, conns: 1}},
		{name: "trailers not announced", answer: ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
			want: expectation{status: 200, body: "hello", trailer: http.Header{"X-Sum": {"1"}}, conns: 1}},
		{name: "HEAD", method: "HEAD", answer: ok + "Content-Length: 5\r\n\r\n",
			want: expectation{status: 200, conns: 1}},
		{name: "HEAD chunked", method: "HEAD", answer: ok + "Transfer-Encoding: chunked\r\n\r\n",
			want: expectation{status: 200, conns: 1}},
		{name: "204", answer: "HTTP/1.1 204 No Content\r\n\r\n",
			want: expectation{status: 204, conns: 1}},
		{name: "304 with length", answer: "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
			want: expectation{status: 304, conns: 1}},
		{name: "OPTIONS", method: "OPTIONS", answer: "HTTP/1.1 204 No Content\r\nAllow: GET\r\n\r\n",
			want: expectation{status: 204, conns: 1}},
		{name: "unknown method", method: "PURGE", answer: ok + "Content-Length: 0\r\n\r\n",
			want: expectation{status: 200, conns: 1}},
		{name: "Connection: close", answer: ok + "Connection: close\r\nContent-Length: 5\r\n\r\nhello",
			want: expectation{status: 200, body: "hello", conns: 2}},
		{name: "HTTP/1.0", answer: "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", hangUp: true,
			want: expectation{status: 200, body: "hello", conns: 2}},
		{name: "until close", answer: ok + "\r\nhello", hangUp: true,
			want: expectation{status: 200, body: "hello", conns: 2}},
		{name: "early hints", answer: "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + ok + "Content-Length: 5\r\n\r\nhello",
			want: expectation{status: 200, body: "hello", interim: []int{103, 103}, conns: 1}},
		{name: "101 without upgrade", answer: "HTTP/1.1 101 Switching Protocols\r\n\r\n", hangUp: true,
			want: expectation{status: 101, conns: 2}},
		{name: "answer and hang-up", answer: ok + "Content-Length: 5\r\n\r\nhello", hangUp: true,
			want: expectation{status: 200, body: "hello", conns: 2}},
		{name: "more than the answer", ours: true, answer: ok + "Content-Length: 5\r\n\r\nhello" + ok + "Content-Length: 4\r\n\r\nevil",
			want: expectation{status: 200, body: "hello", conns: 2}},
		{name: "more than no body", ours: true, answer: "HTTP/1.1 204 No Content\r\n\r\n" + ok + "Content-Length: 4\r\n\r\nevil",
			want: expectation{status: 204, conns: 2}},

		{name: "nothing", hangUp: true, want: expectation{fails: true, conns: 2}},
		{name: "cut in the head", answer: ok + "Content-Le", hangUp: true, want: expectation{fails: true, conns: 2}},
		{name: "cut in the body", answer: ok + "Content-Length: 9\r\n\r\nhello", hangUp: true,
			want: expectation{status: 200, body: "hello", breaks: true, conns: 2}},
		{name: "cut in a chunk", answer: ok + "Transfer-Encoding: chunked\r\n\r\n9\r\nhello", hangUp: true,
			want: expectation{status: 200, body: "hello", breaks: true, conns: 2}},
		{name: "cut between chunks", answer: ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", hangUp: true,
			want: expectation{status: 200, body: "hello", breaks: true, conns: 2}},
		{name: "cut before the trailer", answer: ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", hangUp: true,
			want: expectation{status: 200, body: "hello", breaks: true, conns: 2}},
		{name: "bad chunk size", answer: ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
			want: expectation{status: 200, body: "hello", breaks: true, conns: 2}},
		{name: "no end of chunk", answer: ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n",
			want: expectation{status: 200, body: "hello", breaks: true, conns: 2}},
		{name: "two lengths", answer: ok + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", want: expectation{fails: true, conns: 2}},
		{name: "negative length", answer: ok + "Content-Length: -5\r\n\r\nhello", want: expectation{fails: true, conns: 2}},
		{name: "signed length", answer: ok + "Content-Length: +5\r\n\r\nhello", want: expectation{fails: true, conns: 2}},
		{name: "unknown coding", answer: ok + "Transfer-Encoding: gzip\r\n\r\nhello", want: expectation{fails: true, conns: 2}},
		{name: "two codings", answer: ok + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", want: expectation{fails: true, conns: 2}},
		{name: "not HTTP", answer: "SSH-2.0-x\r\n\r\n", want: expectation{fails: true, conns: 2}},
		{name: "bad status", answer: "HTTP/1.1 2000 OK\r\n\r\n", want: expectation{fails: true, conns: 2}},
		{name: "no colon", answer: ok + "nonsense\r\n\r\n", want: expectation{fails: true, conns: 2}},
		{name: "NUL in a value", answer: ok + "X: a\x00b\r\n\r\n", want: expectation{fails: true, conns: 2}},
		{name: "bad trailer name", answer: ok + "Transfer-Encoding: chunked\r\nTrailer: Content-Length\r\n\r\n0\r\n\r\n", want: expectation{fails: true, conns: 2}},
		{name: "head too long", answer: ok + "X-Long: " + strings.Repeat("x", 70<<10) + "\r\n\r\n", hangUp: true, want: expectation{fails: true, conns: 2}},
	}
	for _, test := range tests {
		for _, side := range slices.Sorted(maps.Keys(wireSides)) {
			rts := transportsUnderTest(t)
			conns := &dialedConns{}
			rts["direct"].(*Transport).dial = conns.dial
			for name, rt := range rts {
				t.Run(test.name+"/"+side+"/"+name, func(t *testing.T) {
					if test.want.status == 101 && side == "proxied" {
						t.Skip("a ReverseProxy refuses it by itself")
					}
					if test.ours && name == "standard" {
						t.Skip("http.Transport takes the rest for the next answer now and then")
					}
					replica := startRawReplica(t, answering(test.answer, test.hangUp))
					want := test.want
					rt := wireSides[side](t, rt)
					for range 2 {
						method := cmp.Or(test.method, "GET")
						req, err := http.NewRequest(method, "http://"+replica.addr+"/", nil)
						if err != nil {
							t.Fatal(err)
						}
						got := wireTrip(rt, req)
						if test.hangUp && name == "direct" {
							conns.awaitEnd(t)
						}
						if want.breaks && side == "proxied" {
							// What came through before the abort is a matter of luck.
							if got.bodyErr == nil && got.err == nil {
								t.Errorf("got body %q without an error", got.body)
							}
							continue
						}
						if got.err != nil != want.fails {
							t.Fatalf("got error %v, want one: %v", got.err, want.fails)
						}
						if got.status != want.status || got.body != want.body {
							t.Errorf("got status %d, body %.80q, want %d, %.80q", got.status, got.body, want.status, want.body)
						}
						if got.bodyErr != nil != want.breaks {
							t.Errorf("got body error %v, want one: %v", got.bodyErr, want.breaks)
						}
						if !slices.Equal(got.interim, want.interim) {
							t.Errorf("got interim responses %v, want %v", got.interim, want.interim)
						}
						for k, v := range want.trailer {
							if !slices.Equal(got.trailer[k], v) {
								t.Errorf("got trailer %q: %q, want %q", k, got.trailer[k], v)
							}
						}
					}
					if got := replica.accepted.Load(); got != want.conns {
						t.Errorf("got %d connections for two requests, want %d", got, want.conns)
					}
				})
			}
		}
	}
}

// TestTransportStricter lists what http.Transport lets through and we do not.
func TestTransportStricter(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	tests := map[string]string{
		"length and coding":   ok + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"coding in HTTP/1.0":  "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"folded line":         ok + "X: a\r\n b\r\nContent-Length: 0\r\n\r\n",
		"space in a name":     ok + "X : a\r\nContent-Length: 0\r\n\r\n",
		"empty name":          ok + ": a\r\nContent-Length: 0\r\n\r\n",
		"status below 100":    "HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
		"version 2":           "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
		"interim without end": strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", maxInterim+1) + ok + "\r\n",
	}
	for name, answer := range tests {
		t.Run(name, func(t *testing.T) {
			rt := newTestTransport()
			replica := startRawReplica(t, answering(answer, false))
			req, _ := http.NewRequest("GET", "http://"+replica.addr, nil)
			got := wireTrip(rt, req)
			var attempt *Error
			if !errors.As(got.err, &attempt) || attempt.Stage != StageSent {
				t.Errorf("got %+v, want an Error after sending", got)
			}
			if open, _ := rt.stats(); open != 0 {
				t.Errorf("got %d open connections, want 0", open)
			}
		})
	}
}

// TestTransportRequestBytes compares what reaches the replica.
func TestTransportRequestBytes(t *testing.T) {
	body := func(s string) io.ReadCloser { return io.NopCloser(strings.NewReader(s)) }
	tests := []struct {
		name string
		make func(*http.Request)
	}{
		{"plain", func(*http.Request) {}},
		{"query", func(r *http.Request) { r.URL.RawQuery = "a=%20b&c;d" }},
		{"escaped path", func(r *http.Request) { r.URL.Path = "/a/b c"; r.URL.RawPath = "/a%2Fb%20c" }},
		{"opaque", func(r *http.Request) { r.URL.Opaque = "/x%2fy" }},
		{"host", func(r *http.Request) { r.Host = "example.com:8080" }},
		{"zone", func(r *http.Request) { r.Host = "[fe80::1%25eth0]:80" }},
		{"user agent", func(r *http.Request) { r.Header.Set("User-Agent", "x") }},
		{"headers", func(r *http.Request) {
			r.Header["X-A"] = []string{" 1 ", "2\t3"}
			r.Header["x-lower"] = []string{"é"}
			r.Header.Set("Content-Length", "99")
			r.Header.Set("Transfer-Encoding", "gzip")
			r.Header.Set("Host", "evil")
			r.Header.Set("Trailer", "evil")
		}},
		{"close", func(r *http.Request) { r.Close = true }},
		{"empty POST", func(r *http.Request) { r.Method = "POST" }},
		{"empty PUT", func(r *http.Request) { r.Method = "PUT"; r.Body = http.NoBody }},
		{"empty DELETE", func(r *http.Request) { r.Method = "DELETE" }},
		{"length", func(r *http.Request) { r.Method = "POST"; r.Body = body("hello"); r.ContentLength = 5 }},
		{"length read ahead", func(r *http.Request) {
			r.Method, r.Body, r.ContentLength = "POST", body("hello"), 5
			r.GetBody = func() (io.ReadCloser, error) { return body("hello"), nil }
		}},
		{"long", func(r *http.Request) {
			r.Method, r.Body, r.ContentLength = "POST", body(strings.Repeat("x", 200000)), 200000
		}},
		{"chunked", func(r *http.Request) { r.Method = "POST"; r.Body = body("hello"); r.ContentLength = -1 }},
		{"chunked, empty", func(r *http.Request) { r.Method = "POST"; r.Body = body(""); r.ContentLength = -1 }},
		{"chunked, long", func(r *http.Request) {
			r.Method, r.Body, r.ContentLength = "POST", body(strings.Repeat("x", 200000)), -1
		}},
		{"chunked GET", func(r *http.Request) { r.Body = body("hello"); r.ContentLength = -1 }},
		{"trailers", func(r *http.Request) {
			r.Method, r.Body, r.ContentLength = "POST", body("hello"), -1
			r.Trailer = http.Header{"X-Sum": {"1"}, "X-Other": {"2", "3"}}
		}},
		{"expect", func(r *http.Request) {
			r.Method, r.Body, r.ContentLength = "POST", body("hello"), 5
			r.Header.Set("Expect", "100-continue")
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := map[string]string{}
			for name, rt := range transportsUnderTest(t) {
				var seen string
				replica := startRawReplica(t, func(conn net.Conn, br *bufio.Reader) {
					var raw bytes.Buffer
					req, err := http.ReadRequest(bufio.NewReaderSize(io.TeeReader(br, &raw), 16))
					if err != nil {
						seen = err.Error()
						return
					}
					data, err := io.ReadAll(req.Body)
					line, _, _ := strings.Cut(raw.String(), "\r\n")
					names := slices.Sorted(maps.Keys(req.Header))
					seen = fmt.Sprintln(line, req.Host, req.ContentLength, req.TransferEncoding, req.Close, len(data), err, req.Trailer)
					for _, k := range names {
						seen += fmt.Sprintf("%s: %q\n", k, req.Header[k])
					}
					io.WriteString(conn, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
				})
				req := &http.Request{
					Method: "GET", Header: http.Header{"User-Agent": {""}},
					URL: &url.URL{Scheme: "http", Host: replica.addr, Path: "/"},
				}
				req.Host = "replica"
				test.make(req)
				if res := wireTrip(rt, req); res.err != nil {
					t.Fatal(name, res.err)
				}
				got[name] = seen
			}
			if got["direct"] != got["standard"] {
				t.Errorf("got\n%swant\n%s", got["direct"], got["standard"])
			}
		})
	}
}

func TestTransportInvalidRequests(t *testing.T) {
	replica := startRawReplica(t, answering("HTTP/1.1 204 No Content\r\n\r\n", false))
	tests := map[string]func(*http.Request){
		"method":               func(r *http.Request) { r.Method = "GET / HTTP/1.1\r\nX: y\r\n\r\nGET" },
		"target":               func(r *http.Request) { r.URL.Opaque = "/ HTTP/1.1\r\nX: y" },
		"space in the query":   func(r *http.Request) { r.URL.RawQuery = "a b" },
		"host":                 func(r *http.Request) { r.Host = "a\r\nX: y" },
		"header name":          func(r *http.Request) { r.Header["X: y\r\nZ"] = []string{"1"} },
		"header value":         func(r *http.Request) { r.Header["X"] = []string{"1\r\nZ: 2"} },
		"trailer name":         func(r *http.Request) { r.Trailer = http.Header{"Content-Length": {"1"}} },
		"length without body":  func(r *http.Request) { r.Body = nil; r.ContentLength = 3 },
		"scheme":               func(r *http.Request) { r.URL.Scheme = "https" },
		"no host in the URL":   func(r *http.Request) { r.URL.Host = ":80" },
		"trailer name, no tok": func(r *http.Request) { r.Trailer = http.Header{"A b": {"1"}} },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			rt := newTestTransport()
			body := &watchedBody{Reader: strings.NewReader("hello")}
			req, _ := http.NewRequest("POST", "http://"+replica.addr+"/", nil)
			req.Body, req.ContentLength = body, -1
			change(req)
			_, err := rt.RoundTrip(req)
			var attempt *Error
			if !errors.As(err, &attempt) || attempt.Stage != StageUnsent || !errors.Is(err, ErrInvalidRequest) {
				t.Errorf("got %v, want an invalid request, unsent", err)
			}
			if req.Body != nil && body.closes.Load() != 1 {
				t.Errorf("got %d closes of the body, want 1", body.closes.Load())
			}
		})
	}
	if got := replica.accepted.Load(); got != 0 {
		t.Errorf("got %d connections, want 0", got)
	}
}
