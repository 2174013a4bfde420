package main

// Benchmarks of an invocation from socket to socket. Client and replica are
// written so that they allocate nothing: what is counted is the gateway's.

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"
)

// startBenchReplica answers every request with 128 bytes. A request's body
// ends with a newline and has no other.
func startBenchReplica(b *testing.B) (addr string) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { ln.Close() })
	answer := append([]byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 128\r\n\r\n"), bytes.Repeat([]byte("x"), 128)...)
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				br := bufio.NewReader(conn)
				for {
					if err := readBenchRequest(br); err != nil {
						return
					}
					if _, err := conn.Write(answer); err != nil {
						return
					}
				}
			}()
		}
	}()
	return ln.Addr().String()
}

func readBenchRequest(br *bufio.Reader) error {
	hasBody := false
	for {
		line, err := br.ReadSlice('\n')
		if err != nil {
			return err
		}
		hasBody = hasBody || bytes.HasPrefix(line, []byte("Content-Length: "))
		if len(line) == 2 {
			break
		}
	}
	if !hasBody {
		return nil
	}
	_, err := br.ReadSlice('\n')
	return err
}

// startBenchGateway serves a function bench and as many more as wanted.
func startBenchGateway(b *testing.B, more int) (addr string) {
	p := newMemoryProvider()
	replica := startBenchReplica(b)
	p.set("bench", nil, replica)
	for i := range more {
		p.set(fmt.Sprintf("other-%d", i), nil, replica)
	}
	c, err := parseConfig([]string{"-listen", "127.0.0.1:0", "-drain", "0"}, func(string) string { return "" }, io.Discard)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	listening := make(chan string, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- serve(ctx, &c, p, nil, slog.New(slog.DiscardHandler), nil, func(a net.Addr) { listening <- a.String() })
	}()
	b.Cleanup(func() {
		cancel()
		<-ended
	})
	select {
	case addr := <-listening:
		return addr
	case err := <-ended:
		b.Fatal(err)
	}
	return ""
}

// benchClient sends request over one connection of its own for each iteration
// and reads the answer, whose body ends at its first run of n times x.
func benchClient(pb *testing.PB, addr string, request []byte) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	br := bufio.NewReader(conn)
	for pb.Next() {
		if _, err := conn.Write(request); err != nil {
			return err
		}
		line, err := br.ReadSlice('\n')
		if err != nil {
			return err
		}
		if !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")) {
			return errors.New(string(line))
		}
		for len(line) > 2 {
			if line, err = br.ReadSlice('\n'); err != nil {
				return err
			}
		}
		if _, err := br.Discard(128); err != nil {
			return err
		}
	}
	return nil
}

func BenchmarkGateway(b *testing.B) {
	const headers = "Host: gateway.example\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\nAccept-Encoding: gzip\r\n"
	for _, c := range []struct {
		name    string
		more    int
		request string
	}{
		{"get", 0, "GET /function/bench?a=b HTTP/1.1\r\n" + headers + "\r\n"},
		{"get of 1000 functions", 999, "GET /function/bench?a=b HTTP/1.1\r\n" + headers + "\r\n"},
		{"by header", 0, "GET / HTTP/1.1\r\n" + headers + "X-Function: bench\r\n\r\n"},
		{"post", 0, "POST /function/bench HTTP/1.1\r\n" + headers + "Content-Length: 6\r\n\r\nhello\n"},
	} {
		b.Run(c.name, func(b *testing.B) {
			addr := startBenchGateway(b, c.more)
			b.SetParallelism(8)
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				if err := benchClient(pb, addr, []byte(c.request)); err != nil {
					b.Error(err)
				}
			})
		})
	}
}

func BenchmarkCallID(b *testing.B) {
	h := http.Header{}
	b.ReportAllocs()
	for b.Loop() {
		callID(h)
	}
}

func BenchmarkFunctionMetrics(b *testing.B) {
	m := newMetrics(func() []*function { return nil }).function("bench")
	b.ReportAllocs()
	for b.Loop() {
		m.started.Inc()
		m.ended(200, 3*time.Millisecond)
	}
}
