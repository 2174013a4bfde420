package main

// What a transport says about attempts that failed, and what becomes of
// connections and request bodies when callers, peers or limits cut in.

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
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func wantAttempt(t *testing.T, err error, stage attemptStage, is error) {
	t.Helper()
	var attempt *attemptError
	if !errors.As(err, &attempt) {
		t.Fatalf("got error %v, want an attemptError", err)
	}
	if attempt.stage != stage {
		t.Errorf("got stage %q (%v), want %q", attempt.stage, err, stage)
	}
	if is != nil && !errors.Is(err, is) {
		t.Errorf("got error %v, want %v in it", err, is)
	}
}

func newGet(t *testing.T, ctx context.Context, addr string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, "GET", "http://"+addr+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func TestTransportStageDial(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	rt := newTestTransport()
	body := &watchedBody{Reader: strings.NewReader("hello")}
	req, _ := http.NewRequest("POST", "http://"+listener.Addr().String(), body)
	_, err = rt.RoundTrip(req)
	wantAttempt(t, err, stageDial, nil)
	if body.reads.Load() != 0 || body.closes.Load() != 1 {
		t.Errorf("got %d reads and %d closes of the body, want 0 and 1", body.reads.Load(), body.closes.Load())
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = rt.RoundTrip(newGet(t, ctx, listener.Addr().String()))
	wantAttempt(t, err, stageDial, context.Canceled)

	// A dial that hangs until the deadline.
	rt.dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, &net.OpError{Op: "dial", Err: errors.New("hung")}
	}
	ctx, cancel = context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err = rt.RoundTrip(newGet(t, ctx, listener.Addr().String()))
	wantAttempt(t, err, stageDial, context.DeadlineExceeded)
}

// brokenConn fails its writes after some bytes.
type brokenConn struct {
	net.Conn
	takes int
}

func (c *brokenConn) Write(p []byte) (int, error) {
	return min(c.takes, len(p)), errors.New("broken")
}

func TestTransportStageOfBrokenWrites(t *testing.T) {
	for takes, stage := range map[int]attemptStage{0: stageUnsent, 1: stageSent} {
		rt := newDirectTransport(func(context.Context, string, string) (net.Conn, error) {
			client, server := net.Pipe()
			t.Cleanup(func() { server.Close() })
			return &brokenConn{client, takes}, nil
		}, newTestTransport().limits)
		_, err := rt.RoundTrip(newGet(t, t.Context(), "replica:80"))
		wantAttempt(t, err, stage, nil)

		body := &watchedBody{Reader: strings.NewReader("hello")}
		req, _ := http.NewRequest("POST", "http://replica:80/", body)
		_, err = rt.RoundTrip(req)
		wantAttempt(t, err, stage, nil)
		if body.reads.Load() != 0 || body.closes.Load() != 1 {
			t.Errorf("got %d reads and %d closes of the body, want 0 and 1", body.reads.Load(), body.closes.Load())
		}
	}
}

// TestTransportWithoutSocket: a connection that is no socket works as well.
func TestTransportWithoutSocket(t *testing.T) {
	rt := newDirectTransport(func(context.Context, string, string) (net.Conn, error) {
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
				req, err := http.ReadRequest(br)
				if err != nil {
					return
				}
				body, _ := io.ReadAll(req.Body)
				fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
				if round.Load() == 0 {
					<-hangUp
					io.WriteString(conn, farewell)
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
					t.Errorf("streamed %v: got %+v, want late", streamed, got)
				}
			}
		})
	}
}

func post(t *testing.T, addr, body string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+addr+"/", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// TestTransportSentOnce: a replica that closes without an answer saw the
// request once, and the caller learns that it was sent.
func TestTransportSentOnce(t *testing.T) {
	var seen atomic.Int32
	replica := startRawReplica(t, func(conn net.Conn, br *bufio.Reader) {
		for {
			req, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			io.Copy(io.Discard, req.Body)
			if seen.Add(1) == 2 {
				return
			}
			io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
		}
	})
	rt := newTestTransport()
	if got := wireTrip(rt, post(t, replica.addr, "a")); got.err != nil {
		t.Fatal(got.err)
	}
	_, err := rt.RoundTrip(post(t, replica.addr, "b"))
	wantAttempt(t, err, stageSent, io.ErrUnexpectedEOF)
	if seen.Load() != 2 {
		t.Errorf("got %d requests at the replica, want 2", seen.Load())
	}
	if open, _ := rt.stats(); open != 0 {
		t.Errorf("got %d open connections, want 0", open)
	}
}

func TestTransportDeadline(t *testing.T) {
	replica := startRawReplica(t, func(conn net.Conn, br *bufio.Reader) {
		http.ReadRequest(br)
		br.ReadByte() // until the caller goes away
	})
	for side, newReq := range map[string]func(ctx context.Context) *http.Request{
		"no body": func(ctx context.Context) *http.Request { return newGet(t, ctx, replica.addr) },
		"body that hangs": func(ctx context.Context) *http.Request {
			r, w := io.Pipe()
			t.Cleanup(func() { w.Close() })
			req := newGet(t, ctx, replica.addr)
			req.Method, req.Body, req.ContentLength = "POST", r, 10
			return req
		},
	} {
		t.Run(side, func(t *testing.T) {
			rt := newTestTransport()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			_, err := rt.RoundTrip(newReq(ctx))
			wantAttempt(t, err, stageSent, context.DeadlineExceeded)
			if open, _ := rt.stats(); open != 0 {
				t.Errorf("got %d open connections, want 0", open)
			}
		})
	}
}

// TestTransportBodyErrors: the body of a response tells the end of the
// context from an end of the connection, and Close lets a Read go.
func TestTransportBodyErrors(t *testing.T) {
	replica := startRawReplica(t, func(conn net.Conn, br *bufio.Reader) {
		http.ReadRequest(br)
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello")
		br.ReadByte()
	})
	rt := newTestTransport()
	start := func(ctx context.Context) io.ReadCloser {
		resp, err := rt.RoundTrip(newGet(t, ctx, replica.addr))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(resp.Body, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		return resp.Body
	}
	t.Run("canceled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		body := start(ctx)
		cancel()
		if _, err := body.Read(make([]byte, 5)); err != context.Canceled {
			t.Errorf("got %v, want %v", err, context.Canceled)
		}
		body.Close()
	})
	t.Run("closed", func(t *testing.T) {
		body := start(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := body.Read(make([]byte, 5)); err == nil {
				t.Error("got no error from a Read beside Close")
			}
		})
		body.Close()
		wg.Wait()
		if _, err := body.Read(make([]byte, 5)); err != http.ErrBodyReadAfterClose {
			t.Errorf("got %v, want %v", err, http.ErrBodyReadAfterClose)
		}
	})
	if open, _ := rt.stats(); open != 0 {
		t.Errorf("got %d open connections, want 0", open)
	}
}

// TestTransportEarlyAnswer: an answer before the end of the request's body
// comes through, the rest of the body is not read, and nothing is reused.
func TestTransportEarlyAnswer(t *testing.T) {
	replica := startRawReplica(t, func(conn net.Conn, br *bufio.Reader) {
		http.ReadRequest(br)
		io.WriteString(conn, "HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\n\r\nhello")
		conn.(*net.TCPConn).CloseWrite()
		io.Copy(io.Discard, br)
	})
	for name, rt := range transportsUnderTest(t) {
		t.Run(name, func(t *testing.T) {
			body, feed := io.Pipe()
			defer feed.Close()
			req := newGet(t, t.Context(), replica.addr)
			req.Method, req.Body, req.ContentLength = "POST", body, 1<<30
			got := wireTrip(rt, req)
			if got.status != 413 || got.body != "hello" || got.bodyErr != nil {
				t.Errorf("got %+v, want a 413 with hello", got)
			}
			if rt, ok := rt.(*directTransport); ok {
				if open, _ := rt.stats(); open != 0 {
					t.Errorf("got %d open connections, want 0", open)
				}
			}
		})
	}
}

// TestTransportAnswerBeforeReset: the answer of a replica that closes without
// reading the request is not lost to the failing write.
func TestTransportAnswerBeforeReset(t *testing.T) {
	replica := startRawReplica(t, func(conn net.Conn, br *bufio.Reader) {
		http.ReadRequest(br)
		io.WriteString(conn, "HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello")
	})
	rt := newTestTransport()
	for range 20 {
		req := newGet(t, t.Context(), replica.addr)
		req.Method, req.ContentLength = "POST", 8<<20
		req.Body = io.NopCloser(bytes.NewReader(make([]byte, 8<<20)))
		resp, err := rt.RoundTrip(req)
		if err != nil {
			var attempt *attemptError
			if !errors.As(err, &attempt) || attempt.stage != stageSent {
				t.Fatalf("got %v, want the answer, or a reset after sending", err)
			}
			continue
		}
		if resp.StatusCode != 413 {
			t.Errorf("got status %d, want 413", resp.StatusCode)
		}
		resp.Body.Close()
	}
}

// failingBody gives some bytes and then an error.
type failingBody struct {
	io.Reader
	err error
}

func (b *failingBody) Close() error { return nil }
func (b *failingBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF {
		err = b.err
	}
	return n, err
}

func TestTransportRequestBodyFails(t *testing.T) {
	gone := errors.New("client went away")
	replica := startRawReplica(t, answering("HTTP/1.1 204 No Content\r\n\r\n", false))
	tests := []struct {
		name   string
		length int64
		again  bool
		err    error
		want   error
		stage  attemptStage
	}{
		{"read ahead", 10, true, gone, gone, stageUnsent},
		{"read ahead, short", 10, true, io.EOF, io.ErrUnexpectedEOF, stageUnsent},
		{"streamed", 10, false, gone, gone, stageSent},
		{"streamed, short", 10, false, io.EOF, io.ErrUnexpectedEOF, stageSent},
		{"chunked", -1, false, gone, gone, stageSent},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			rt := newTestTransport()
			req := newGet(t, t.Context(), replica.addr)
			req.Method, req.ContentLength = "POST", test.length
			req.Body = &failingBody{strings.NewReader("hello"), test.err}
			if test.again {
				req.GetBody = func() (io.ReadCloser, error) { return nil, errors.ErrUnsupported }
			}
			_, err := rt.RoundTrip(req)
			wantAttempt(t, err, test.stage, test.want)
			if !errors.Is(err, errRequestBody) {
				t.Errorf("got %v, want %v in it", err, errRequestBody)
			}
		})
	}
}

// TestTransportBodyUntouchedAfterError: once RoundTrip has failed, the body
// can be sent elsewhere.
func TestTransportBodyUntouchedAfterError(t *testing.T) {
	replica := startRawReplica(t, func(conn net.Conn, br *bufio.Reader) {
		http.ReadRequest(br)
		br.ReadByte()
	})
	rt := newTestTransport()
	for range 50 {
		body := &watchedBody{Reader: bytes.NewReader(make([]byte, 1<<20))}
		req := newGet(t, t.Context(), replica.addr)
		req.Method, req.Body, req.ContentLength = "PUT", body, 1<<20
		_, err := rt.RoundTrip(req)
		wantAttempt(t, err, stageSent, nil)
		// Not synchronised on purpose: a reader left behind is a data race.
		if _, err := io.Copy(io.Discard, body.Reader); err != nil {
			t.Fatal(err)
		}
		if got := body.closes.Load(); got != 1 {
			t.Errorf("got %d closes of the body, want 1", got)
		}
	}
}

func TestTransportUpgrade(t *testing.T) {
	replica := startRawReplica(t, func(conn net.Conn, br *bufio.Reader) {
		req, err := http.ReadRequest(br)
		if err != nil || req.Header.Get("Upgrade") != "echo" {
			return
		}
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhello")
		io.Copy(conn, br)
	})
	for side, wrap := range wireSides {
		for name, rt := range transportsUnderTest(t) {
			t.Run(side+"/"+name, func(t *testing.T) {
				req := newGet(t, t.Context(), replica.addr)
				req.Header.Set("Connection", "Upgrade")
				req.Header.Set("Upgrade", "echo")
				resp, err := wrap(t, rt).RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				conn, ok := resp.Body.(io.ReadWriteCloser)
				if !ok || resp.StatusCode != 101 {
					t.Fatalf("got status %d with body %T", resp.StatusCode, resp.Body)
				}
				if _, err := io.WriteString(conn, " world"); err != nil {
					t.Fatal(err)
				}
				if got := make([]byte, 11); true {
					if _, err := io.ReadFull(conn, got); err != nil || string(got) != "hello world" {
						t.Errorf("got %q, error %v, want hello world", got, err)
					}
				}
				if side == "plain" {
					if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
						t.Error(err)
					}
					if rest, err := io.ReadAll(conn); len(rest) > 0 || err != nil {
						t.Errorf("got %q, error %v, want the end", rest, err)
					}
				}
				conn.Close()
				if rt, ok := rt.(*directTransport); ok && side == "plain" {
					if open, _ := rt.stats(); open != 0 {
						t.Errorf("got %d open connections, want 0", open)
					}
				}
			})
		}
	}
}

func TestTransportPool(t *testing.T) {
	replica := startRawReplica(t, answering("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", false))
	// hold opens n connections at once and returns what ends their exchanges.
	hold := func(rt *directTransport, n int) func() {
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
	wantStats := func(rt *directTransport, open, idle int) {
		t.Helper()
		if o, i := rt.stats(); o != open || i != idle {
			t.Errorf("got %d open and %d idle connections, want %d and %d", o, i, open, idle)
		}
	}
	limits := transportLimits{idlePerAddr: 3, idle: 4, idleTimeout: time.Hour, head: 1 << 10}
	build := func(l transportLimits) *directTransport {
		rt := newDirectTransport(newTestTransport().dial, l)
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
		l.idle = 2
		rt := build(l)
		hold(rt, 5)()
		wantStats(rt, 2, 2)
	})
	t.Run("a replica that left", func(t *testing.T) {
		rt := build(limits)
		hold(rt, 3)()
		release := hold(rt, 2)
		wantStats(rt, 3, 1)
		rt.closeIdle(replica.addr)
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

// awaitNoUploads waits until no upload is left: one may still be putting back
// its connection when the answer has been read.
func awaitNoUploads(t *testing.T) {
	t.Helper()
	stacks := make([]byte, 1<<20)
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); runtime.Gosched() {
		if !bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("faas.(*upload)")) {
			return
		}
	}
	t.Errorf("got goroutines left behind:\n%s", stacks[:runtime.Stack(stacks, true)])
}
