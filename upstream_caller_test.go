package main

// Attempts that fail: whose time was over, and what the next one is told.

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"faas/internal/tcptest"
	"faas/internal/transport"
)

// hangingAddr returns an address that leaves connections waiting.
func hangingAddr(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	raw, err := ln.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = syscall.Listen(int(fd), 0) })
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		c, err := net.DialTimeout("tcp", ln.Addr().String(), 100*time.Millisecond)
		if err != nil {
			return ln.Addr().String()
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Skip("this system does not leave connections waiting when a listener's backlog is full")
	return ""
}

// The error of a dial that timed out is a context.DeadlineExceeded, as that of
// the invocation's limit is. The caller is told which it was.
func TestADialThatTimesOutIsNoTimeoutOfTheFunction(t *testing.T) {
	hangs := func() string { return hangingAddr(t) }
	refuses := func() string { return closedAddr(t) }
	answers := func() string { return startReplica(t, echoReplica) }
	type addrs = []func() string
	cases := []struct {
		name   string
		limit  time.Duration
		addrs  addrs
		status int
	}{
		{"hangs", 20 * time.Second, addrs{hangs}, 502},
		{"refuses", 20 * time.Second, addrs{refuses}, 502},
		{"one-hangs-one-refuses", 20 * time.Second, addrs{hangs, refuses}, 502},
		{"limit-while-it-hangs", 300 * time.Millisecond, addrs{hangs}, 504},
		{"limit-while-the-second-hangs", 1300 * time.Millisecond, addrs{hangs, hangs}, 504},
		{"limit-while-it-refuses", 300 * time.Millisecond, addrs{refuses}, 504},
		{"one-hangs-one-answers", 20 * time.Second, addrs{hangs, answers}, 200},
	}
	bothTransports(t, func(t *testing.T, args ...string) {
		p := newMemoryProvider()
		for _, c := range cases {
			var list []string
			for _, addr := range c.addrs {
				list = append(list, addr())
			}
			p.set(c.name, func(d *definition) { d.timeout = c.limit }, list...)
		}
		base := startGateway(t, p, args...)
		for _, c := range cases { // who comes earlier waits for one that accepts connections
			waitForMetric(t, base, fmt.Sprintf(`gateway_service_count{function_name=%q} %d`, c.name, len(c.addrs)))
		}
		var wg sync.WaitGroup
		defer wg.Wait()
		for _, c := range cases {
			for _, size := range []int{0, 5, 2 * replayLimit} {
				wg.Go(func() {
					resp, err := http.Post(base+"/function/"+c.name, "text/plain", strings.NewReader(strings.Repeat("x", size)))
					if err != nil {
						t.Error(err)
						return
					}
					resp.Body.Close()
					if resp.StatusCode != c.status {
						t.Errorf("%s, %d bytes: got %d, want %d", c.name, size, resp.StatusCode, c.status)
					}
				})
			}
		}
	})
}

// What the function is told in X-Timeout is what is left when it gets the
// request, not when the first replica got it.
func TestTheTimeLeftIsCountedAfterARetry(t *testing.T) {
	const held = 300 * time.Millisecond
	bothTransports(t, func(t *testing.T, args ...string) {
		left := make(chan time.Duration, 1)
		p := newMemoryProvider()
		p.set("second", nil, tcptest.Start(t, func(n int64, c net.Conn) {
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
			return nil, &transport.Error{Stage: transport.StageUnsent, Err: io.ErrClosedPipe}
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
