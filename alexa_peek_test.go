package main

// What callers of whom nothing is known can make the gateway hold: in a bubble
// of synctest, over connections in memory, so that timeouts pass at once.

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"faas/internal/alexa"
	"faas/internal/alexa/alexatest"
	"faas/internal/wire"
)

// A pipeListener accepts connections in memory.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { close(l.closed); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// bubbleGateway serves a gateway without functions in a bubble. connect makes
// a connection to it and sends what a client would; the test ends the gateway
// by stop.
func bubbleGateway(t *testing.T, v *alexa.Verifier) (g *gateway, connect func(text string) net.Conn, stop func()) {
	t.Helper()
	c, err := parseConfig(nil, func(string) string { return "" }, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	r, _ := newTestRegistry(newMemoryProvider(), nil)
	log := slog.New(slog.DiscardHandler)
	g = newGateway(&c, r, new(upstream), r.metrics, log)
	g.verifier = v
	ln := &pipeListener{make(chan net.Conn), make(chan struct{})}
	strict := wire.Listen(ln, r.metrics.refused)
	server := newServer(g, strict, log)
	served := make(chan error, 1)
	go func() { served <- server.Serve(strict) }()
	connect = func(text string) net.Conn {
		t.Helper()
		client, conn := net.Pipe()
		ln.conns <- conn
		if _, err := io.WriteString(client, text); err != nil {
			t.Fatal(err)
		}
		return client
	}
	return g, connect, func() {
		server.Close()
		<-served
		ended, end := context.WithCancel(context.Background())
		end()
		strict.EndLingering(ended)
	}
}

// answerOn reads an answer.
func answerOn(t *testing.T, conn net.Conn) (*http.Response, string) {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func postAlexa(body string) string {
	return fmt.Sprintf("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

const passedAlexa = "no function for this intent\n" // the answer to what got that far

// Callers who send the beginning of an Alexa request and no more hold maxPeeks
// bodies, for peekTimeout.
func TestAlexaPeeksAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, connect, stop := bubbleGateway(t, nil)
		defer stop()
		began := time.Now()
		whole := postAlexa(alexatest.Minimal)
		var stalled []net.Conn
		for range maxPeeks {
			stalled = append(stalled, connect(whole[:len(whole)-1]))
		}
		synctest.Wait()
		resp, body := answerOn(t, connect(whole))
		if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") != "1" {
			t.Errorf("one more: got %d %q, Retry-After %q, want 503 and 1", resp.StatusCode, body, resp.Header.Get("Retry-After"))
		}
		if resp, _ := answerOn(t, connect("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")); resp.StatusCode != http.StatusOK {
			t.Errorf("/healthz: got %d, want 200", resp.StatusCode)
		}
		chunked := "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
		if resp, _ := answerOn(t, connect(chunked)); resp.StatusCode != http.StatusBadRequest {
			t.Errorf("a body without a length: got %d, want 400 and no need of a turn", resp.StatusCode)
		}

		io.WriteString(stalled[0], whole[len(whole)-1:])
		if _, body := answerOn(t, stalled[0]); body != passedAlexa {
			t.Errorf("when it was whole: got %q, want %q", body, passedAlexa)
		}
		if _, body := answerOn(t, connect(whole)); body != passedAlexa {
			t.Errorf("in its place: got %q, want %q", body, passedAlexa)
		}

		for _, conn := range stalled[1:] {
			if resp, body := answerOn(t, conn); resp.StatusCode != http.StatusRequestTimeout {
				t.Errorf("stalled: got %d %q, want 408", resp.StatusCode, body)
			}
		}
		if d := time.Since(began); d != peekTimeout {
			t.Errorf("got the stalled ones refused after %v, want %v", d, peekTimeout)
		}
		if _, body := answerOn(t, connect(whole)); body != passedAlexa {
			t.Errorf("afterwards: got %q, want %q", body, passedAlexa)
		}
	})
}

// Requests that arrive slowly have all of (5*time.Second) for their chain, the
// one that downloads it and the one that waits for that, and are held against
// maxPeeks for as long.
func TestAlexaPeekDeadlineEndsBeforeVerification(t *testing.T) {
	a := alexatest.NewAmazon(t)
	good := alexatest.ChainPEM(alexatest.Issue(a.Between, alexatest.SigningKey(), alexatest.Signing()), a.Between)
	signed := []*alexatest.SignedBody{alexatest.SignedRequest(t), alexatest.SignedRequest(t)}
	signed[1].Set(t, "requestId", "another")
	synctest.Test(t, func(t *testing.T) {
		v, err := alexa.NewVerifier(alexa.Options{Roots: a.Roots, Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			time.Sleep((5 * time.Second) - time.Second)
			return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(bytes.NewReader(good)), Request: r}, nil
		}), Now: func() time.Time { return alexatest.Now }})
		if err != nil {
			t.Fatal(err)
		}
		g, connect, stop := bubbleGateway(t, v)
		defer stop()
		var conns []net.Conn
		for _, r := range signed {
			head := fmt.Sprintf("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n", len(r.Body))
			for name := range r.Header {
				head += name + ": " + r.Header.Get(name) + "\r\n"
			}
			conns = append(conns, connect(head+"\r\n{"))
		}
		time.Sleep(peekTimeout - time.Second)
		for i, r := range signed {
			conns[i].Write(r.Body[1:])
		}
		synctest.Wait()
		if n := len(g.peeks); n != len(signed) {
			t.Errorf("got %d held while they are verified, want %d", n, len(signed))
		}
		for _, conn := range conns {
			if _, body := answerOn(t, conn); body != passedAlexa {
				t.Errorf("got %q, want the request to pass", body)
			}
		}
		synctest.Wait()
		if n := len(g.peeks); n != 0 {
			t.Errorf("got %d held afterwards, want none", n)
		}
	})
}
