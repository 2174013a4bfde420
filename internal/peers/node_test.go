package peers

// Nodes over sockets, and callers and peers that misbehave.

import (
	"context"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"faas/internal/tcptest"
)

var epoch = time.Now()

func clock() time.Duration { return time.Since(epoch) }

// startNode starts one that listens at address and samples as an autoscaler has it.
func startNode(t *testing.T, listen string, names []string, loads map[string]Load) *Node {
	t.Helper()
	b := NewBook(NewIdentity(), func(time.Duration, bool) iter.Seq2[string, Load] { return maps.All(loads) })
	n := NewNode(Options{
		Book: b, Names: names, Listen: listen, Now: clock, Heard: func() {},
		Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended, sampled := make(chan error, 1), make(chan struct{})
	go func() { ended <- n.Run(ctx) }()
	go func() {
		defer close(sampled)
		for sleep(ctx, askInterval) == nil {
			now := clock()
			b.Sample(now)
			n.Ask(now)
		}
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
		<-sampled
	})
	return n
}

func freeAddr(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// await waits until ok.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for !ok() {
		if sleep(t.Context(), 10*time.Millisecond) != nil {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestNodesHearEachOther(t *testing.T) {
	a, b := freeAddr(t), freeAddr(t)
	names := []string{a, b}
	first := startNode(t, a, names, map[string]Load{"f": {Started: 7, InFlight: 4}})
	second := startNode(t, b, names, map[string]Load{"f": {Started: 2, InFlight: 2}})
	await(t, "they hear each other", func() bool {
		return first.Book.Sum("f").Others(clock()).InFlight == 2 && second.Book.Sum("f").Others(clock()).InFlight == 4
	})
	await(t, "it has found which address is its own", func() bool {
		s := first.Book.Status(clock())
		return s.Heard == 1 && s.Expected == 1 && s.Missing == 0
	})
}

// A Node without a host to listen on does so where its peers are, and only there.
func TestANodeListensWhereItsPeersAre(t *testing.T) {
	_, port, _ := net.SplitHostPort(freeAddr(t))
	startNode(t, ":"+port, []string{"127.0.0.1:" + port}, nil)
	await(t, "it listens on loopback", func() bool {
		c, err := net.DialTimeout("tcp", "127.0.0.1:"+port, time.Second)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		ip := a.(*net.IPNet).IP
		if ip.IsLoopback() || ip.To4() == nil {
			continue
		}
		if c, err := net.DialTimeout("tcp", net.JoinHostPort(ip.String(), port), time.Second); err == nil {
			c.Close()
			t.Errorf("it listens on %v, too", ip)
		}
	}
}

// Who is not named gets no answer.
func TestStrangersAreSentAway(t *testing.T) {
	a := freeAddr(t)
	startNode(t, a, []string{"127.0.0.77:1"}, nil) // as far as DNS knows, nobody calls from 127.0.0.1
	var c net.Conn
	await(t, "it listens", func() (ok bool) {
		var err error
		c, err = net.Dial("tcp", a)
		return err == nil
	})
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(c, "GET /1/loads/0000000000000000/0 HTTP/1.1\r\nHost: x\r\n\r\n")
	if got, _ := io.ReadAll(c); len(got) > 0 {
		t.Errorf("got the answer %q, want none", got)
	}
}

// A peer that sends garbage, or megabytes, or never ends, is dropped within a second,
// and no more than 1 MiB of it is read. It is not heard.
func TestBadPeersAreDropped(t *testing.T) {
	head := "HTTP/1.1 200 OK\r\n"
	flood := func(c net.Conn, b []byte) {
		for {
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	}
	mega := make([]byte, 64<<10)
	for name, serve := range map[string]func(c net.Conn){
		"garbage":                func(c net.Conn) { io.WriteString(c, "\x00\x01\x02 no HTTP at all\r\n\r\n") },
		"garbage without end":    func(c net.Conn) { flood(c, mega) },
		"a header without end":   func(c net.Conn) { io.WriteString(c, head+"X: "); flood(c, []byte(strings.Repeat("x", 64<<10))) },
		"headers without end":    func(c net.Conn) { io.WriteString(c, head); flood(c, []byte(strings.Repeat("X: y\r\n", 1000))) },
		"a body that is garbage": func(c net.Conn) { io.WriteString(c, head+"Content-Length: 3\r\n\r\nabc") },
		"megabytes announced":    func(c net.Conn) { io.WriteString(c, head+"Content-Length: 99999999\r\n\r\n"); flood(c, mega) },
		"megabytes in chunks": func(c net.Conn) {
			io.WriteString(c, head+"Transfer-Encoding: chunked\r\n\r\n")
			flood(c, append([]byte("10000\r\n"), append(mega, '\r', '\n')...))
		},
		"megabytes until the end": func(c net.Conn) { io.WriteString(c, head+"Connection: close\r\n\r\n"); flood(c, mega) },
		"nothing":                 func(c net.Conn) { io.Copy(io.Discard, c) },
		"half an answer":          func(c net.Conn) { io.WriteString(c, head+"Content-Length: 9\r\n\r\n\x01"); io.Copy(io.Discard, c) },
		"a trickle": func(c net.Conn) {
			io.WriteString(c, head+"Content-Length: 100000\r\n\r\n")
			for {
				if _, err := c.Write([]byte{1}); err != nil {
					return
				}
				time.Sleep(50 * time.Millisecond)
			}
		},
		"a redirect": func(c net.Conn) { io.WriteString(c, "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n") },
		"a name that is too long": func(c net.Conn) {
			b := append(appendHead(nil, answer{identity: 5, sequence: 1, full: true}), 200)
			fmt.Fprintf(c, "%sContent-Length: %d\r\n\r\n%s", head, len(b), b)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dropped := make(chan time.Duration, 100)
			var sent atomic.Int64
			addr := tcptest.Start(t, func(_ int64, c net.Conn) {
				began := time.Now()
				counted := &countingConn{Conn: c}
				serve(counted)
				io.Copy(io.Discard, c) // until the other side has closed it
				sent.Store(max(sent.Load(), counted.written.Load()))
				select {
				case dropped <- time.Since(began):
				default:
				}
			})
			n := startNode(t, freeAddr(t), []string{addr}, nil)
			took := time.Hour
			for try := 0; try < 5 && took > 3*time.Second; try++ { // this machine may be busy, and the node asks again
				took = min(took, <-dropped)
			}
			// What lies in the buffers of the kernel was sent, but not read. It takes
			// a second; a busy machine may add to that.
			if took > 3*time.Second {
				t.Errorf("the connection was dropped after %v, want about a second", took)
			}
			if got := sent.Load(); got > 12<<20 {
				t.Errorf("%d bytes could be sent, want 1 MiB and what the kernel holds", got)
			}
			if s := n.Book.Status(clock()); s.Heard != 0 || s.Missing != 1 {
				t.Errorf("got %+v, want it missing", s)
			}
		})
	}
}

// A countingConn counts what could be written.
type countingConn struct {
	net.Conn
	written atomic.Int64
}

func (c *countingConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.written.Add(int64(n))
	return n, err
}

// A caller that sends garbage, or slowly, or much, is dropped within a second, too.
func TestBadCallersAreDropped(t *testing.T) {
	addr := freeAddr(t)
	startNode(t, addr, []string{addr}, nil)
	await(t, "it answers", func() bool {
		resp, err := http.Get("http://" + addr + "/1/loads/0000000000000000/0")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	for name, send := range map[string]string{
		"nothing":              "",
		"garbage":              "\x16\x03\x01\x02\x00",
		"half a request":       "GET /1/loads/0000000000000000/0 HTTP/1.1\r\nHost: x\r\n",
		"a body without end":   "GET /1/loads/0000000000000000/0 HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n",
		"a header without end": "GET /1/loads/0000000000000000/0 HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 1<<20),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			took := time.Hour
			for try := 0; try < 5 && took > 4*time.Second; try++ { // this machine may be busy
				c, err := net.Dial("tcp", addr)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				began := time.Now()
				c.SetDeadline(began.Add(10 * time.Second))
				io.WriteString(c, send)
				io.Copy(io.Discard, c)
				took = min(took, time.Since(began))
			}
			if took > 4*time.Second {
				t.Errorf("the connection was dropped after %v, want about a second", took)
			}
		})
	}
	for path, status := range map[string]int{
		"/1/loads/x/0": 400, "/1/loads/0/-1": 400, "/2/loads/0/0": 404, "/": 404, "/metrics": 404, "/1/claims/ab": 405,
	} {
		resp, err := http.Get("http://" + addr + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != status {
			t.Errorf("%s: got %d, want %d", path, resp.StatusCode, status)
		}
	}
}

// A peer of another version is skipped, and heard again when it speaks ours.
func TestAnotherVersionIsSkipped(t *testing.T) {
	var old atomic.Bool
	old.Store(true)
	addr := tcptest.Start(t, func(_ int64, c net.Conn) {
		io.CopyN(io.Discard, c, 10)
		b := appendHead(nil, answer{identity: 5, sequence: 1, full: true})
		b = appendEntry(b, "f", Load{InFlight: 3})
		if old.Load() {
			b = append([]byte{9}, "what nobody knows yet"...)
		}
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(b), b)
	})
	n := startNode(t, freeAddr(t), []string{addr}, nil)
	await(t, "it is missed", func() bool { return n.Book.Status(clock()).Expected == 1 })
	if got := n.Book.Sum("f").Others(clock()).InFlight; got != 0 {
		t.Errorf("got %d in flight of another version, want none", got)
	}
	old.Store(false)
	await(t, "it is heard", func() bool { return n.Book.Sum("f").Others(clock()).InFlight == 3 })
}
