package wire

// A server behind a Listener, and a client below net/http.

import (
	"bufio"
	"io"
	"log"
	"net"
	"net/http"
	"testing"
	"time"
)

// startStrictServer serves handler behind a strict listener until the test
// ends. The reasons of refusals arrive on the channel.
func startStrictServer(t *testing.T, handler http.HandlerFunc) (addr string, refused <-chan string) {
	t.Helper()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	reasons := make(chan string, 100)
	ln := Listen(tcp, func(reason string) { reasons <- reason })
	server := &http.Server{
		Handler:           handler,
		ConnState:         ln.ConnState,
		ReadHeaderTimeout: 10 * time.Second,
		MaxHeaderBytes:    16 << 10,
		// OPTIONS * is the handler's too.
		DisableGeneralOptionsHandler: true,
		Protocols:                    new(http.Protocols),
		ErrorLog:                     log.New(io.Discard, "", 0),
	}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.Serve(ln)
	}()
	t.Cleanup(func() {
		server.Close()
		<-done
	})
	return tcp.Addr().String(), reasons
}

func dialStrict(t *testing.T, addr string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn, bufio.NewReader(conn)
}

func send(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatalf("write: %v", err)
	}
}

// readAnswer reads one response and its whole body.
func readAnswer(t *testing.T, r *bufio.Reader) (*http.Response, string) {
	t.Helper()
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatalf("read response: %v", err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("read body of %d: %v", res.StatusCode, err)
	}
	return res, string(body)
}

// wantRefusal reads a 400 for reason and then the end of the connection.
func wantRefusal(t *testing.T, r *bufio.Reader, refused <-chan string, reason violation) {
	t.Helper()
	res, body := readAnswer(t, r)
	if res.StatusCode != 400 || !res.Close {
		t.Errorf("got status %d, close %v, want 400, true", res.StatusCode, res.Close)
	}
	if want := "bad request: " + string(reason) + "\n"; body != want {
		t.Errorf("got body %q, want %q", body, want)
	}
	if _, err := r.ReadByte(); err != io.EOF {
		t.Errorf("after the answer: got %v, want EOF", err)
	}
	select {
	case got := <-refused:
		if got != string(reason) {
			t.Errorf("got reason %q, want %q", got, reason)
		}
	default:
		t.Error("the refusal was not counted")
	}
}
