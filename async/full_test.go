package main

// Limits that are reached: what is full, and whom that concerns.

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// Callbacks for which their queue has no room become dead letters. Their calls
// do not run again for that.
func TestFullCallbackQueue(t *testing.T) {
	g := newStandIn(t)
	var runs atomic.Int32
	// Wait long: what is refused stays in the queue.
	g.function("fn", map[string]string{labelMinWait: "1h"}, func(w http.ResponseWriter, r *http.Request) {
		runs.Add(1)
		w.Write(make([]byte, 15<<10))
	})
	s := startBoth(t, g, "-queue-bytes", "64KiB", "-max-body", "16KiB", "-callback-allow", "127.0.0.0/8")
	const n = 8
	for range n {
		id := s.call(t, "fn", "x", "X-Callback-Url", "http://"+freePort(t)+"/")
		s.awaitStatus(t, id, stateDone)
	}
	if got := runs.Load(); got != n {
		t.Errorf("got %d runs of %d calls", got, n)
	}
	letters := s.deadLetters(t, "")
	if len(letters) == 0 || letters[0].Kind != "callback" || letters[0].Reason != "the queue of callbacks is full" {
		t.Errorf("got %+v, want callbacks that had no room", letters)
	}
}

// The largest head, body and answer that may come have room in a dead letter:
// else the call would run for ever.
func TestLargestDeadLetter(t *testing.T) {
	g := newStandIn(t)
	var runs atomic.Int32
	g.function("fn", map[string]string{labelAttempts: "1"}, func(w http.ResponseWriter, r *http.Request) {
		runs.Add(1)
		w.Header()["A"] = slices.Repeat([]string{""}, (maxHeaderLen-500)/len("A: \r\n"))
		w.WriteHeader(500)
		w.Write(make([]byte, keptAnswer))
	})
	const most = 256 << 10
	s := startBoth(t, g, "-max-body", "256KiB")
	conn, err := net.Dial("tcp", s.address.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var request strings.Builder
	fmt.Fprintf(&request, "POST /async-function/fn/%s HTTP/1.1\r\nHost:x\r\nContent-Length:%d\r\nX-Call-Id:largest\r\nX-Callback-Url:http://x/%s\r\n", strings.Repeat("p", 8000), most, strings.Repeat("c", 2000))
	for request.Len() < maxHeaderLen+3500 {
		request.WriteString("a:\r\n") // a byte longer on its way
	}
	request.WriteString("\r\n" + strings.Repeat("b", most))
	if _, err := conn.Write([]byte(request.String())); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufioReader(conn), nil)
	if err != nil || resp.StatusCode != http.StatusAccepted {
		t.Fatalf("got %v %v, want 202", resp, err)
	}
	s.awaitStatus(t, "largest", stateDead)
	if n := runs.Load(); n != 1 {
		t.Errorf("got %d runs, want 1", n)
	}
}

// Large bodies that do not come keep nobody's small ones out.
func TestLargeBodiesAreInNobodysWay(t *testing.T) {
	g := newStandIn(t)
	g.function("fn", nil, func(http.ResponseWriter, *http.Request) {})
	s := startBoth(t, g)
	for range acceptMemory / (8 << 20) {
		conn, err := net.Dial("tcp", s.address.String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "POST /async-function/fn HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\nslow", 8<<20)
	}
	within(t, soon, "all memory is held", func() bool {
		if s.acceptor.memory.TryAcquire(1) {
			s.acceptor.memory.Release(1)
			return false
		}
		return true
	})
	s.awaitStatus(t, s.call(t, "fn", "small"), stateDone)
}
