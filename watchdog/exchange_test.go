package watchdog

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// before serves mode http before a handler.
func before(t *testing.T, handler http.HandlerFunc, settings ...string) (string, *Handler, *logBuffer) {
	t.Helper()
	upstream := httptest.NewServer(handler)
	t.Cleanup(upstream.Close)
	return serve(t, testConfig(t, "sleep 60", append(settings, "mode=http", "upstream_url="+upstream.URL)...))
}

// raw sends a request as it stands and returns the answer, whose body is there
// to be read.
func raw(t *testing.T, url, request string) (*http.Response, net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(c)
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatalf("got no answer: %v", err)
	}
	return resp, c, in
}

// A process that says no type has none made up for it.
func TestHTTPContentType(t *testing.T) {
	url, _, _ := before(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Content-Type"] = nil
		if v := r.Header.Get("X-Type"); v != "" {
			w.Header().Set("Content-Type", v)
		}
		io.WriteString(w, "<html>hello</html>")
	})
	for _, want := range []string{"", "text/x-own"} {
		resp, body := do(t, "GET", url, nil, "X-Type: "+want)
		if got, there := resp.Header["Content-Type"]; resp.Header.Get("Content-Type") != want || there != (want != "") || body == "" {
			t.Errorf("got type %q, %q, want %q", got, body, want)
		}
	}
}

// Trailers pass in both directions.
func TestHTTPTrailers(t *testing.T) {
	url, _, _ := before(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Trailer", "X-Back")
		io.WriteString(w, "hello")
		w.Header().Set("X-Back", r.Trailer.Get("X-Sum"))
	})
	req, _ := http.NewRequest("POST", url, io.MultiReader(strings.NewReader("hello")))
	req.Trailer = http.Header{"X-Sum": {"42"}}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if got := resp.Trailer.Get("X-Back"); err != nil || string(body) != "hello" || got != "42" {
		t.Errorf("got %q, trailer %q, %v, want hello and 42", body, got, err)
	}
	for _, name := range []string{"Host", "X T"} {
		resp, _, _ := raw(t, url, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: "+name+"\r\n\r\n0\r\n\r\n")
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("trailer %q: got status %d, want 400", name, resp.StatusCode)
		}
	}
}

// A body that breaks off is the client's fault, not the process's.
func TestHTTPBrokenBody(t *testing.T) {
	for name, request := range map[string]string{
		"cut short":       "Content-Length: 10\r\n\r\nhalf",
		"malformed chunk": "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nno length\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			whole := make(chan error, 1)
			url, h, log := before(t, func(w http.ResponseWriter, r *http.Request) {
				_, err := io.Copy(io.Discard, r.Body)
				whole <- err
			})
			c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(30 * time.Second))
			io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\n"+request)
			c.(*net.TCPConn).CloseWrite()
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil || resp.StatusCode != http.StatusBadRequest || !resp.Close {
				t.Errorf("got %v, %v, want 400 and the connection closed", resp, err)
			}
			if <-whole == nil {
				t.Error("the process got a whole body, want it to see that it was cut short")
			}
			wantIdle(t, h)
			if !strings.Contains(log.String(), "cannot read body") {
				t.Errorf("got log %q, want whose fault it is", log)
			}
		})
	}
}

// A client that stalls in its body is told so when read_timeout has passed.
func TestHTTPStalledBody(t *testing.T) {
	url, _, _ := before(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }, "read_timeout=1s")
	resp, _, _ := raw(t, url, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("got status %d, want 400", resp.StatusCode)
	}
}

// An answer that makes no sense is one at once, though the client pauses.
func TestHTTPGarbageInTheMiddle(t *testing.T) {
	over := make(chan struct{})
	url, _, _ := before(t, func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		io.WriteString(conn, "garbage\r\n\r\n")
		<-over
	})
	defer close(over)
	resp, _, _ := raw(t, url, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
	if resp.StatusCode != http.StatusBadGateway {
		t.Errorf("got status %d, want 502", resp.StatusCode)
	}
}

// A process that accepts nothing is said to, once.
func TestHTTPNothingAccepts(t *testing.T) {
	t.Parallel()
	url, _, log := serve(t, testConfig(t, "sleep 60", "mode=http", "upstream_url=http://127.0.0.1:1"))
	resp, _ := do(t, "GET", url, nil, "X-Timeout: 7s")
	if resp.StatusCode != http.StatusGatewayTimeout {
		t.Errorf("got status %d, want 504", resp.StatusCode)
	}
	if n := strings.Count(log.String(), "nothing accepts connections at upstream_url"); n != 1 {
		t.Errorf("got log %q, want one line that says so", log)
	}
}
