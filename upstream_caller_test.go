package main

// Requests that fail by the caller's mistake, and dials that time out.

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// A request that cannot be sent on is the caller's mistake, and so is a body
// that is cut short: no replica is blamed.
func TestAMalformedRequestIsTheCallersMistake(t *testing.T) {
	bothTransports(t, func(t *testing.T, args ...string) {
		p := newMemoryProvider()
		p.set("echo", nil, startReplica(t, func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
		}))
		base := startGateway(t, p, args...)
		for _, head := range []string{
			"Transfer-Encoding: chunked\r\nTrailer: Host\r\n\r\n0\r\n\r\n",
			"Transfer-Encoding: chunked\r\nTrailer: X T\r\n\r\n0\r\n\r\n",
		} {
			c := dialRaw(t, base)
			c.send("%s", "POST /function/echo HTTP/1.1\r\nHost: a\r\n"+head)
			if resp, text := c.receive("POST"); resp.StatusCode != http.StatusBadRequest {
				t.Errorf("%q: got %d %q, want 400", head, resp.StatusCode, text)
			}
		}
		for _, rest := range []string{
			"Content-Length: 100000\r\n\r\nshort",
			"Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
		} {
			conn, err := net.Dial("tcp", base[len("http://"):])
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(10 * time.Second))
			fmt.Fprintf(conn, "POST /function/echo HTTP/1.1\r\nHost: a\r\n%s", rest)
			conn.(*net.TCPConn).CloseWrite()
			if got, _ := io.ReadAll(conn); len(got) < 12 || string(got[9:12]) != "400" {
				t.Errorf("%q: got %q, want 400", rest, got)
			}
		}
	})
}

func TestHTTP2RequestsThatHTTP1CannotCarryAreRefused(t *testing.T) {
	for _, req := range []*http.Request{
		{Method: "GE T", Host: "a"},
		{Method: "GET", Host: "a/b"},
	} {
		f := &function{name: "echo"}
		f.def.Store(&definition{})
		if code, text := outcome(context.Background(), f, checkRequest(req)); code != http.StatusBadRequest {
			t.Errorf("%q %q: got %d %q, want 400", req.Method, req.Host, code, text)
		}
	}
}

// The error of a dial that timed out is a context.DeadlineExceeded too.
func TestADialThatTimesOutIsNoTimeoutOfTheFunction(t *testing.T) {
	_, dialErr := (&net.Dialer{Deadline: time.Unix(1, 0)}).Dial("tcp", "127.0.0.1:1")
	f := &function{name: "echo"}
	f.def.Store(&definition{timeout: time.Minute})
	for _, err := range []error{
		fmt.Errorf("%w: %w", errUnreachable, dialErr),
		fmt.Errorf("replica, and the body cannot be sent again: %w", dialErr),
		fmt.Errorf("%w: %w", errUnreachable, &attemptError{stageDial, dialErr}),
	} {
		if code, text := outcome(context.Background(), f, err); code != http.StatusBadGateway {
			t.Errorf("%v: got %d %q, want 502", err, code, text)
		}
	}
	if code, _ := outcome(context.Background(), f, context.DeadlineExceeded); code != http.StatusGatewayTimeout {
		t.Errorf("the invocation's limit: got %d, want 504", code)
	}
}

// What the function is told in X-Timeout is what is left when it gets the
// request, not when the first replica got it.
func TestTheTimeLeftIsCountedAfterARetry(t *testing.T) {
	const held = 300 * time.Millisecond
	bothTransports(t, func(t *testing.T, args ...string) {
		left := make(chan time.Duration, 1)
		p := newMemoryProvider()
		p.set("second", nil, startScriptedReplica(t, func(n int64, c net.Conn) {
			req, err := http.ReadRequest(bufio.NewReader(c))
			if err != nil {
				return
			}
			if n == 1 {
				time.Sleep(held) // then it closes, and the GET is sent again
				return
			}
			d, _ := time.ParseDuration(req.Header.Get("X-Timeout"))
			left <- d
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}))
		base := startGateway(t, p, args...)
		call(t, "GET", base+"/function/second", "")
		if got, most := <-left, 10*time.Second-held; got > most || got <= 0 {
			t.Errorf("got %v, want at most %v", got, most)
		}
	})
}

// What fails before a byte is sent may be tried again, but not without end.
func TestAttemptsThatSendNothingAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := manyFunctions(t, 1)
		f := r.function("f0")
		f.balancer.update([]string{"10.0.0.1:8080"})
		attempts := 0
		u := &upstream{log: r.log, refresh: func(*function) {}, transport: roundTripper(func(*http.Request) (*http.Response, error) {
			if attempts++; attempts > 100 {
				panic("no end of attempts")
			}
			return nil, &attemptError{stageUnsent, io.ErrClosedPipe}
		})}
		ctx := context.WithValue(t.Context(), invocationKey{}, &invocation{f: f, guard: guard{deadline: time.Now().Add(time.Hour)}})
		req, err := http.NewRequestWithContext(ctx, "GET", "http://f0/", nil)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if _, err := u.RoundTrip(req); err == nil || attempts != unsentLimit+1 || time.Since(began) < 100*time.Millisecond {
			t.Errorf("got %v after %d attempts in %v, want an error after %d with pauses", err, attempts, time.Since(began), unsentLimit+1)
		}
	})
}
