package watchdog

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// A refusal does not wait for a body that does not come, and keeps a connection
// whose body has come.
func TestRefusalWithBody(t *testing.T) {
	release := make(chan struct{})
	entered := make(chan struct{})
	url, _, _ := before(t, func(http.ResponseWriter, *http.Request) {
		close(entered)
		<-release
	}, "max_inflight=1")
	defer close(release)
	go http.Get(url)
	<-entered
	for _, body := range []string{"half", "hello, all"} {
		resp, c, in := raw(t, url, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"+body)
		if resp.StatusCode != http.StatusTooManyRequests || resp.Close != (body == "half") {
			t.Errorf("body %q: got status %d, closed %v, want 429", body, resp.StatusCode, resp.Close)
		}
		io.Copy(io.Discard, resp.Body)
		if body == "half" {
			continue
		}
		fmt.Fprintf(c, "GET /_/health HTTP/1.1\r\nHost: x\r\n\r\n")
		if resp, err := http.ReadResponse(in, nil); err != nil || resp.StatusCode != 200 {
			t.Errorf("got %v, %v to another request, want 200", resp, err)
		}
	}
}

// The end of an answer is no more than the end of the connection for a client
// of HTTP/1.0: what is cut short is reset.
func TestCutShortForHTTP10(t *testing.T) {
	for _, command := range []string{"echo hi", "echo hi; exit 3"} {
		url, _, _ := serve(t, testConfig(t, "sh -c '"+command+"'", "mode=streaming"))
		c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(30 * time.Second))
		io.WriteString(c, "GET / HTTP/1.0\r\n\r\n")
		if got, err := io.ReadAll(c); (err == nil) != (command == "echo hi") {
			t.Errorf("%s: got %q, %v", command, got, err)
		}
	}
}
