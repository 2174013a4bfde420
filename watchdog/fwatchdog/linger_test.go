package main

// What a client still sends when its answer is complete.

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

// A client that has its answer and still sends is not in flight: the end does not
// wait for it. Docker kills what has not ended after 10 s.
func TestTheEndDoesNotWaitForWhoHasAnAnswer(t *testing.T) {
	s := start(t, build(t), "fprocess=echo -n answer", "healthcheck_interval=0s")
	c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(60 * time.Second))
	fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(resp.Body); err != nil || string(got) != "answer" || !resp.Close {
		t.Errorf("got %q, %v, closed %v, want the answer and the connection closed", got, err, resp.Close)
	}
	go func() {
		for err := error(nil); err == nil; _, err = io.WriteString(c, "1\r\nx\r\n") {
			time.Sleep(50 * time.Millisecond)
		}
	}()
	began := time.Now()
	s.signal(t)
	s.wantExit(t, 0)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it ended after %v, want less than 10 s", took)
	}
}
