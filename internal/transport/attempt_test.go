package transport

// What a transport says about attempts that failed, and what callers get when
// peers, deadlines or upgrades cut in.

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func wantAttempt(t *testing.T, err error, stage Stage, is error) {
	t.Helper()
	var attempt *Error
	if !errors.As(err, &attempt) {
		t.Fatalf("got error %v, want an Error", err)
	}
	if attempt.Stage != stage {
		t.Errorf("got stage %q (%v), want %q", attempt.Stage, err, stage)
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
	wantAttempt(t, err, StageDial, nil)
	if body.reads.Load() != 0 || body.closes.Load() != 1 {
		t.Errorf("got %d reads and %d closes of the body, want 0 and 1", body.reads.Load(), body.closes.Load())
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = rt.RoundTrip(newGet(t, ctx, listener.Addr().String()))
	wantAttempt(t, err, StageDial, context.Canceled)

	// A dial that hangs until the deadline.
	rt.dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, &net.OpError{Op: "dial", Err: errors.New("hung")}
	}
	ctx, cancel = context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err = rt.RoundTrip(newGet(t, ctx, listener.Addr().String()))
	wantAttempt(t, err, StageDial, context.DeadlineExceeded)
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
	for takes, stage := range map[int]Stage{0: StageUnsent, 1: StageSent} {
		rt := New(func(context.Context, string, string) (net.Conn, error) {
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
	wantAttempt(t, err, StageSent, io.ErrUnexpectedEOF)
	if seen.Load() != 2 {
		t.Errorf("got %d requests at the replica, want 2", seen.Load())
	}
	if open, _ := rt.stats(); open != 0 {
		t.Errorf("got %d open connections, want 0", open)
	}
}

// A reachedDeadline is a context whose deadline is reached when the test says
// so.
type reachedDeadline struct {
	context.Context
	reached chan struct{}
}

func (c *reachedDeadline) Done() <-chan struct{} { return c.reached }

func (c *reachedDeadline) Err() error {
	select {
	case <-c.reached:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

func TestTransportDeadline(t *testing.T) {
	for side, hang := range map[string]bool{"no body": false, "body that hangs": true} {
		t.Run(side, func(t *testing.T) {
			ctx := &reachedDeadline{t.Context(), make(chan struct{})}
			replica := startRawReplica(t, func(conn net.Conn, br *bufio.Reader) {
				http.ReadRequest(br)
				close(ctx.reached)
				br.ReadByte() // until the caller goes away
			})
			req := newGet(t, ctx, replica.addr)
			if hang {
				r, w := io.Pipe()
				defer w.Close()
				req.Method, req.Body, req.ContentLength = "POST", r, 10
			}
			rt := newTestTransport()
			_, err := rt.RoundTrip(req)
			wantAttempt(t, err, StageSent, context.DeadlineExceeded)
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

// TestTransportPeerResets: a reset is no end of a body and no answer.
func TestTransportPeerResets(t *testing.T) {
	for _, answer := range []string{"", "HTTP/1.1 200 OK\r\n\r\nhello"} {
		read := make(chan struct{})
		replica := startRawReplica(t, func(conn net.Conn, br *bufio.Reader) {
			http.ReadRequest(br)
			io.WriteString(conn, answer)
			if answer != "" {
				<-read
			}
			conn.(*net.TCPConn).SetLinger(0)
		})
		rt := newTestTransport()
		resp, err := rt.RoundTrip(newGet(t, t.Context(), replica.addr))
		if answer == "" {
			wantAttempt(t, err, StageSent, syscall.ECONNRESET)
		} else if err != nil {
			t.Error(err)
		} else {
			io.ReadFull(resp.Body, make([]byte, 5))
			close(read)
			if rest, err := io.ReadAll(resp.Body); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("got %q, error %v, want %v", rest, err, syscall.ECONNRESET)
			}
		}
		if open, _ := rt.stats(); open != 0 {
			t.Errorf("got %d open connections, want 0", open)
		}
	}
}

func TestTransportInterimRefused(t *testing.T) {
	refused := errors.New("refused")
	replica := startRawReplica(t, answering("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", false))
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(int, textproto.MIMEHeader) error { return refused },
	})
	_, err := newTestTransport().RoundTrip(newGet(t, ctx, replica.addr))
	wantAttempt(t, err, StageSent, refused)
}

func TestTransportBadTrailers(t *testing.T) {
	for name, trailer := range map[string]string{
		"length":         "Content-Length: 5\r\n\r\n",
		"bare line feed": "X: 1\nY: 2\r\n\r\n",
		"no colon":       "nonsense\r\n\r\n",
		"too long":       strings.Repeat("X: y\r\n", 20000) + "\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			replica := startRawReplica(t, answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"+trailer, false))
			rt := newTestTransport()
			got := wireTrip(rt, newGet(t, t.Context(), replica.addr))
			if got.err != nil || got.bodyErr == nil {
				t.Errorf("got error %v, body error %v, want only the latter", got.err, got.bodyErr)
			}
			if open, _ := rt.stats(); open != 0 {
				t.Errorf("got %d open connections, want 0", open)
			}
		})
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
				if rt, ok := rt.(*Transport); ok && side == "plain" {
					if open, _ := rt.stats(); open != 0 {
						t.Errorf("got %d open connections, want 0", open)
					}
				}
			})
		}
	}
}
