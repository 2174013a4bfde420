package main

// A client below net/http.

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

// A rawClient is a connection on which a test writes bytes itself.
type rawClient struct {
	net.Conn
	t  *testing.T
	br *bufio.Reader
}

func dialRaw(t *testing.T, base string) *rawClient {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return &rawClient{c, t, bufio.NewReader(c)}
}

func (c *rawClient) send(format string, args ...any) {
	c.t.Helper()
	if _, err := fmt.Fprintf(c, format, args...); err != nil {
		c.t.Fatal(err)
	}
}

// receive reads one answer to a request of the method.
func (c *rawClient) receive(method string) (*http.Response, string) {
	c.t.Helper()
	resp, err := http.ReadResponse(c.br, &http.Request{Method: method})
	if err != nil {
		c.t.Fatalf("no answer: %v", err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatalf("body of a %d: %v", resp.StatusCode, err)
	}
	return resp, string(b)
}

// waitForMetric waits until a line is exposed: what is counted after the
// answer is counted a moment after the caller has it.
func waitForMetric(t *testing.T, base, want string) {
	t.Helper()
	metricWithin(t, 10*time.Second, base, want)
}
