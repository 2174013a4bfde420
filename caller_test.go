package main

// Callers that go away, and callers that only seem to, over real connections:
// short invocations are over before anybody looks, long ones are watched.

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

// A slowReplica answers after more than guardDelay; requests with ?hang wait
// until their context ends and are reported on gone.
func slowReplica(t *testing.T) (addr string, arrived, gone chan struct{}) {
	arrived, gone = make(chan struct{}, 16), make(chan struct{}, 16)
	addr = startReplica(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("replica: body: %v", err)
		}
		arrived <- struct{}{}
		if r.URL.RawQuery == "hang" {
			<-r.Context().Done()
			gone <- struct{}{}
			return
		}
		if r.URL.RawQuery == "slow" {
			<-time.After(3 * guardDelay)
		}
		fmt.Fprintf(w, "%s %s", r.URL.RawQuery, body)
	})
	return addr, arrived, gone
}

func within(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(20 * time.Second):
		t.Fatalf("%s: nothing after 20s", what)
	}
}

// The function's request ends when its caller closes the connection, however
// the request came.
func TestCallerThatGoesAwayEndsTheInvocation(t *testing.T) {
	for _, c := range []struct{ name, before, after string }{
		{"no body", "GET /function/f?hang HTTP/1.1\r\nHost: a\r\n\r\n", ""},
		{"body at once", "POST /function/f?hang HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody", ""},
		{"body that takes longer than the guard waits", "POST /function/f?hang HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo", "dy"},
		{"chunks", "POST /function/f?hang HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n", "0\r\n\r\n"},
		{"second on its connection", "GET /function/f?fast HTTP/1.1\r\nHost: a\r\n\r\nGET /function/f?hang HTTP/1.1\r\nHost: a\r\n\r\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			addr, arrived, gone := slowReplica(t)
			p := newMemoryProvider()
			p.set("f", nil, addr)
			base := startGateway(t, p)
			conn, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			io.WriteString(conn, c.before)
			if c.after != "" {
				<-time.After(3 * guardDelay)
				io.WriteString(conn, c.after)
			}
			for range strings.Count(c.before, "HTTP/1.1") {
				within(t, "request at the replica", arrived)
			}
			conn.Close()
			within(t, "end of the function's request", gone)
		})
	}
}

// What a caller sends while it is being watched is neither lost nor taken for
// its end, and a watched connection serves on.
func TestCallerThatPipelinesIsAnsweredInOrder(t *testing.T) {
	addr, arrived, _ := slowReplica(t)
	p := newMemoryProvider()
	p.set("f", nil, addr)
	base := startGateway(t, p)
	conn, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answers := bufio.NewReader(conn)
	answer := func(want string) {
		t.Helper()
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatalf("%s: %v", want, err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || string(body) != want {
			t.Fatalf("got %d %q, %v, want %q", resp.StatusCode, body, err, want)
		}
	}
	for range 5 {
		io.WriteString(conn, "GET /function/f?slow HTTP/1.1\r\nHost: a\r\n\r\n")
		within(t, "slow request at the replica", arrived)
		io.WriteString(conn, "POST /function/f?next HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
		answer("slow ")
		answer("next body")
		within(t, "next request at the replica", arrived)
		io.WriteString(conn, "GET /function/f?slow HTTP/1.1\r\nHost: a\r\n\r\n")
		answer("slow ")
		within(t, "slow request at the replica", arrived)
	}
}

// A limit below guardDelay holds as well.
func TestGuardOfAShortLimit(t *testing.T) {
	addr, _, _ := slowReplica(t)
	p := newMemoryProvider()
	p.set("f", func(d *definition) { d.timeout = guardDelay / 2 }, addr)
	base := startGateway(t, p)
	awaitReady(t, base, "f")
	resp, body := call(t, "GET", base+"/function/f?hang", "")
	if want := `function "f" did not answer within 5ms`; resp.StatusCode != http.StatusGatewayTimeout || strings.TrimSpace(body) != want {
		t.Errorf("got %d %q, want 504 %q", resp.StatusCode, body, want)
	}
}
