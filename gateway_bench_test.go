package main

// What the gateway itself costs. Targets: no allocation in a look-up, /metrics
// with 1,000 functions under 100 ms, an idle gateway under 64 MiB.

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"
)

// BenchmarkInvocation is everything but the server and the connection to the
// replica.
func BenchmarkInvocation(b *testing.B) {
	r := manyFunctions(b, 1000)
	g := newHandler(b, r, func(req *http.Request) (*http.Response, error) { return emptyAnswer(req), nil })
	req := httptest.NewRequest(http.MethodGet, "/function/f777/a?b=c", nil)
	req.Body = http.NoBody
	w := httptest.NewRecorder()
	b.ReportAllocs()
	for b.Loop() {
		clear(w.Header())
		g.ServeHTTP(w, req)
	}
	if w.Code != 200 {
		b.Errorf("got %d, want 200", w.Code)
	}
}

func BenchmarkLookup(b *testing.B) {
	r := manyFunctions(b, 1000)
	b.ReportAllocs()
	for b.Loop() {
		if r.function("f777") == nil {
			b.Fatal("not found")
		}
	}
}

func BenchmarkMetrics(b *testing.B) {
	r := manyFunctions(b, 1000)
	for _, f := range r.functions() {
		for _, code := range []int{200, 500} {
			for i := range 100 {
				f.metrics.ended(code, time.Duration(i)*time.Millisecond)
			}
		}
	}
	h := r.metrics.handler()
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		b.ReportMetric(float64(w.Body.Len()), "bytes")
	}
}

// rss returns the memory of the process that is in RAM now, in MiB.
func (d *daemon) rss(b *testing.B) float64 {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.Process.Pid))
	if err != nil {
		b.Skip("there is no /proc: ", err)
	}
	kb, err := strconv.Atoi(string(regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(status)[1]))
	if err != nil {
		b.Fatal(err)
	}
	return float64(kb) / 1024
}

// BenchmarkIdleMemory reports what a gateway with 1,000 functions takes, first
// idle, then after each of them was called and the metrics were read.
func BenchmarkIdleMemory(b *testing.B) {
	gateway, _ := build(b)
	replica := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer replica.Close()
	args := []string{"-listen=127.0.0.1:0"}
	for i := range 1000 {
		args = append(args, fmt.Sprintf("-function=f%d=%s", i, replica.URL))
	}
	for b.Loop() {
		d := startDaemon(b, serving, gateway, nil, args...)
		time.Sleep(2 * time.Second) // the first look-ups
		b.ReportMetric(d.rss(b), "MiB-idle")
		for i := range 1000 {
			resp, err := http.Get(fmt.Sprintf("http://%s/function/f%d", d.addr, i))
			if err != nil {
				b.Fatal(err)
			}
			resp.Body.Close()
		}
		resp, err := http.Get("http://" + d.addr + "/metrics")
		if err != nil {
			b.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		b.ReportMetric(d.rss(b), "MiB-called")
	}
}

// BenchmarkIdleConnections reports what 10,000 idle connections take, each of
// which was used once, and how long a request beside them takes.
func BenchmarkIdleConnections(b *testing.B) {
	gateway, _ := build(b)
	replica := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer replica.Close()
	for b.Loop() {
		d := startDaemon(b, serving, gateway, nil, "-listen=127.0.0.1:0", "-function=f="+replica.URL)
		before := d.rss(b)
		buf := make([]byte, 4096)
		for range 10000 {
			c, err := net.Dial("tcp", d.addr)
			if err != nil {
				b.Skip("10,000 connections need more file descriptors: ", err)
			}
			defer c.Close()
			io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
			if _, err := c.Read(buf); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(before, "MiB-before")
		b.ReportMetric(d.rss(b), "MiB-with-10000")
		began := time.Now()
		resp, err := http.Get("http://" + d.addr + "/function/f")
		if err != nil {
			b.Fatal(err)
		}
		resp.Body.Close()
		b.ReportMetric(float64(time.Since(began).Microseconds()), "µs-request")
	}
}
