package transport

// Request bodies: streamed, answered early, broken off.

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestTransportLongHead: a head that no socket buffer takes at once arrives.
func TestTransportLongHead(t *testing.T) {
	value := strings.Repeat("x", 8<<20)
	replica := startRawReplica(t, func(conn net.Conn, br *bufio.Reader) {
		for {
			req, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			body, _ := io.ReadAll(req.Body)
			text := fmt.Sprintf("%t %s", req.Header.Get("X-Long") == value, body)
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
		}
	})
	rt := newTestTransport()
	defer rt.CloseIdleConnections()
	for _, length := range []int64{5, -1, 0} {
		req := post(t, replica.addr, "hello")
		req.Header.Set("X-Long", value)
		if req.ContentLength = length; length == 0 {
			req.Body = nil
		}
		want := "true hello"
		if length == 0 {
			want = "true "
		}
		if got := wireTrip(rt, req); got.body != want || got.err != nil {
			t.Errorf("length %d: got %.80q, error %v, want %q", length, got.body, got.err, want)
		}
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
			if rt, ok := rt.(*Transport); ok {
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
			var attempt *Error
			if !errors.As(err, &attempt) || attempt.Stage != StageSent {
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

// A reset that the upload met first still breaks an answer without a length:
// the system tells of it once only.
func TestTransportResetMetByTheUpload(t *testing.T) {
	reset := make(chan struct{})
	replica := startRawReplica(t, func(conn net.Conn, br *bufio.Reader) {
		http.ReadRequest(br)
		io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\nhalf")
		<-reset
		conn.(*net.TCPConn).SetLinger(0)
	})
	for name, rt := range map[string]http.RoundTripper{"direct": newTestTransport(), "std": NewStandard((&net.Dialer{}).DialContext, Limits{})} {
		reader, writer := io.Pipe()
		req := newGet(t, t.Context(), replica.addr)
		req.Method, req.ContentLength, req.Body = "POST", -1, reader // without an end: it stops when all buffers are full
		resp, err := rt.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(resp.Body, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
		reset <- struct{}{}
		for err == nil { // until the upload has met the reset
			_, err = writer.Write(make([]byte, 1000))
		}
		if _, err := io.ReadAll(resp.Body); err == nil {
			t.Errorf("%s: got an answer that seems whole, want an error", name)
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
		stage  Stage
	}{
		{"read ahead", 10, true, gone, gone, StageUnsent},
		{"read ahead, short", 10, true, io.EOF, io.ErrUnexpectedEOF, StageUnsent},
		{"streamed", 10, false, gone, gone, StageSent},
		{"streamed, short", 10, false, io.EOF, io.ErrUnexpectedEOF, StageSent},
		{"chunked", -1, false, gone, gone, StageSent},
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
			if !errors.Is(err, ErrRequestBody) {
				t.Errorf("got %v, want %v in it", err, ErrRequestBody)
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
		wantAttempt(t, err, StageSent, nil)
		// Not synchronised on purpose: a reader left behind is a data race.
		if _, err := io.Copy(io.Discard, body.Reader); err != nil {
			t.Fatal(err)
		}
		if got := body.closes.Load(); got != 1 {
			t.Errorf("got %d closes of the body, want 1", got)
		}
	}
}

// heldConn delivers what is written and holds back the return of a Write that
// ends a chunked body.
type heldConn struct {
	net.Conn
	release chan struct{}
}

func (c *heldConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if bytes.HasSuffix(p, []byte("0\r\n\r\n")) {
		<-c.release
	}
	return n, err
}

// TestTransportAnswerOvertakesUpload: the connection is kept when the answer
// has been read before the last write of the request came back.
func TestTransportAnswerOvertakesUpload(t *testing.T) {
	replica := startRawReplica(t, answering("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", false))
	release := make(chan struct{})
	rt := newTestTransport()
	defer rt.CloseIdleConnections()
	dial := rt.dial
	rt.dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		return &heldConn{conn, release}, err
	}
	ctx, cancel := context.WithCancel(t.Context())
	req := post(t, replica.addr, "question").WithContext(ctx)
	req.ContentLength = -1
	if got := wireTrip(rt, req); got.body != "hello" || got.err != nil {
		t.Errorf("got %q, error %v, want hello", got.body, got.err)
	}
	if open, idle := rt.stats(); open != 1 || idle != 0 {
		t.Errorf("got %d open and %d idle connections, want 1 and 0", open, idle)
	}
	cancel() // too late to matter
	close(release)
	awaitNoUploads(t)
	if open, idle := rt.stats(); open != 1 || idle != 1 {
		t.Errorf("got %d open and %d idle connections, want 1 and 1", open, idle)
	}
}

// TestTransportEarlySwitch: no two writers on one connection.
func TestTransportEarlySwitch(t *testing.T) {
	replica := startRawReplica(t, func(conn net.Conn, br *bufio.Reader) {
		http.ReadRequest(br)
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		io.Copy(io.Discard, br)
	})
	body, feed := io.Pipe()
	defer feed.Close()
	req := newGet(t, t.Context(), replica.addr)
	req.Method, req.Body, req.ContentLength = "POST", body, -1
	_, err := newTestTransport().RoundTrip(req)
	wantAttempt(t, err, StageSent, errEarlySwitch)
}

// awaitNoUploads waits until no upload is left: one may still be putting back
// its connection when the answer has been read.
func awaitNoUploads(t *testing.T) {
	t.Helper()
	stacks := make([]byte, 1<<20)
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); runtime.Gosched() {
		if !bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("transport.(*upload)")) {
			return
		}
	}
	t.Errorf("got goroutines left behind:\n%s", stacks[:runtime.Stack(stacks, true)])
}
