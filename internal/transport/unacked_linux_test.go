//go:build !386 && !s390x

package transport

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"faas/internal/tcptest"
)

// testUnacked is more than the system's shortest retransmission time (200 ms).
const testUnacked = 300 * time.Millisecond

// unackedOf reads the limit that a connection has.
func unackedOf(t *testing.T, c *directConn) time.Duration {
	t.Helper()
	var ms int
	var err error
	if lost := c.raw.Control(func(fd uintptr) { ms, err = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout) }); lost != nil || err != nil {
		t.Fatalf("read the limit: %v, %v", lost, err)
	}
	return time.Duration(ms) * time.Millisecond
}

func newUnackedTransport(t *testing.T) *Transport {
	dialer := net.Dialer{
		Timeout:         time.Second,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 2},
	}
	rt := New(dialer.DialContext, Limits{IdlePerAddr: 8, Idle: 8, Head: 1 << 20, Unacked: testUnacked})
	t.Cleanup(rt.CloseIdleConnections)
	return rt
}

func postTo(t *testing.T, rt *Transport, addr string, body io.Reader) (string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+addr+"/", body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer), nil
}

// A request that went to a machine which had just been cut off waits neither
// for its own limit nor for the system's.
func TestTransportGivesUpASilentReplica(t *testing.T) {
	addr := tcptest.Start(t, func(n int64, c net.Conn) {
		r := bufio.NewReader(c)
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			io.Copy(io.Discard, req.Body)
			if n == 1 {
				tcptest.Deafen(t, c)
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			if n == 1 {
				<-t.Context().Done()
				return
			}
		}
	})
	rt := newUnackedTransport(t)
	if got, err := postTo(t, rt, addr, strings.NewReader("one")); got != "ok" || err != nil {
		t.Fatalf("got %q, error %v, want ok", got, err)
	}
	_, err := postTo(t, rt, addr, strings.NewReader("two"))
	wantAttempt(t, err, StageSent, syscall.ETIMEDOUT)
	if got, err := postTo(t, rt, addr, strings.NewReader("three")); got != "ok" || err != nil {
		t.Errorf("on a new connection: got %q, error %v, want ok", got, err)
	}
}

// The same for a body that is being streamed, and for a wait after it.
func TestTransportGivesUpASilentReplicaAmidABody(t *testing.T) {
	for _, c := range []struct {
		name string
		read int64
	}{{"body on its way", 1}, {"body read, no answer", 1 << 20}} {
		t.Run(c.name, func(t *testing.T) {
			addr := tcptest.Start(t, func(_ int64, conn net.Conn) {
				req, err := http.ReadRequest(bufio.NewReader(conn))
				if err != nil {
					return
				}
				if _, err := io.CopyN(io.Discard, req.Body, c.read); err != nil {
					t.Error(err)
				}
				tcptest.Deafen(t, conn)
				<-t.Context().Done()
			})
			_, err := postTo(t, newUnackedTransport(t), addr, bytes.NewReader(make([]byte, 1<<20)))
			wantAttempt(t, err, StageSent, syscall.ETIMEDOUT)
		})
	}
}

// A function that leaves a large body unread for longer than the limit is
// slow, not lost. The connection is fit for small requests afterwards.
func TestTransportLeavesASlowReaderAlone(t *testing.T) {
	addr := tcptest.Start(t, func(_ int64, c net.Conn) {
		r := bufio.NewReader(c)
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			if req.ContentLength > maxSentWhole {
				time.Sleep(4 * testUnacked) // the case itself: the body does not fit into buffers
			}
			io.Copy(io.Discard, req.Body)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	rt := newUnackedTransport(t)
	for _, size := range []int{100, 16 << 20, 100} {
		if got, err := postTo(t, rt, addr, bytes.NewReader(make([]byte, size))); got != "ok" || err != nil {
			t.Fatalf("%d bytes: got %q, error %v, want ok", size, got, err)
		}
		// An upload that ends after its answer puts the connection back itself.
		c := rt.pool(addr).take()
		for end := time.Now().Add(10 * time.Second); c == nil; c = rt.pool(addr).take() {
			if time.Now().After(end) {
				t.Fatalf("%d bytes: got no idle connection, want the one that was used", size)
			}
			time.Sleep(time.Millisecond)
		}
		if got := unackedOf(t, c); got != testUnacked {
			t.Errorf("%d bytes: got limit %v on the idle connection, want %v", size, got, testUnacked)
		}
		rt.putConn(c)
	}
	if open, _ := rt.stats(); open != 1 {
		t.Errorf("got %d connections, want one for all", open)
	}
}

// What is sent after a switch of protocols has no bound.
func TestTransportUnlimitsASwitchedConnection(t *testing.T) {
	addr := tcptest.Start(t, func(_ int64, c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
			io.Copy(io.Discard, c)
		}
	})
	rt := newUnackedTransport(t)
	req := newGet(t, t.Context(), addr)
	req.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"x"}}
	resp, err := rt.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := unackedOf(t, resp.Body.(*switchedConn).conn); got != 0 {
		t.Errorf("got limit %v, want none", got)
	}
}
