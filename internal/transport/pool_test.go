package transport

// Kept connections: which are used again, how many are kept, and that none
// ever gives one request the answer to another.

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestTransportWithoutSocket: a connection that is no socket works as well.
func TestTransportWithoutSocket(t *testing.T) {
	rt := New(func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go func() {
			defer server.Close()
			answering("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", false)(server, bufio.NewReader(server))
		}()
		return client, nil
	}, newTestTransport().limits)
	defer rt.CloseIdleConnections()
	for range 2 {
		if got := wireTrip(rt, newGet(t, t.Context(), "replica:80")); got.body != "hello" || got.err != nil {
			t.Errorf("got %+v, want hello", got)
		}
	}
	if open, idle := rt.stats(); open != 1 || idle != 1 {
		t.Errorf("got %d open and %d idle connections, want 1 and 1", open, idle)
	}
}

// TestTransportStaleConnections: a POST is not lost because kept-alive
// connections died before it was written.
func TestTransportStaleConnections(t *testing.T) {
	for name, farewell := range map[string]string{
		"closed":            "",
		"closed with a 408": "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			hangUp := make(chan struct{})
			var round atomic.Int32
			replica := startRawReplica(t, func(conn net.Conn, br *bufio.Reader) {
				for {
					req, err := http.ReadRequest(br)
					if err != nil {
						return
					}
					body, _ := io.ReadAll(req.Body)
					early := round.Load() == 0
					fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
					if early {
						<-hangUp
						io.WriteString(conn, farewell)
						return
					}
				}
			})
			conns := &dialedConns{}
			rt := newTestTransport()
			rt.dial = conns.dial
			// Three connections at once: hold the answers back until all are open.
			var bodies []io.ReadCloser
			for range 3 {
				resp, err := rt.RoundTrip(post(t, replica.addr, "early"))
				if err != nil {
					t.Fatal(err)
				}
				bodies = append(bodies, resp.Body)
			}
			for _, b := range bodies {
				io.Copy(io.Discard, b)
			}
			if open, idle := rt.stats(); open != 3 || idle != 3 {
				t.Fatalf("got %d open and %d idle connections, want 3 and 3", open, idle)
			}
			round.Store(1)
			close(hangUp)
			for len(conns.conns) > 0 {
				conns.awaitEnd(t)
				conns.conns = conns.conns[:len(conns.conns)-1]
			}
			for _, streamed := range []bool{false, true} {
				req := post(t, replica.addr, "late")
				if streamed {
					req.GetBody = nil
				}
				if got := wireTrip(rt, req); got.err != nil || got.body != "late" {
					t.Errorf("streamed %v: got %q, error %v, want late", streamed, got.body, got.err)
				}
			}
		})
	}
}

func TestTransportPool(t *testing.T) {
	replica := startRawReplica(t, answering("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", false))
	// hold opens n connections at once and returns what ends their exchanges.
	hold := func(rt *Transport, n int) func() {
		var bodies []io.Reader
		for range n {
			resp, err := rt.RoundTrip(newGet(t, t.Context(), replica.addr))
			if err != nil {
				t.Fatal(err)
			}
			bodies = append(bodies, resp.Body)
		}
		return func() {
			for _, b := range bodies {
				if _, err := io.Copy(io.Discard, b); err != nil {
					t.Error(err)
				}
			}
		}
	}
	wantStats := func(rt *Transport, open, idle int) {
		t.Helper()
		if o, i := rt.stats(); o != open || i != idle {
			t.Errorf("got %d open and %d idle connections, want %d and %d", o, i, open, idle)
		}
	}
	limits := Limits{IdlePerAddr: 3, Idle: 4, IdleTimeout: time.Hour, Head: 1 << 10}
	build := func(l Limits) *Transport {
		rt := New(newTestTransport().dial, l)
		t.Cleanup(rt.CloseIdleConnections)
		return rt
	}

	t.Run("limit per address", func(t *testing.T) {
		rt := build(limits)
		release := hold(rt, 5)
		wantStats(rt, 5, 0)
		release()
		wantStats(rt, 3, 3)
		hold(rt, 4)()
		wantStats(rt, 3, 3)
		rt.CloseIdleConnections()
		wantStats(rt, 0, 0)
	})
	t.Run("limit in all", func(t *testing.T) {
		l := limits
		l.Idle = 2
		rt := build(l)
		hold(rt, 5)()
		wantStats(rt, 2, 2)
	})
	t.Run("a replica that left", func(t *testing.T) {
		rt := build(limits)
		hold(rt, 3)()
		release := hold(rt, 2)
		wantStats(rt, 3, 1)
		rt.CloseIdle(replica.addr)
		wantStats(rt, 2, 0)
		again := hold(rt, 1)
		release()
		wantStats(rt, 1, 0)
		again()
		wantStats(rt, 1, 1)
	})
	t.Run("idle timeout", func(t *testing.T) {
		rt := build(limits)
		hold(rt, 2)()
		rt.sweep()
		wantStats(rt, 2, 2)
		hold(rt, 1)() // the latest used, so the other one grows old
		rt.sweep()
		wantStats(rt, 1, 1)
		rt.sweep()
		wantStats(rt, 0, 0)
		if rt.timer != nil {
			t.Error("got a timer without connections")
		}
		hold(rt, 1)()
		if wantStats(rt, 1, 1); rt.timer == nil {
			t.Error("got no timer with a connection")
		}
	})
}

// TestTransportCancelStorm cancels requests at random points and checks that
// no answer ever reaches another request than its own.
func TestTransportCancelStorm(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if size, err := strconv.Atoi(r.Header.Get("X-Size")); err == nil {
			w.Write(bytes.Repeat(append(id, ' '), size))
			http.NewResponseController(w).Flush()
		}
		w.Write(id)
	}))
	defer server.Close()
	rt := newTestTransport()
	addr := server.Listener.Addr().String()

	try := func(ctx context.Context, id string, size int, streamed bool) error {
		req := post(t, addr, id).WithContext(ctx)
		if streamed {
			req.GetBody, req.ContentLength = nil, -1
		}
		if size > 0 {
			req.Header.Set("X-Size", strconv.Itoa(size))
		}
		resp, err := rt.RoundTrip(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		got, err := io.ReadAll(resp.Body)
		if err != nil {
			return err
		}
		if want := strings.Repeat(id+" ", size) + id; string(got) != want {
			t.Errorf("got %.40q of %d bytes, want %.40q of %d", got, len(got), want, len(want))
		}
		return nil
	}
	var canceled atomic.Int32
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(worker)))
			for i := range 125 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(random.IntN(1500))*time.Microsecond)
				err := try(ctx, fmt.Sprintf("%d-%d", worker, i), random.IntN(3)*random.IntN(2000), random.IntN(2) == 0)
				cancel()
				switch {
				case errors.Is(err, context.DeadlineExceeded):
					canceled.Add(1)
				case err != nil:
					t.Errorf("got %v, want a deadline", err)
				}
			}
		})
	}
	wg.Wait()
	for i := range 100 {
		if err := try(t.Context(), fmt.Sprintf("after-%d", i), i, i%2 == 0); err != nil {
			t.Fatal(err)
		}
	}
	if canceled.Load() == 0 {
		t.Error("no request was cut off")
	}
	awaitNoUploads(t)
	rt.CloseIdleConnections()
	if open, idle := rt.stats(); open != 0 || idle != 0 {
		t.Errorf("got %d open and %d idle connections, want none", open, idle)
	}
}
