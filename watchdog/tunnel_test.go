package watchdog

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// switching serves requests with another protocol.
func switching(t *testing.T, speak func(net.Conn, *bufio.Reader)) string {
	t.Helper()
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		speak(conn, buf.Reader)
	}))
	t.Cleanup(upstream.Close)
	return upstream.URL
}

func echoing(conn net.Conn, in *bufio.Reader) { io.Copy(conn, in) }

const upgradeRequest = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"

// upgraded returns a connection to url that has switched protocols. early is
// sent with the request.
func upgraded(t *testing.T, url, early string) (*net.TCPConn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(30 * time.Second))
	io.WriteString(c, upgradeRequest+early)
	in := bufio.NewReader(c)
	resp, err := http.ReadResponse(in, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("got %v, %v, want 101", resp, err)
	}
	return c.(*net.TCPConn), in
}

// wantIdle waits until no invocation is under way.
func wantIdle(t *testing.T, h *Handler) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); h.Inflight() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("got %d invocations in flight, want 0", h.Inflight())
		}
	}
}

// wantEcho sends a line and wants it back.
func wantEcho(t *testing.T, c net.Conn, in *bufio.Reader) {
	t.Helper()
	io.WriteString(c, "ping\n")
	if line, err := in.ReadString('\n'); err != nil || line != "ping\n" {
		t.Fatalf("got %q, %v, want an echo", line, err)
	}
}

// A busy connection lives longer than the limit; the limit counts from its last
// byte.
func TestTunnelLimit(t *testing.T) {
	t.Parallel()
	const limit = 3 * time.Second // no machine stands still for so long
	url, h, log := serve(t, testConfig(t, "sleep 60", "mode=http", "upstream_url="+switching(t, echoing), "exec_timeout="+limit.String()))
	c, in := upgraded(t, url, "")
	for begin := time.Now(); time.Since(begin) < 2*limit; time.Sleep(limit / 50) {
		wantEcho(t, c, in)
	}
	if h.Inflight() != 1 {
		t.Errorf("got %d in flight, want 1", h.Inflight())
	}
	if b, err := io.ReadAll(in); err != nil || len(b) > 0 {
		t.Errorf("got %q, %v when nothing is sent, want the connection closed", b, err)
	}
	wantIdle(t, h)
	if !strings.Contains(log.String(), "upgraded connection ended") {
		t.Errorf("got log %q, want the end of the connection", log)
	}
}

// Either direction alone keeps the connection alive.
func TestTunnelOneWay(t *testing.T) {
	t.Parallel()
	const limit = 3 * time.Second // no machine stands still for so long
	sent := make(chan string, 1)
	url, _, _ := serve(t, testConfig(t, "sleep 60", "mode=http", "exec_timeout="+limit.String(), "upstream_url="+switching(t, func(c net.Conn, in *bufio.Reader) {
		for range 10 {
			io.WriteString(c, "x")
			time.Sleep(limit / 8)
		}
		io.WriteString(c, "\n")
		line, _ := in.ReadString('\n')
		sent <- line
	})))
	c, in := upgraded(t, url, "")
	if line, err := in.ReadString('\n'); err != nil || line != "xxxxxxxxxx\n" {
		t.Fatalf("got %q, %v of what the process sends, want it all", line, err)
	}
	for range 10 {
		io.WriteString(c, "y")
		time.Sleep(limit / 8)
	}
	io.WriteString(c, "\n")
	if got := <-sent; got != "yyyyyyyyyy\n" {
		t.Errorf("the process got %q, want all that was sent", got)
	}
}

// A client that stops to read ends the invocation: at the limit, and at
// write_timeout if it still sends.
func TestTunnelStalledReader(t *testing.T) {
	flood := func(c net.Conn, in *bufio.Reader) {
		go io.Copy(io.Discard, in)
		for b := make([]byte, 64<<10); ; {
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	}
	for _, tt := range []struct {
		name     string
		settings []string
		sends    bool
	}{
		{"limit", []string{"exec_timeout=3s", "write_timeout=0"}, false},
		{"write timeout", []string{"exec_timeout=0", "write_timeout=1s"}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			url, h, _ := serve(t, testConfig(t, "sleep 60", append(tt.settings, "mode=http", "upstream_url="+switching(t, flood))...))
			c, _ := upgraded(t, url, "")
			if tt.sends {
				go func() {
					for {
						if _, err := io.WriteString(c, "still here\n"); err != nil {
							return
						}
						time.Sleep(20 * time.Millisecond)
					}
				}()
			}
			wantIdle(t, h)
		})
	}
}

// A function that drains does not wait for a busy connection longer than the
// limit.
func TestTunnelDrains(t *testing.T) {
	t.Parallel()
	url, h, _ := serve(t, testConfig(t, "sleep 60", "mode=http", "upstream_url="+switching(t, echoing), "exec_timeout=3s"))
	c, in := upgraded(t, url, "")
	wantEcho(t, c, in)
	h.Drain()
	wantEcho(t, c, in) // which is not cut off at once
	go func() {
		for {
			if _, err := io.WriteString(c, "busy\n"); err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	io.Copy(io.Discard, in)
	wantIdle(t, h)
}

// What comes right behind the request reaches the process, and so does the end
// of what the client sends, while the answer goes on.
func TestTunnelCarriesAll(t *testing.T) {
	url, h, _ := serve(t, testConfig(t, "sleep 60", "mode=http", "upstream_url="+switching(t, func(c net.Conn, in *bufio.Reader) {
		b, _ := io.ReadAll(in)
		io.WriteString(c, "got "+string(b))
	})))
	c, in := upgraded(t, url, "early ")
	io.WriteString(c, "late")
	c.CloseWrite()
	if b, err := io.ReadAll(in); err != nil || string(b) != "got early late" {
		t.Errorf("got %q, %v, want all that was sent", b, err)
	}
	c.Close()
	wantIdle(t, h)
}

// A process that switches protocols in the middle of a body is at fault: the
// rest of the body must not become a part of the new protocol.
func TestTunnelEarlySwitch(t *testing.T) {
	url, h, _ := serve(t, testConfig(t, "sleep 60", "mode=http", "upstream_url="+switching(t, echoing)))
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\nContent-Length: 10\r\n\r\nhalf")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != http.StatusBadGateway || !resp.Close {
		t.Errorf("got %v, %v, want 502 and the connection closed", resp, err)
	}
	wantIdle(t, h)
}

// The copy in one direction may go on for a moment when the other has ended the
// tunnel. That must not start the limit anew.
func TestTunnelStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &logBuffer{}
		ended := false
		x := &exchange{reply: &reply{h: &Handler{log: newTestLog(log)}}, limit: time.Second, end: func(error) { ended = true }}
		client, far := net.Pipe()
		defer far.Close()
		tun := &tunnel{Conn: client, x: x, early: bufio.NewReader(client)}
		tun.idle = time.AfterFunc(x.limit, tun.expire)
		tun.stop()
		go io.WriteString(far, "late")
		if _, err := tun.Read(make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * x.limit)
		if ended || strings.Contains(log.String(), "upgraded connection ended") {
			t.Errorf("got ended %v, log %q, want nothing after the end", ended, log)
		}
	})
}
