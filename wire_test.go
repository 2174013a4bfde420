package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// startStrictServer serves handler behind a strict listener until the test
// ends. The reasons of refusals arrive on the channel.
func startStrictServer(t *testing.T, handler http.HandlerFunc) (addr string, refused <-chan string) {
	t.Helper()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	reasons := make(chan string, 100)
	ln := newStrictListener(tcp, func(reason string) { reasons <- reason })
	server := &http.Server{
		Handler:           handler,
		ConnState:         ln.connState,
		ReadHeaderTimeout: 10 * time.Second,
		MaxHeaderBytes:    16 << 10,
		// OPTIONS * is the handler's too.
		DisableGeneralOptionsHandler: true,
		Protocols:                    new(http.Protocols),
		ErrorLog:                     log.New(io.Discard, "", 0),
	}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.Serve(ln)
	}()
	t.Cleanup(func() {
		server.Close()
		<-done
	})
	return tcp.Addr().String(), reasons
}

func dialStrict(t *testing.T, addr string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn, bufio.NewReader(conn)
}

func send(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatalf("write: %v", err)
	}
}

// readAnswer reads one response and its whole body.
func readAnswer(t *testing.T, r *bufio.Reader) (*http.Response, string) {
	t.Helper()
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatalf("read response: %v", err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("read body of %d: %v", res.StatusCode, err)
	}
	return res, string(body)
}

// wantRefusal reads a 400 for reason and then the end of the connection.
func wantRefusal(t *testing.T, r *bufio.Reader, refused <-chan string, reason violation) {
	t.Helper()
	res, body := readAnswer(t, r)
	if res.StatusCode != 400 || !res.Close {
		t.Errorf("got status %d, close %v, want 400, true", res.StatusCode, res.Close)
	}
	if want := "bad request: " + string(reason) + "\n"; body != want {
		t.Errorf("got body %q, want %q", body, want)
	}
	if _, err := r.ReadByte(); err != io.EOF {
		t.Errorf("after the answer: got %v, want EOF", err)
	}
	select {
	case got := <-refused:
		if got != string(reason) {
			t.Errorf("got reason %q, want %q", got, reason)
		}
	default:
		t.Error("the refusal was not counted")
	}
}

// headShapes are heads that must not get as far as a handler.
var headShapes = []struct {
	name, head string
	want       violation
}{
	{"bare LF after the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", violationBareLF},
	{"bare LF after a header", "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", violationBareLF},
	{"bare LF at the end", "GET / HTTP/1.1\r\nHost: a\r\n\n", violationBareLF},
	{"bare LF in a method", "GE\nT / HTTP/1.1\r\nHost: a\r\n\r\n", violationBareLF},
	{"bare LF first", "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", violationBareLF},
	{"bare CR in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: y\rTransfer-Encoding: chunked\r\n\r\n", violationBareCR},
	{"bare CR at the end", "GET / HTTP/1.1\r\nHost: a\r\n\rX", violationBareCR},
	{"bare CR after the version", "GET / HTTP/1.1\rHost: a\r\n\r\n", violationBareCR},
	{"CR CR LF", "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", violationBareCR},
	{"CR before the request", "\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", violationBareCR},
	{"two empty lines before the request", "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", violationRequestLine},
	{"folded line", "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n", violationFold},
	{"folded coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", violationCoding},
	{"folded with a tab", "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\tz\r\n\r\n", violationFold},
	{"space before the first header", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", violationLeadingSpace},
	{"tab before the first header", "GET / HTTP/1.1\r\n\tX: y\r\nHost: a\r\n\r\n", violationLeadingSpace},
	{"space before a colon", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello", violationColonSpace},
	{"tab before a colon", "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\t: chunked\r\n\r\n", violationColonSpace},
	{"no colon", "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", violationName},
	{"empty name", "GET / HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n", violationName},
	{"NUL in a name", "GET / HTTP/1.1\r\nHost: a\r\nX\x00: y\r\n\r\n", violationName},
	{"high byte in a name", "GET / HTTP/1.1\r\nHost: a\r\nX\xe9: y\r\n\r\n", violationName},
	{"NUL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n", violationValue},
	{"vertical tab in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: \x0bchunked\r\n\r\n", violationValue},
	{"DEL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n", violationValue},
	{"two lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", violationTwoLengths},
	{"two equal lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\ncontent-length: 5\r\n\r\nhello", violationTwoLengths},
	{"list of lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello", violationLength},
	{"length with a sign", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello", violationLength},
	{"negative length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\nhello", violationLength},
	{"hexadecimal length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello", violationLength},
	{"empty length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", violationLength},
	{"blank length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \t \r\n\r\n", violationLength},
	{"space in a length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 2\r\n\r\n", violationLength},
	{"huge length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775808\r\n\r\n", violationLength},
	{"length after coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", violationLengthCoding},
	{"coding after length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", violationLengthCoding},
	{"two codings", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", violationCoding},
	{"gzip, chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", violationCoding},
	{"chunked, identity", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", violationCoding},
	{"xchunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", violationCoding},
	{"chunkedx", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunkedx\r\n\r\n0\r\n\r\n", violationCoding},
	{"quoted coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", violationCoding},
	{"vertical tab before the coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", violationCoding},
	{"empty coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n", violationCoding},
	{"coding in HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", violationCodingHTTP10},
	{"HTTP/0.9", "GET /\r\n\r\n", violationRequestLine},
	{"no target", "GET  HTTP/1.1\r\nHost: a\r\n\r\n", violationRequestLine},
	{"two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", violationRequestLine},
	{"space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", violationRequestLine},
	{"tab in the request line", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", violationRequestLine},
	{"space after the version", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", violationRequestLine},
	{"lower-case version", "GET / http/1.1\r\nHost: a\r\n\r\n", violationRequestLine},
	{"long version", "GET / HTTP/1.10\r\nHost: a\r\n\r\n", violationRequestLine},
	{"control byte in the target", "GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", violationRequestLine},
	{"TLS", "\x16\x03\x01\x02\x00\x01", violationRequestLine},
	{"CONNECT with a length", "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 3\r\n\r\nabc", violationConnectBody},
	{"CONNECT with a coding", "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", violationConnectBody},
	{"preface with another end", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", violationPreface},
	{"preface with a header", "PRI * HTTP/2.0\r\nHost: a\r\n\r\n", violationPreface},
	{"preface after an empty line", "\r\n" + http2Preface, violationPreface},
	{"preface of HTTP/1.1", "PRI * HTTP/1.1\r\nHost: a\r\n\r\n", violationPreface},
}

func TestWireRefusesHead(t *testing.T) {
	var calls atomic.Int32
	addr, refused := startStrictServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/first" {
			calls.Add(1)
		}
	})
	for _, shape := range headShapes {
		t.Run(shape.name, func(t *testing.T) {
			conn, r := dialStrict(t, addr)
			send(t, conn, shape.head)
			wantRefusal(t, r, refused, shape.want)
		})
		t.Run("pipelined/"+shape.name, func(t *testing.T) {
			conn, r := dialStrict(t, addr)
			send(t, conn, "POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"+shape.head)
			if res, _ := readAnswer(t, r); res.StatusCode != 200 {
				t.Errorf("answer to the first request: got %d, want 200", res.StatusCode)
			}
			wantRefusal(t, r, refused, shape.want)
		})
	}
	if n := calls.Load(); n != 0 {
		t.Errorf("the handler was called %d times for refused requests, want 0", n)
	}
}

// bodyShapes are chunked bodies that break a rule.
var bodyShapes = []struct {
	name, body string
	want       violation
}{
	{"empty size", "\r\n\r\n", violationChunkSize},
	{"no size but an extension", ";a\r\n\r\n", violationChunkSize},
	{"signed size", "+5\r\nhello\r\n0\r\n\r\n", violationChunkSize},
	{"0x", "0x5\r\nhello\r\n0\r\n\r\n", violationChunkSize},
	{"size with a space", "5 \r\nhello\r\n0\r\n\r\n", violationChunkSize},
	{"space before the size", " 5\r\nhello\r\n0\r\n\r\n", violationChunkSize},
	{"huge size", "ffffffffffffffff\r\nhello", violationChunkSize},
	{"size that overflows", "10000000000000005\r\nhello\r\n0\r\n\r\n", violationChunkSize},
	{"bare LF after the size", "5\nhello\r\n0\r\n\r\n", violationBareLF},
	{"bare CR after the size", "5\rhello\r\n0\r\n\r\n", violationBareCR},
	{"bare LF in an extension", "5;a\nhello\r\n0\r\n\r\n", violationBareLF},
	{"bare CR in an extension", "5;a\rb\r\nhello\r\n0\r\n\r\n", violationBareCR},
	{"NUL in an extension", "5;a\x00\r\nhello\r\n0\r\n\r\n", violationChunkExtension},
	{"long extension", "5;" + strings.Repeat("a", 257) + "\r\nhello\r\n0\r\n\r\n", violationChunkExtension},
	{"longer data than said", "5\r\nhello!\r\n0\r\n\r\n", violationChunkEnd},
	{"LF after data", "5\r\nhello\n0\r\n\r\n", violationChunkEnd},
	{"CR X after data", "5\r\nhello\rX0\r\n\r\n", violationChunkEnd},
	{"LF after the last chunk", "0\n\n", violationBareLF},
	{"LF as the end", "0\r\n\n", violationBareLF},
	{"folded trailer", "0\r\nA: b\r\n c\r\n\r\n", violationFold},
	{"space before the first trailer", "0\r\n A: b\r\n\r\n", violationLeadingSpace},
	{"malformed trailer", "0\r\nGET / HTTP/1.1\r\n\r\n", violationColonSpace},
	{"length as a trailer", "0\r\nContent-Length: 5\r\n\r\n", violationTrailer},
	{"coding as a trailer", "0\r\ntransfer-encoding: chunked\r\n\r\n", violationTrailer},
	{"host as a trailer", "0\r\nA: b\r\nHOST: x\r\n\r\n", violationTrailer},
	{"X-Forwarded-For as a trailer", "0\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n", violationTrailer},
}

// A body is streamed, so its handler has begun; what must not happen is that
// the body looks complete, or that anything after it is taken for a request.
func TestWireRefusesBody(t *testing.T) {
	var complete, second atomic.Int32
	addr, refused := startStrictServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/second" {
			second.Add(1)
		}
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			complete.Add(1)
		} else if !errors.Is(err, errRefused) {
			t.Errorf("read body: got %v, want errRefused", err)
		}
	})
	const head = "POST /first HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
	const next = "GET /second HTTP/1.1\r\nHost: a\r\n\r\n"
	for _, shape := range bodyShapes {
		t.Run(shape.name, func(t *testing.T) {
			conn, r := dialStrict(t, addr)
			send(t, conn, head+shape.body+next)
			wantRefusal(t, r, refused, shape.want)
		})
		t.Run("after 100/"+shape.name, func(t *testing.T) {
			conn, r := dialStrict(t, addr)
			send(t, conn, strings.TrimSuffix(head, "\r\n")+"Expect: 100-continue\r\n\r\n")
			if res, _ := readAnswer(t, r); res.StatusCode != 100 {
				t.Fatalf("got %d, want 100", res.StatusCode)
			}
			send(t, conn, shape.body+next)
			wantRefusal(t, r, refused, shape.want)
		})
	}
	if n := complete.Load(); n != 0 {
		t.Errorf("%d broken bodies looked complete, want 0", n)
	}
	if n := second.Load(); n != 0 {
		t.Errorf("%d requests after a broken body were served, want 0", n)
	}
}

// An answer that has begun is cut off instead of being followed by a 400.
func TestWireBodyBreaksAfterAnswerBegan(t *testing.T) {
	addr, refused := startStrictServer(t, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		io.WriteString(w, "begun ")
		http.NewResponseController(w).Flush()
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			panic(http.ErrAbortHandler)
		}
	})
	conn, r := dialStrict(t, addr)
	send(t, conn, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	send(t, conn, "x\r\n")
	body, err := io.ReadAll(res.Body)
	if string(body) != "begun " || err == nil {
		t.Errorf("got body %q, error %v, want %q and an error", body, err, "begun ")
	}
	if got := <-refused; got != string(violationChunkSize) {
		t.Errorf("got reason %q, want %q", got, violationChunkSize)
	}
}

// A function behind the proxy never gets a broken body to its end, and the
// client gets the refusal instead of the proxy's 502.
func TestWireBrokenBodyThroughProxy(t *testing.T) {
	began, ended := make(chan struct{}), make(chan error, 1)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.CopyN(io.Discard, r.Body, int64(len("hello"))); err != nil {
			t.Error(err)
		}
		close(began)
		_, err := io.Copy(io.Discard, r.Body)
		ended <- err
	}))
	defer upstream.Close()
	target, err := url.Parse(upstream.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	failed := make(chan error, 1)
	proxy.ErrorHandler = func(w http.ResponseWriter, r *http.Request, err error) {
		failed <- err
		w.WriteHeader(http.StatusBadGateway)
	}
	addr, refused := startStrictServer(t, proxy.ServeHTTP)
	conn, r := dialStrict(t, addr)
	send(t, conn, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
	send(t, conn, "5\r\nhello\r\n")
	<-began
	send(t, conn, "0\r\nContent-Length: 5\r\n\r\n")
	wantRefusal(t, r, refused, violationTrailer)
	conn.Close()
	// net/http cancels the request too, so which error it is depends on luck.
	if err := <-failed; err == nil {
		t.Error("the proxy saw no error, want one")
	}
	if err := <-ended; err == nil {
		t.Error("the function read a whole body, want an error")
	}
}

// The refusal of a pipelined request waits for the answer to the one before,
// and does not disturb it.
func TestWireRefusalWaitsItsTurn(t *testing.T) {
	release := make(chan struct{})
	addr, refused := startStrictServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-release
			if err := r.Context().Err(); err != nil {
				t.Errorf("context of the request before: got %v, want none", err)
			}
		}
		io.WriteString(w, r.URL.Path)
	})
	for _, split := range []bool{false, true} {
		t.Run(fmt.Sprintf("split=%v", split), func(t *testing.T) {
			const good = "GET /one HTTP/1.1\r\nHost: a\r\n\r\nGET /slow HTTP/1.1\r\nHost: a\r\n\r\n"
			const bad = "GET /bad HTTP/1.1\nHost: a\r\n\r\n"
			conn, r := dialStrict(t, addr)
			if split {
				send(t, conn, good)
			} else {
				send(t, conn, good+bad)
			}
			if _, body := readAnswer(t, r); body != "/one" {
				t.Errorf("got %q, want /one", body)
			}
			if split {
				send(t, conn, bad)
			}
			release <- struct{}{}
			if _, body := readAnswer(t, r); body != "/slow" {
				t.Errorf("got %q, want /slow", body)
			}
			wantRefusal(t, r, refused, violationBareLF)
		})
	}
}

// A client that goes on sending still gets to read the answer.
func TestWireRefusalSurvivesUnreadInput(t *testing.T) {
	addr, refused := startStrictServer(t, func(http.ResponseWriter, *http.Request) {})
	conn, r := dialStrict(t, addr)
	send(t, conn, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n"+
		strings.Repeat("x", 128<<10))
	wantRefusal(t, r, refused, violationTwoLengths)
}

func TestWirePasses(t *testing.T) {
	addr, refused := startStrictServer(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("%s: %v", r.URL, err)
		}
		w.Header().Set("X-Trailer", r.Trailer.Get("X-Sum"))
		fmt.Fprintf(w, "%s %s %s", r.Method, r.RequestURI, body)
	})
	const host = " HTTP/1.1\r\nHost: a\r\n"
	for _, tt := range []struct{ name, in, want string }{
		{"pipelined", "GET /1" + host + "\r\nPOST /2" + host + "Content-Length: 3\r\n\r\nabcGET /3" + host + "\r\n",
			"GET /1 |POST /2 abc|GET /3 "},
		{"an empty line before each request", "\r\nPOST /1" + host + "Content-Length: 2\r\n\r\nhi\r\nGET /2" + host + "\r\n",
			"POST /1 hi|GET /2 "},
		{"white space around values", "POST /1" + host + "Content-Length: \t 2 \t\r\nX:\r\nY: \t\r\n\r\nhiPOST /2" + host +
			"Transfer-Encoding:chunked \r\n\r\n1\r\nx\r\n0\r\n\r\n", "POST /1 hi|POST /2 x"},
		{"chunked", "POST /1" + host + "transfer-encoding: ChunKed\r\n\r\n5\r\nhello\r\n0A;n=\"v\"\r\n, chunked \r\n000\r\n\r\nGET /2" + host + "\r\n",
			"POST /1 hello, chunked |GET /2 "},
		{"trailers", "POST /1" + host + "Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n1\r\nx\r\n0\r\nX-Sum: 7\r\nX-Other:\r\n\r\nGET /2" + host + "\r\n",
			"POST /1 x 7|GET /2 "},
		{"body that looks like a request", "POST /1" + host + "Content-Length: 18\r\n\r\nGET /x HTTP/1.1\n\n\rGET /2" + host + "\r\n",
			"POST /1 GET /x HTTP/1.1\n\n\r|GET /2 "},
		{"OPTIONS *", "OPTIONS *" + host + "\r\n", "OPTIONS * "},
		{"absolute target", "GET http://a/b?c" + host + "\r\n", "GET http://a/b?c "},
		{"UTF-8 in target and value", "GET /é" + host + "X: é\r\n\r\n", "GET /é "},
		{"HTTP/1.0", "POST /1 HTTP/1.0\r\nContent-Length: 1\r\n\r\nx", "POST /1 x"},
		{"CONNECT", "CONNECT a:1" + host + "\r\nGET /2" + host + "\r\n", "CONNECT a:1 |GET /2 "},
		{"long names and odd methods", "X-" + strings.Repeat("M", 300) + " /1" + host + strings.Repeat("N", 300) + ": v\r\n\r\nPRINT /2" + host + "\r\n",
			"X-" + strings.Repeat("M", 300) + " /1 |PRINT /2 "},
	} {
		for _, oneByOne := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/one by one=%v", tt.name, oneByOne), func(t *testing.T) {
				conn, r := dialStrict(t, addr)
				if oneByOne {
					for i := range len(tt.in) {
						send(t, conn, tt.in[i:i+1])
					}
				} else {
					send(t, conn, tt.in)
				}
				var got []string
				for range strings.Split(tt.want, "|") {
					res, body := readAnswer(t, r)
					if res.StatusCode != 200 {
						t.Fatalf("got %d %s, want 200", res.StatusCode, body)
					}
					if sum := res.Header.Get("X-Trailer"); sum != "" {
						body += " " + sum
					}
					got = append(got, body)
				}
				if got := strings.Join(got, "|"); got != tt.want {
					t.Errorf("got %q, want %q", got, tt.want)
				}
			})
		}
	}
	if len(refused) > 0 {
		t.Errorf("got a refusal: %q, want none", <-refused)
	}
}

func TestWireHEADKeepsConnection(t *testing.T) {
	addr, _ := startStrictServer(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "5")
	})
	conn, r := dialStrict(t, addr)
	for range 2 {
		send(t, conn, "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
		res, err := http.ReadResponse(r, &http.Request{Method: "HEAD"})
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != 200 || res.ContentLength != 5 {
			t.Errorf("got %d with length %d, want 200 with 5", res.StatusCode, res.ContentLength)
		}
	}
}

// echoUpgraded takes up any upgrade and sends back what comes.
func echoUpgraded(w http.ResponseWriter, r *http.Request) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	io.Copy(conn, rw)
}

// After 101 the bytes are no HTTP, and no business of ours.
func TestWireHijackedPassesRaw(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(echoUpgraded))
	defer upstream.Close()
	target, err := url.Parse(upstream.URL)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		handler http.Handler
	}{
		{"by the handler", http.HandlerFunc(echoUpgraded)},
		{"by ReverseProxy", httputil.NewSingleHostReverseProxy(target)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			addr, refused := startStrictServer(t, tt.handler.ServeHTTP)
			conn, r := dialStrict(t, addr)
			send(t, conn, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
			if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != 101 {
				t.Fatalf("got %v, error %v, want 101", res, err)
			}
			const frames = "\x81\x05\x00\n\n\r\x7fGET / HTTP/1.1\n\n"
			send(t, conn, frames)
			got := make([]byte, len(frames))
			if _, err := io.ReadFull(r, got); err != nil || string(got) != frames {
				t.Errorf("got %q, error %v, want %q", got, err, frames)
			}
			if len(refused) > 0 {
				t.Errorf("got a refusal: %q, want none", <-refused)
			}
		})
	}
}

// Until the server has hijacked the connection the bytes are HTTP: an upgrade
// that it does not take up must not open a way past the checks.
func TestWireUpgradeNotTakenUp(t *testing.T) {
	addr, refused := startStrictServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			t.Errorf("handler called for %s %s", r.Method, r.URL)
		}
	})
	for _, protocol := range []string{"websocket", "h2c"} {
		t.Run(protocol, func(t *testing.T) {
			conn, r := dialStrict(t, addr)
			send(t, conn, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: "+protocol+"\r\n\r\n")
			if res, _ := readAnswer(t, r); res.StatusCode != 200 {
				t.Errorf("got %d, want 200", res.StatusCode)
			}
			send(t, conn, "GET /smuggled HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n")
			wantRefusal(t, r, refused, violationColonSpace)
		})
	}
}

func TestWireHTTP2(t *testing.T) {
	addr, refused := startStrictServer(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		fmt.Fprintf(w, "%s %s", r.Proto, body)
	})
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	for range 3 {
		res, err := client.Post("http://"+addr, "text/plain", strings.NewReader("hello\n\r\x00"))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if want := "HTTP/2.0 hello\n\r\x00"; err != nil || string(body) != want {
			t.Errorf("got %q, error %v, want %q", body, err, want)
		}
	}
	if len(refused) > 0 {
		t.Errorf("got a refusal: %q, want none", <-refused)
	}
}

// A preface that comes in pieces is held until it is whole, and what follows
// it is not looked at.
func TestWireHTTP2PrefaceInPieces(t *testing.T) {
	addr, _ := startStrictServer(t, func(http.ResponseWriter, *http.Request) {})
	settings := []byte{0, 0, 0, 4, 0, 0, 0, 0, 0}
	conn, r := dialStrict(t, addr)
	for _, b := range append([]byte(http2Preface), settings...) {
		send(t, conn, string([]byte{b}))
	}
	// The server's own SETTINGS come first.
	frame := make([]byte, 9)
	if _, err := io.ReadFull(r, frame); err != nil || frame[3] != 4 {
		t.Errorf("got frame % x, error %v, want SETTINGS", frame, err)
	}
}

// What net/http bounds stays bounded by net/http.
func TestWireLeavesLimitsToServer(t *testing.T) {
	addr, refused := startStrictServer(t, func(http.ResponseWriter, *http.Request) {
		t.Error("handler called, want it not to be")
	})
	for _, tt := range []struct {
		name, head string
		want       int
	}{
		{"header fields", "GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 32<<10), 431},
		{"request line", "GET /" + strings.Repeat("x", 32<<10), 431},
		{"no Host", "GET / HTTP/1.1\r\n\r\n", 400},
		{"two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400},
		{"HTTP/3.0", "GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn, r := dialStrict(t, addr)
			go io.WriteString(conn, tt.head)
			res, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			if res.StatusCode != tt.want {
				t.Errorf("got %d, want %d", res.StatusCode, tt.want)
			}
		})
	}
	if len(refused) > 0 {
		t.Errorf("got a refusal: %q, want none", <-refused)
	}
}

func TestWireSlowHeadIsCutOff(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln := newStrictListener(tcp, func(reason string) { t.Errorf("refused: %s", reason) })
	server := &http.Server{
		Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			t.Error("handler called, want it not to be")
		}),
		ConnState:         ln.connState,
		ReadHeaderTimeout: 20 * time.Millisecond,
	}
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(ln) }()
	conn, r := dialStrict(t, tcp.Addr().String())
	send(t, conn, "GET / HTTP/1.1\r\nHost: a\r\nX-Slow")
	// net/http may add a 400 of its own.
	if _, err := io.Copy(io.Discard, r); err != nil {
		t.Errorf("got %v, want the end of the connection", err)
	}
	if err := server.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	<-done
}

// A handler learns that its client has gone, as without the wrapper.
func TestWireClientGone(t *testing.T) {
	began, gone := make(chan struct{}), make(chan struct{})
	addr, _ := startStrictServer(t, func(w http.ResponseWriter, r *http.Request) {
		close(began)
		<-r.Context().Done()
		close(gone)
	})
	conn, _ := dialStrict(t, addr)
	send(t, conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-began
	conn.Close()
	select {
	case <-gone:
	case <-time.After(20 * time.Second):
		t.Error("the handler's context is not done, want it to be")
	}
}
