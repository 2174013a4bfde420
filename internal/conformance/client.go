package conformance

// The client: below net/http, so that it can stop in the middle.

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// Pauses between pieces that do not wait for an answer.
const (
	pause     = 5 * time.Millisecond
	longPause = 100 * time.Millisecond
)

// run sends the request below base, and checks what becomes of it. server is
// nil if it cannot be asked what it has received.
func (s scenario) run(t *testing.T, base, id string, server *server) {
	target, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", target.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))

	body := content(s.size)
	came := make(chan int, 1) // the length of the answer so far
	sent := make(chan error, 1)
	in := bufio.NewReader(conn)
	if _, err := io.WriteString(conn, s.head(target, id)); err != nil {
		t.Fatal(err)
	}
	if s.header == "Expect: 100-continue" {
		if line, err := in.ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 100 ") {
			t.Fatalf("got %q, %v, want to be told to go on", line, err)
		}
		in.ReadString('\n')
	}
	go func() {
		defer close(sent)
		sent <- s.send(conn, body, came)
	}()
	if s.pace == slowly {
		if err := <-sent; err != nil {
			t.Errorf("cut off while sending: %v", err)
		}
	}
	resp, got, err := s.read(in, came)
	defer func() {
		conn.Close()
		<-sent
	}()

	reply := content(s.replySize())
	status := 0
	if resp != nil {
		status = resp.StatusCode
	}
	switch s.want {
	case whole, answer:
		if status != http.StatusOK || err != nil || !bytes.Equal(got, reply) {
			t.Errorf("got status %d, %d bytes (as they were sent: %v), error %v, want 200 and %d bytes",
				status, len(got), bytes.HasPrefix(reply, got), err, len(reply))
		}
	case broken, either:
		if err == nil && status < 400 && (s.want == broken || !bytes.Equal(got, reply)) {
			t.Errorf("got status %d and %d bytes that seem whole, want an error", status, len(got))
		}
	default:
		if fmt.Sprint(status) != s.want || err != nil {
			t.Errorf("got status %d, error %v, want %s", status, err, s.want)
		}
	}
	if s.keep {
		<-sent
		s.sendAgain(t, conn, in, target, resp)
	}
	if server != nil {
		s.checkReceived(t, server.of(id), body)
	}
}

// head returns the request's head.
func (s scenario) head(target *url.URL, id string) string {
	method, proto := s.method, "HTTP/1.1"
	if method == "" {
		method = "GET"
		if s.framing != "" {
			method = "POST"
		}
	}
	if s.http10 {
		proto = "HTTP/1.0"
	}
	var head strings.Builder
	fmt.Fprintf(&head, "%s %s/%s %s\r\nHost: %s\r\n", method, target.EscapedPath(), s.server, proto, target.Host)
	fmt.Fprintf(&head, "%s: %s\r\n%s: %s\r\n%s: %d\r\n", headerID, id, headerReply, s.reply, headerSize, s.replySize())
	if s.replyCut > 0 {
		fmt.Fprintf(&head, "%s: %d\r\n", headerCut, s.replyCut)
	}
	if s.reset {
		fmt.Fprintf(&head, "%s: true\r\n", headerReset)
	}
	switch s.framing {
	case sized:
		fmt.Fprintf(&head, "Content-Length: %d\r\n", s.size)
	case chunked:
		head.WriteString("Transfer-Encoding: chunked\r\n")
	}
	if s.header != "" {
		head.WriteString(s.header + "\r\n")
	}
	return head.String() + "\r\n"
}

// send sends the request's body. Where the client reads at the same time, what an
// error means shows in the answer.
func (s scenario) send(conn net.Conn, body []byte, came <-chan int) error {
	if s.framing == "" {
		return nil
	}
	size := map[string]int{atOnce: 256 << 10, pieces: pieceSize, lockstep: stepSize, slowly: slowSize, halting: len(body) / 2}[s.pace]
	rest := body
	if s.cut > 0 {
		rest = body[:s.cut]
	}
	for done := 0; len(rest) > 0; {
		piece := rest[:min(size, len(rest))]
		rest = rest[len(piece):]
		out := piece
		if s.framing == chunked {
			out = fmt.Appendf(nil, "%x\r\n%s\r\n", len(piece), piece)
		}
		if _, err := conn.Write(out); err != nil {
			return err
		}
		switch done += len(piece); s.pace {
		case pieces:
			time.Sleep(pause)
		case slowly:
			time.Sleep(longPause)
		case halting:
			for range came {
			}
		case lockstep:
			for n := range came {
				if n >= done {
					break
				}
			}
		}
	}
	if s.cut > 0 {
		if s.server == early {
			// What is still on its way when the body is cut short may be lost.
			for n := range came {
				if n >= s.replySize() {
					break
				}
			}
		}
		return conn.(*net.TCPConn).CloseWrite()
	}
	if s.framing == chunked {
		_, err := io.WriteString(conn, "0\r\n\r\n")
		return err
	}
	return nil
}

// read reads the answer to its end, and says on came how far it is.
func (s scenario) read(in *bufio.Reader, came chan int) (resp *http.Response, got []byte, err error) {
	defer close(came)
	method := s.method
	if method == "" {
		method = "POST"
	}
	resp, err = http.ReadResponse(in, &http.Request{Method: method})
	if err != nil {
		return nil, nil, err
	}
	b := make([]byte, 64<<10)
	for {
		n, err := resp.Body.Read(b)
		got = append(got, b[:n]...)
		select {
		case <-came: // nobody has taken the last one
		default:
		}
		came <- len(got)
		if err == io.EOF {
			return resp, got, nil
		}
		if err != nil {
			return resp, got, err
		}
	}
}

// sendAgain sends another request on the connection.
func (s scenario) sendAgain(t *testing.T, conn net.Conn, in *bufio.Reader, target *url.URL, resp *http.Response) {
	t.Helper()
	if resp == nil || resp.Close {
		t.Error("the connection is closed, want it kept")
		return
	}
	fmt.Fprintf(conn, "GET %s/again HTTP/1.1\r\nHost: %s\r\n\r\n", target.EscapedPath(), target.Host)
	again, err := http.ReadResponse(in, nil)
	if err != nil || again.StatusCode != http.StatusNoContent {
		t.Errorf("got %v, %v to another request on the connection, want 204", again, err)
	}
}

// checkReceived checks what the server got of the body.
func (s scenario) checkReceived(t *testing.T, got *received, sent []byte) {
	t.Helper()
	if got == nil {
		if s.want == whole || s.want == answer {
			t.Error("the server got no request")
		}
		return
	}
	select {
	case <-got.done:
	case <-time.After(patience):
		t.Fatal("the server still waits for the body")
	}
	if s.framing == "" {
		sent = nil
	}
	switch {
	case s.cut > 0 && got.whole:
		t.Errorf("the server got %d bytes as a whole body, want it to see that the body was cut short", len(got.body))
	case !bytes.HasPrefix(sent, got.body):
		t.Errorf("the server got %d bytes that were not sent like that", len(got.body))
	case got.whole && len(got.body) != len(sent), s.want == whole && !got.whole:
		t.Errorf("the server got %d bytes (whole: %v), want all %d", len(got.body), got.whole, len(sent))
	}
}
