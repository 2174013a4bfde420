package wire

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
)

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

func TestRefusesHead(t *testing.T) {
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
func TestRefusesBody(t *testing.T) {
	var complete, second atomic.Int32
	addr, refused := startStrictServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/second" {
			second.Add(1)
		}
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			complete.Add(1)
		} else if !errors.Is(err, ErrRefused) {
			t.Errorf("read body: got %v, want ErrRefused", err)
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
func TestBodyBreaksAfterAnswerBegan(t *testing.T) {
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
func TestBrokenBodyThroughProxy(t *testing.T) {
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
func TestRefusalWaitsItsTurn(t *testing.T) {
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
func TestRefusalSurvivesUnreadInput(t *testing.T) {
	addr, refused := startStrictServer(t, func(http.ResponseWriter, *http.Request) {})
	conn, r := dialStrict(t, addr)
	send(t, conn, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n"+
		strings.Repeat("x", 128<<10))
	wantRefusal(t, r, refused, violationTwoLengths)
}
