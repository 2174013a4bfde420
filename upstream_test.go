package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"faas/internal/tcptest"
	"faas/internal/transport"
)

// bothTransports runs a test with each way to replicas.
func bothTransports(t *testing.T, test func(t *testing.T, args ...string)) {
	for _, kind := range []string{"direct", "std"} {
		t.Run(kind, func(t *testing.T) { test(t, "-transport", kind) })
	}
}

func TestARefusedDialGoesElsewhere(t *testing.T) {
	bothTransports(t, func(t *testing.T, args ...string) {
		p := newMemoryProvider()
		p.set("echo", nil, closedAddr(t), startReplica(t, echoReplica), closedAddr(t))
		base := startGateway(t, p, args...)
		for i := range 20 {
			body := strings.Repeat(fmt.Sprint(i), 1000)
			resp, got := call(t, "POST", base+"/function/echo", body)
			if resp.StatusCode != 200 || got != body {
				t.Fatalf("call %d: got %d, %d bytes, want 200 and its body", i, resp.StatusCode, len(got))
			}
		}
	})
}

func TestAFunctionWhoseReplicasComeUpLateIsWaitedFor(t *testing.T) {
	bothTransports(t, func(t *testing.T, args ...string) {
		p := newMemoryProvider()
		addr := freeAddr(t)
		p.set("late", nil, addr)
		base := startGateway(t, p, args...)
		awaitReady(t, base, "late")
		var wg sync.WaitGroup
		wg.Go(func() {
			resp, err := http.Post(base+"/function/late", "", strings.NewReader("hello"))
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if got, err := io.ReadAll(resp.Body); resp.StatusCode != 200 || string(got) != "hello" {
				t.Errorf("got %d %q, %v, want 200 hello", resp.StatusCode, got, err)
			}
		})
		awaitMetric(t, base, `gateway_function_invocation_inflight{function_name="late"} 1`)
		ln, err := net.Listen("tcp", addr) // well within connectBudget
		if err != nil {
			t.Fatal(err)
		}
		s := &http.Server{Handler: http.HandlerFunc(echoReplica)}
		t.Cleanup(func() { s.Close() })
		go s.Serve(ln)
		wg.Wait()
	})
}

// A POST whose bytes went out is never sent again: it would run twice.
func TestASentPOSTIsNotSentAgain(t *testing.T) {
	bothTransports(t, func(t *testing.T, args ...string) {
		var got atomic.Int64
		addr := tcptest.Start(t, func(_ int64, c net.Conn) {
			if req, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				io.Copy(io.Discard, req.Body)
				got.Add(1)
			}
		})
		p := newMemoryProvider()
		p.set("dies", nil, addr)
		base := startGateway(t, p, args...)
		resp, _ := call(t, "POST", base+"/function/dies", "once")
		if resp.StatusCode != 502 || got.Load() != 1 {
			t.Errorf("got %d, and the function %d requests, want 502 and 1", resp.StatusCode, got.Load())
		}
		got.Store(0)
		resp, _ = call(t, "POST", base+"/function/dies", "again", "Idempotency-Key", "k")
		if resp.StatusCode != 502 || got.Load() != 1+resendLimit {
			t.Errorf("with an Idempotency-Key: got %d, and the function %d requests, want 502 and %d", resp.StatusCode, got.Load(), 1+resendLimit)
		}
	})
}

// What is safe to send again is: RFC 9110, section 9.2.2.
func TestAnIdempotentRequestIsSentAgain(t *testing.T) {
	bothTransports(t, func(t *testing.T, args ...string) {
		for _, method := range []string{"GET", "HEAD", "OPTIONS", "PUT", "DELETE"} {
			body := ""
			if method == "PUT" {
				body = strings.Repeat("x", 20<<10)
			}
			var hash atomic.Value
			addr := tcptest.Start(t, func(n int64, c net.Conn) {
				req, err := http.ReadRequest(bufio.NewReader(c))
				if err != nil {
					return
				}
				sum := sha256.New()
				io.Copy(sum, req.Body)
				if n > 1 {
					hash.Store(hex.EncodeToString(sum.Sum(nil)))
					io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				}
			})
			p := newMemoryProvider()
			p.set("f", nil, addr)
			base := startGateway(t, p, args...)
			resp, _ := call(t, method, base+"/function/f", body)
			want := sha256.Sum256([]byte(body))
			if resp.StatusCode != 200 || hash.Load() != hex.EncodeToString(want[:]) {
				t.Errorf("%s: got %d, body hash %v, want 200 and the whole body", method, resp.StatusCode, hash.Load())
			}
		}
	})
}

// A kept-alive connection that its replica has closed costs no request, not
// even a POST, whatever the size of its body.
func TestAClosedKeptAliveConnectionLosesNoPOST(t *testing.T) {
	for _, size := range []int{0, 10, 20 << 10, 1 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			closed := make(chan struct{}, 100)
			addr := tcptest.Start(t, func(_ int64, c net.Conn) {
				req, err := http.ReadRequest(bufio.NewReader(c))
				if err != nil {
					return
				}
				n, _ := io.Copy(io.Discard, req.Body)
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%d", len(fmt.Sprint(n)), n)
				c.Close() // without having said Connection: close
				closed <- struct{}{}
			})
			p := newMemoryProvider()
			p.set("f", nil, addr)
			base := startGateway(t, p)
			for i := range 10 {
				resp, got := call(t, "POST", base+"/function/f", strings.Repeat("x", size))
				if resp.StatusCode != 200 || got != fmt.Sprint(size) {
					t.Fatalf("call %d: got %d %q, want 200 %d", i, resp.StatusCode, got, size)
				}
				<-closed
			}
		})
	}
}

func TestWaitingForTheFirstReplica(t *testing.T) {
	p := newMemoryProvider()
	addr := startReplica(t, echoReplica)
	p.set("cold", func(d *definition) { d.scale.Max = 5 })
	p.scaled = func(d definition, wanted int) { p.setAddrs(d.name, addr) }
	base := startGateway(t, p)

	var wg sync.WaitGroup
	var failed atomic.Int64
	for i := range 50 {
		wg.Go(func() {
			resp, err := http.Post(base+"/function/cold", "text/plain", strings.NewReader(fmt.Sprint(i)))
			if err != nil {
				failed.Add(1)
				return
			}
			defer resp.Body.Close()
			if b, _ := io.ReadAll(resp.Body); resp.StatusCode != 200 || string(b) != fmt.Sprint(i) {
				failed.Add(1)
			}
		})
	}
	wg.Wait()
	if failed.Load() > 0 {
		t.Errorf("%d of 50 callers failed while the function had no replica", failed.Load())
	}
	awaitMetric(t, base, `gateway_cold_start_seconds_count{function_name="cold"} 1`)
}

func TestAFullLineIs429AndARemovedFunction404(t *testing.T) {
	p := newMemoryProvider()
	p.set("cold", func(d *definition) { d.scale.Fixed = true })
	base := startGateway(t, p, "-queue", "1", "-queue-timeout", "20s")
	type answer struct {
		status int
		body   string
	}
	answers := make(chan answer, 2)
	for range 2 {
		go func() {
			resp, err := http.Get(base + "/function/cold")
			if err != nil {
				answers <- answer{0, err.Error()}
				return
			}
			defer resp.Body.Close()
			b, _ := io.ReadAll(resp.Body)
			answers <- answer{resp.StatusCode, string(b)}
		}()
	}
	if a := <-answers; a.status != 429 || !strings.Contains(a.body, `function "cold"`) {
		t.Errorf("one too many in line: got %v, want 429 that names the function", a)
	}
	p.remove("cold")
	if a := <-answers; a.status != 404 {
		t.Errorf("the function was removed: got %v, want 404", a)
	}
}

func TestMaxInflight(t *testing.T) {
	inside, release := make(chan struct{}), make(chan struct{})
	p := newMemoryProvider()
	p.set("busy", func(d *definition) { d.maxInflight = 1 }, startReplica(t, func(w http.ResponseWriter, r *http.Request) {
		inside <- struct{}{}
		<-release
	}))
	base := startGateway(t, p)
	done := make(chan int)
	go func() {
		resp, err := http.Get(base + "/function/busy")
		if err != nil {
			done <- 0
			return
		}
		resp.Body.Close()
		done <- resp.StatusCode
	}()
	<-inside
	resp, body := call(t, "GET", base+"/function/busy", "")
	if resp.StatusCode != 429 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("the second: got %d %q, want 429 with Retry-After", resp.StatusCode, body)
	}
	close(release)
	if got := <-done; got != 200 {
		t.Errorf("the first: got %d, want 200", got)
	}
}

func TestRequestsSpreadOverReplicas(t *testing.T) {
	p := newMemoryProvider()
	var counts [3]atomic.Int64
	var addrs []string
	for i := range counts {
		addrs = append(addrs, startReplica(t, func(w http.ResponseWriter, r *http.Request) { counts[i].Add(1) }))
	}
	p.set("f", nil, addrs...)
	base := startGateway(t, p)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}}
			defer client.CloseIdleConnections()
			for range 3000 / 16 {
				resp, err := client.Get(base + "/function/f")
				if err != nil {
					t.Error(err)
					return
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		})
	}
	wg.Wait()
	for i := range counts {
		if n := counts[i].Load(); n < 750 {
			t.Errorf("replica %d got %d of 3000 kept-alive requests, want at least a quarter", i, n)
		}
	}
}

// The first KiB of a body reach the function before the last are there.
func TestBodiesStreamBothWays(t *testing.T) {
	bothTransports(t, func(t *testing.T, args ...string) {
		p := newMemoryProvider()
		p.set("echo", nil, startReplica(t, func(w http.ResponseWriter, r *http.Request) {
			http.NewResponseController(w).EnableFullDuplex()
			buf := make([]byte, 1024)
			for {
				n, err := r.Body.Read(buf)
				w.Write(buf[:n])
				http.NewResponseController(w).Flush()
				if err != nil {
					return
				}
			}
		}))
		base := startGateway(t, p, args...)
		body, send := io.Pipe()
		req, _ := http.NewRequestWithContext(t.Context(), "POST", base+"/function/echo", body)
		answer := make(chan *http.Response, 1)
		go func() {
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Error(err)
			}
			answer <- resp
		}()
		io.WriteString(send, "first")
		resp := <-answer
		if resp == nil {
			t.FailNow()
		}
		defer resp.Body.Close()
		buf := make([]byte, 6)
		for _, part := range []string{"first", "second"} {
			if part == "second" {
				io.WriteString(send, part)
			}
			if _, err := io.ReadFull(resp.Body, buf[:len(part)]); err != nil || string(buf[:len(part)]) != part {
				t.Fatalf("got %q, %v, want %q while the body is still being sent", buf, err, part)
			}
		}
		send.Close()
		if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
			t.Errorf("got %q, %v, want the end", rest, err)
		}
	})
}

// Where many replicas are on a machine that is gone, a caller does not try them
// all, one second each.
func TestConnectingHasABudgetOverAllReplicas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := manyFunctions(t, 1)
		f := r.function("f0")
		var addrs []string
		for i := range 20 {
			addrs = append(addrs, fmt.Sprint("10.0.0.", i, ":8080"))
		}
		f.balancer.update(addrs)
		u := &upstream{log: r.log, refresh: func(*function) {}, transport: roundTripper(func(*http.Request) (*http.Response, error) {
			time.Sleep(dialTimeout)
			return nil, &transport.Error{Stage: transport.StageDial, Err: syscall.ETIMEDOUT}
		})}
		ctx := context.WithValue(t.Context(), invocationKey{}, &invocation{f: f, guard: guard{deadline: time.Now().Add(time.Hour)}})
		req, err := http.NewRequestWithContext(ctx, "GET", "http://f0/", nil)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		_, err = u.RoundTrip(req)
		if took := time.Since(began); !errors.Is(err, errUnreachable) || took > connectBudget+2*dialTimeout {
			t.Errorf("got %v after %v, want %v within %v", err, took, errUnreachable, connectBudget+2*dialTimeout)
		}
	})
}

func TestACallerThatGoesAwayFreesTheReplica(t *testing.T) {
	inside, gone := make(chan struct{}, 1), make(chan struct{})
	p := newMemoryProvider()
	p.set("f", nil, startReplica(t, func(w http.ResponseWriter, r *http.Request) {
		inside <- struct{}{}
		<-r.Context().Done()
		close(gone)
	}))
	base := startGateway(t, p)
	ctx, cancel := context.WithCancel(t.Context())
	req, _ := http.NewRequestWithContext(ctx, "GET", base+"/function/f", nil)
	go http.DefaultClient.Do(req)
	<-inside
	cancel()
	select {
	case <-gone:
	case <-time.After(10 * time.Second):
		t.Fatal("the function's request was not cut 10 s after its caller went away")
	}
}
