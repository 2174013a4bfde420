package main

// Upgraded connections over real sockets, with both transports: how long they
// may last, and what ends them.

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"
	"time"
)

// startSwitcher starts a replica that answers every request with a 101 and
// leaves the rest to serve. ended gets a value when that has returned.
func startSwitcher(t *testing.T, late time.Duration, serve func(conn net.Conn, br *bufio.Reader)) (addr string, ended chan struct{}) {
	ended = make(chan struct{}, 16)
	return startReplica(t, func(w http.ResponseWriter, r *http.Request) {
		defer func() { ended <- struct{}{} }()
		<-time.After(late)
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		serve(conn, rw.Reader)
	}), ended
}

// dialUpgraded opens an upgraded connection to the function ws.
func dialUpgraded(t *testing.T, base string) *rawClient {
	t.Helper()
	c := dialRaw(t, base)
	c.send("GET /function/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	resp, err := http.ReadResponse(c.br, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("got %+v, %v, want 101", resp, err)
	}
	return c
}

// writeOn writes until that fails.
func writeOn(conn net.Conn) {
	for block := make([]byte, 64<<10); ; {
		if _, err := conn.Write(block); err != nil {
			return
		}
	}
}

func readOn(conn net.Conn) { io.Copy(io.Discard, conn) }
func nothing(net.Conn)     {}

const noUpgradeLeft = `gateway_function_invocation_inflight{function_name="ws"} 0`

// Whoever stops reading, or says nothing, has the limit and no more. Switching
// before and after guardDelay, when the guard is armed, are two ways through it.
func TestAStalledUpgradedConnectionEnds(t *testing.T) {
	const limit = time.Second
	for _, c := range []struct {
		name             string
		late             time.Duration
		function, caller func(net.Conn) // until it ends
	}{
		{"the caller reads nothing", 0, writeOn, nothing},
		{"the caller reads nothing of a late one", 5 * guardDelay, writeOn, nothing},
		{"the function reads nothing", 0, nothing, writeOn},
		{"the function reads nothing of a late one", 5 * guardDelay, nothing, writeOn},
		{"nobody says anything", 0, readOn, readOn},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			bothTransports(t, func(t *testing.T, args ...string) {
				over := make(chan struct{})
				addr, ended := startSwitcher(t, c.late, func(conn net.Conn, _ *bufio.Reader) {
					c.function(conn)
					<-over
					readOn(conn)
				})
				p := newMemoryProvider()
				p.set("ws", func(d *definition) { d.timeout = limit; d.maxInflight = 1 }, addr)
				base := startGateway(t, p, args...)
				awaitReady(t, base, "ws")
				caller := dialUpgraded(t, base)
				c.caller(caller)
				waitForMetric(t, base, noUpgradeLeft)
				waitForMetric(t, base, `gateway_function_invocation_total{code="101",function_name="ws"} 1`)
				close(over)
				within(t, "end of the function's connection", ended)
				if _, err := io.Copy(io.Discard, caller.br); errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error("the caller's connection was left open")
				}
			})
		})
	}
}

// Bytes in one direction keep a connection for as long as they flow, and then
// for the limit.
func TestABusyUpgradedConnectionOutlivesTheLimit(t *testing.T) {
	const (
		limit = 4 * time.Second // no machine stands still for so long
		busy  = 3 * limit / 2
		pause = limit / 40
	)
	ticks := func(w io.Writer) error {
		for end := time.Now().Add(busy); time.Now().Before(end); <-time.After(pause) {
			if _, err := w.Write([]byte("x")); err != nil {
				return err
			}
		}
		_, err := io.WriteString(w, "done")
		return err
	}
	listen := func(r io.Reader) error {
		var got byte
		for b := make([]byte, 1); got != 'e'; got = b[0] {
			if _, err := io.ReadFull(r, b); err != nil {
				return fmt.Errorf("cut off: %w", err)
			}
		}
		return nil
	}
	for _, functionTalks := range []bool{true, false} {
		t.Run(fmt.Sprint("the function talks: ", functionTalks), func(t *testing.T) {
			t.Parallel()
			bothTransports(t, func(t *testing.T, args ...string) {
				t.Parallel()
				heard := make(chan error, 1)
				addr, ended := startSwitcher(t, 0, func(conn net.Conn, br *bufio.Reader) {
					if functionTalks {
						heard <- ticks(conn)
					} else {
						heard <- listen(br)
					}
					br.ReadByte()
				})
				p := newMemoryProvider()
				p.set("ws", func(d *definition) { d.timeout = limit }, addr)
				base := startGateway(t, p, args...)
				caller := dialUpgraded(t, base)
				var err error
				if functionTalks {
					err = listen(caller.br)
				} else {
					err = ticks(caller)
				}
				if err != nil {
					t.Errorf("caller: got %v, want no end before %v", err, busy)
				}
				if err := <-heard; err != nil {
					t.Errorf("function: got %v, want no end before %v", err, busy)
				}
				if _, err := caller.br.ReadByte(); err != io.EOF {
					t.Errorf("when nothing flowed any more: got %v, want the end", err)
				}
				within(t, "end of the function's connection", ended)
			})
		})
	}
}

// Each side may say that it will send no more, and still be answered.
func TestAnUpgradedConnectionIsHalfClosed(t *testing.T) {
	bothTransports(t, func(t *testing.T, args ...string) {
		addr, ended := startSwitcher(t, 0, func(conn net.Conn, br *bufio.Reader) {
			got, err := io.ReadAll(br)
			fmt.Fprintf(conn, "%s %v", got, err)
		})
		p := newMemoryProvider()
		p.set("ws", nil, addr)
		base := startGateway(t, p, args...)
		caller := dialUpgraded(t, base)
		caller.send("hello")
		caller.Conn.(*net.TCPConn).CloseWrite()
		if got, err := io.ReadAll(caller.br); string(got) != "hello <nil>" || err != nil {
			t.Errorf("got %q, %v, want the function's answer to all of it", got, err)
		}
		within(t, "end of the function's connection", ended)
		waitForMetric(t, base, noUpgradeLeft)
	})
}

// A function that switches where nobody asked for it gets a 502, and its
// connection is not left behind.
func TestASwitchThatNobodyAskedFor(t *testing.T) {
	bothTransports(t, func(t *testing.T, args ...string) {
		addr, ended := startSwitcher(t, 0, func(_ net.Conn, br *bufio.Reader) { br.ReadByte() })
		p := newMemoryProvider()
		p.set("ws", nil, addr)
		base := startGateway(t, p, args...)
		if resp, body := call(t, "GET", base+"/function/ws", ""); resp.StatusCode != http.StatusBadGateway {
			t.Errorf("got %d %q, want 502", resp.StatusCode, body)
		}
		within(t, "end of the function's connection", ended)
	})
}

// echoing starts a program with an upgraded connection that echoes.
func echoing(t *testing.T, args ...string) (p *program, caller *rawClient, ended chan struct{}) {
	addr, ended := startSwitcher(t, 0, func(conn net.Conn, br *bufio.Reader) { io.Copy(conn, br) })
	p = startProgram(t, append(args, "-function=ws=http://"+addr, "-drain=0")...)
	caller = dialUpgraded(t, "http://"+p.addr)
	mustEcho(t, caller, "before")
	p.signals <- syscall.SIGTERM
	for { // until the listener is closed
		c, err := net.Dial("tcp", p.addr)
		if err != nil {
			return p, caller, ended
		}
		c.Close()
	}
}

func mustEcho(t *testing.T, c *rawClient, text string) {
	t.Helper()
	c.send("%s", text)
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c.br, got); err != nil || string(got) != text {
		t.Errorf("got %q, %v, want %q", got, err, text)
	}
}

// The end of the gateway waits for upgraded connections as for other requests.
func TestTheEndWaitsForUpgradedConnections(t *testing.T) {
	p, caller, ended := echoing(t, "-shutdown-timeout=20s")
	for i := range 10 {
		mustEcho(t, caller, fmt.Sprint("during the end ", i))
	}
	select {
	case got := <-p.ended:
		t.Fatalf("it ended with %d while a connection was in use", got)
	default:
	}
	caller.Close()
	within(t, "end of the function's connection", ended)
	p.wait(t, 0)
}

// It closes them when its time is over, or on a second signal.
func TestTheEndClosesUpgradedConnections(t *testing.T) {
	for _, second := range []bool{false, true} {
		t.Run(fmt.Sprint("by a second signal: ", second), func(t *testing.T) {
			timeout := "-shutdown-timeout=200ms"
			if second {
				timeout = "-shutdown-timeout=10m"
			}
			p, caller, ended := echoing(t, timeout)
			if second {
				mustEcho(t, caller, "still there")
				p.signals <- syscall.SIGTERM
			}
			p.wait(t, exitFailure)
			if _, err := caller.br.ReadByte(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the caller got %v, want the end of its connection", err)
			}
			within(t, "end of the function's connection", ended)
		})
	}
}
