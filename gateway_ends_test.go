package main

// How long an invocation, its caller and its body may take.

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"faas/internal/tcptest"
)

// Who sends or reads slowly loses its own request at the limit, and others
// are answered meanwhile.
func TestSlowPeersCostOnlyThemselves(t *testing.T) {
	bothTransports(t, func(t *testing.T, args ...string) {
		p := newMemoryProvider()
		limit := func(d *definition) { d.timeout = 500 * time.Millisecond }
		sink := startReplica(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })
		p.set("sink", limit, sink)
		p.set("quick", nil, sink)
		var broken atomic.Int64
		source := make(chan struct{}, 1)
		p.set("source", limit, startReplica(t, func(w http.ResponseWriter, r *http.Request) {
			defer func() { source <- struct{}{} }()
			chunk := make([]byte, 1<<20)
			for {
				if _, err := w.Write(chunk); err != nil {
					broken.Add(1)
					return
				}
			}
		}))
		base := startGateway(t, p, args...)
		awaitReady(t, base, "sink", "quick", "source")

		sender := dialRaw(t, base)
		sender.send("POST /function/sink HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nsome")
		reader := dialRaw(t, base)
		reader.send("GET /function/source HTTP/1.1\r\nHost: x\r\n\r\n")
		for range 20 {
			if resp, _ := call(t, "POST", base+"/function/quick", "body"); resp.StatusCode != 200 {
				t.Errorf("somebody else: got %d, want 200", resp.StatusCode)
			}
		}
		if resp, body := sender.receive("POST"); resp.StatusCode != 408 || !strings.Contains(body, "500ms") {
			t.Errorf("slow sender: got %d %q, want 408 that names the limit", resp.StatusCode, body)
		}
		// What it sends now must not be taken for a request.
		io.WriteString(sender, "GET /function/sink HTTP/1.1\r\nHost: x\r\n\r\n")
		if rest, _ := io.ReadAll(sender.br); len(rest) > 0 {
			t.Errorf("slow sender: got %q after its answer", rest)
		}
		<-source // the function was cut off, too
		if broken.Load() != 1 {
			t.Error("slow reader: the function could write on")
		}
		waitForMetric(t, base, `gateway_function_invocation_total{code="504",function_name="source"} 1`)
	})
}

// A function may answer without reading the body. The caller has the answer at
// once, and a body that it never finishes holds neither a place nor a replica.
func TestAnAnswerDoesNotWaitForTheRestOfTheBody(t *testing.T) {
	bothTransports(t, func(t *testing.T, args ...string) {
		p := newMemoryProvider()
		// net/http's server would wait for the body.
		addr := tcptest.Start(t, func(_ int64, c net.Conn) {
			for br := bufio.NewReader(c); ; {
				line, err := br.ReadString('\n')
				if err != nil {
					return
				}
				if line == "\r\n" {
					break
				}
			}
			io.WriteString(c, "HTTP/1.1 403 Forbidden\r\nContent-Length: 7\r\n\r\ngo away")
			io.Copy(io.Discard, c)
		})
		p.set("hasty", func(d *definition) { d.maxInflight = 1; d.timeout = 15 * time.Second }, addr)
		base := startGateway(t, p, args...)
		for name, framing := range map[string]string{
			"length":  "Content-Length: 100000\r\n\r\nsome",
			"chunked": "Transfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n",
		} {
			began := time.Now()
			c := dialRaw(t, base)
			c.send("POST /function/hasty HTTP/1.1\r\nHost: x\r\n%s", framing)
			if resp, body := c.receive("POST"); resp.StatusCode != 403 || body != "go away" {
				t.Errorf("%s: got %d %q, want 403 go away", name, resp.StatusCode, body)
			}
			io.WriteString(c, "GET /function/hasty HTTP/1.1\r\nHost: x\r\n\r\n")
			if rest, _ := io.ReadAll(c.br); len(rest) > 0 {
				t.Errorf("%s: got %q after the answer", name, rest)
			}
			waitForMetric(t, base, `gateway_function_invocation_inflight{function_name="hasty"} 0`)
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("%s: the answer or the place in the function took %v, want no wait for the limit", name, took)
			}
		}
	})
}

// A caller that stops sending is not waited for where nothing is invoked.
func TestARefusalDoesNotWaitForABody(t *testing.T) {
	p := newMemoryProvider()
	p.set("full", func(d *definition) { d.scale.Fixed = true })
	base := startGateway(t, p, "-queue", "0")
	for path, status := range map[string]int{"/function/nope": 404, "/nope": 404, "/healthz": 200, "/function/full": 429} {
		c := dialRaw(t, base)
		c.send("PUT %s HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nsome", path)
		if resp, _ := c.receive("PUT"); resp.StatusCode != status {
			t.Errorf("%s: got %d, want %d", path, resp.StatusCode, status)
		}
	}
}

// A caller that has closed its side is taken for gone. It must not read an
// empty 200.
func TestACallerThatIsGoneGetsNoSuccess(t *testing.T) {
	bothTransports(t, func(t *testing.T, args ...string) {
		inside := make(chan struct{}, 1)
		p := newMemoryProvider()
		p.set("f", nil, startReplica(t, func(w http.ResponseWriter, r *http.Request) {
			inside <- struct{}{}
			<-r.Context().Done()
		}))
		base := startGateway(t, p, args...)
		c := dialRaw(t, base)
		c.send("GET /function/f HTTP/1.1\r\nHost: x\r\n\r\n")
		<-inside
		c.Conn.(*net.TCPConn).CloseWrite()
		if got, _ := io.ReadAll(c.br); len(got) > 0 {
			t.Errorf("got %q, want no answer", got)
		}
		waitForMetric(t, base, `gateway_function_invocation_total{code="499",function_name="f"} 1`)
	})
}

// What is left of the limit is told after the wait for a replica.
func TestTheTimeLeftIsCountedAfterTheQueue(t *testing.T) {
	p := newMemoryProvider()
	p.set("late", func(d *definition) { d.scale.Fixed = true })
	base := startGateway(t, p)
	addr := startReplica(t, echoReplica)
	answer := make(chan *http.Response, 1)
	go func() {
		resp, err := http.Get(base + "/function/late")
		if err != nil {
			t.Error(err)
		}
		answer <- resp
	}()
	waitForMetric(t, base, `gateway_queue_waiting{function_name="late"} 1`)
	time.Sleep(500 * time.Millisecond) // not for order: for time to pass
	p.setAddrs("late", addr)
	resp := <-answer
	if resp == nil {
		t.FailNow()
	}
	resp.Body.Close()
	left, err := time.ParseDuration(resp.Header.Get("Seen-X-Timeout"))
	if err != nil || left > 9500*time.Millisecond {
		t.Errorf("got X-Timeout %v, %v, want at most 9.5s of 10s", left, err)
	}
}

// Waiting for a replica until the function's own limit is over is still
// waiting for a replica.
func TestALimitShorterThanTheQueueIs503(t *testing.T) {
	p := newMemoryProvider()
	p.set("none", func(d *definition) { d.scale.Fixed = true; d.timeout = 100 * time.Millisecond })
	base := startGateway(t, p, "-queue-timeout", "20s")
	if resp, body := call(t, "GET", base+"/function/none", ""); resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("got %d %q, want 503 with Retry-After", resp.StatusCode, body)
	}
}

func TestIdleConnectionsKeepNobodyOut(t *testing.T) {
	p := newMemoryProvider()
	p.set("echo", nil, startReplica(t, echoReplica))
	base := startGateway(t, p)
	n := 1000 // 10,000 are in BenchmarkIdleConnections, in a process of its own
	for range n {
		dialRaw(t, base)
	}
	if resp, got := call(t, "POST", base+"/function/echo", "hello"); resp.StatusCode != 200 || got != "hello" {
		t.Errorf("got %d %q, want 200 hello", resp.StatusCode, got)
	}
}

func TestAVeryLargeBodyOfAPUTIsNotSentTwice(t *testing.T) {
	bothTransports(t, func(t *testing.T, args ...string) {
		var got atomic.Int64
		addr := tcptest.Start(t, func(n int64, c net.Conn) {
			got.Add(1)
			io.CopyN(io.Discard, c, 2*replayLimit)
		})
		p := newMemoryProvider()
		p.set("dies", nil, addr)
		base := startGateway(t, p, args...)
		req, _ := http.NewRequestWithContext(t.Context(), "PUT", base+"/function/dies", bytes.NewReader(make([]byte, 8<<20)))
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode != 502 {
				t.Errorf("got %d, want 502", resp.StatusCode)
			}
		} else if errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if got.Load() != 1 {
			t.Errorf("it was sent %s times, want once", strconv.FormatInt(got.Load(), 10))
		}
	})
}
