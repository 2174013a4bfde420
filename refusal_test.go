package main

// What becomes of a body that nobody asks for, and of its connection.

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// startRefusing starts a gateway with a function that is busy, one that has no
// replica, one that nobody accepts connections for, and one for each of two limits.
func startRefusing(t *testing.T, args ...string) (base string) {
	p := newMemoryProvider()
	inside := make(chan struct{})
	hang := func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) // or net/http does not see the gateway go
		<-r.Context().Done()
	}
	p.set("busy", func(d *definition) { d.maxInflight, d.timeout = 1, time.Hour }, startReplica(t, func(w http.ResponseWriter, r *http.Request) {
		close(inside)
		hang(w, r)
	}))
	p.set("none", func(d *definition) { d.scale.Fixed = true })
	p.set("refused", nil, closedAddr(t))
	p.set("slow", func(d *definition) { d.timeout = guardDelay / 2 }, startReplica(t, hang))
	p.set("slower", func(d *definition) { d.timeout = 5 * guardDelay }, startReplica(t, hang))
	p.set("routed", func(d *definition) { d.claim(labelRoute, []string{"GET /orders/{id}", "/items/{id}"}) }, closedAddr(t))
	base = startGateway(t, p, append(args, "-queue-timeout", "1ms", "-alexa-route", "/skill", "-async", "http://"+closedAddr(t), "-function", "a=cat")...)
	awaitReady(t, base, "busy", "refused", "slow", "slower")
	dialRaw(t, base).send("GET /function/busy HTTP/1.1\r\nHost: x\r\n\r\n")
	<-inside
	return base
}

type bodiless struct {
	method, path string
	status       int
}

// bodilessAnswers are answers for which nobody reads a body.
var bodilessAnswers = []bodiless{
	{"POST", "/function/nope", 404}, {"POST", "/nope", 404}, {"POST", "/", 400}, {"PUT", "/skill", 405},
	{"POST", "/function/busy", 429}, {"POST", "/function/none", 503}, {"POST", "/function/slow", 504}, {"POST", "/function/slower", 504},
	{"POST", "/healthz", 200}, {"POST", "/metrics", 200}, {"POST", "/async-function/nope", 404}, {"POST", "/async-function/none", 503},
	{"POST", "/orders/1", 405}, {"POST", "/items//1", 307}, {"POST", "/items/%20", 400},
	{"POST", "/system/nope", 404}, {"POST", "/system/info", 405}, {"GET", "/system/info", 200}, {"GET", "/system/logs", 501},
}

// A body that has come with its head costs nobody the connection, whatever the answer.
func TestAConnectionIsKeptAfterAnErrorWithABody(t *testing.T) {
	bothTransports(t, func(t *testing.T, args ...string) {
		base := startRefusing(t, args...)
		for _, tt := range append(bodilessAnswers, bodiless{"POST", "/function/refused", 502}) {
			for _, body := range []string{"Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"} {
				t.Run(tt.path, func(t *testing.T) {
					t.Parallel() // it takes a while to find that nobody accepts a connection
					c := dialRaw(t, base)
					kept(t, c, tt.status, "%s", tt.method+" "+tt.path+" HTTP/1.1\r\nHost: 127.0.0.1\r\n"+body)
				})
			}
		}
	})
}

// An answer that needs no body does not wait for one. Then the connection is closed,
// for the body could still come.
func TestNoRefusalWaitsForABody(t *testing.T) {
	const pause = 400 * time.Millisecond // net/http's is 500 ms
	base := startRefusing(t)
	for _, tt := range bodilessAnswers {
		for _, head := range []string{
			"Content-Length: 1000000\r\n", "Content-Length: 10\r\n", "Transfer-Encoding: chunked\r\n",
			"Content-Length: 10\r\nExpect: 100-continue\r\n",
		} {
			switch {
			case tt.path == "/" && head != "Content-Length: 1000000\r\n": // read, to find whether it is Alexa's
				continue
			case tt.status == 504 && strings.Contains(head, "Expect"): // the function has asked for the body
				continue
			}
			t.Run(tt.path+" "+head, func(t *testing.T) {
				status := tt.status
				if status == 504 && head == "Content-Length: 10\r\n" {
					status = 408 // the function was not called
				}
				took := time.Hour
				for try := 0; try < 5 && took > pause; try++ { // this machine may be busy
					c := dialRaw(t, base)
					began := time.Now()
					c.send("%s", tt.method+" "+tt.path+" HTTP/1.1\r\nHost: 127.0.0.1\r\n"+head+"\r\n")
					resp, _ := c.receive(tt.method)
					if status == 408 && resp.StatusCode == 504 && try < 4 {
						continue // the limit was over before anybody looked for the body
					}
					took = min(took, time.Since(began))
					if resp.StatusCode != status || !resp.Close {
						t.Errorf("got %d, closed %v, want %d and the connection closed", resp.StatusCode, resp.Close, status)
					}
					if _, err := c.br.ReadByte(); err != io.EOF {
						t.Errorf("after the answer: got %v, want its end", err)
					}
				}
				if took > pause {
					t.Errorf("got the answer after %v, want less than %v", took, pause)
				}
			})
		}
	}
}

// A caller that sends on has its answer nevertheless: the connection is not reset.
func TestWhoSendsOnGetsTheRefusal(t *testing.T) {
	base := startRefusing(t)
	for path, status := range map[string]int{"/function/nope": 404, "/function/busy": 429, "/function/none": 503} {
		for _, size := range []int{5, 200 << 10, 4 << 20} {
			t.Run(path+" "+strconv.Itoa(size), func(t *testing.T) {
				t.Parallel()
				c := dialRaw(t, base)
				c.send("POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", path, size+1)
				c.send("%s", make([]byte, size))
				if resp, _ := c.receive("POST"); resp.StatusCode != status || !resp.Close {
					t.Errorf("got %d, closed %v, want %d and the connection closed", resp.StatusCode, resp.Close, status)
				}
				c.send("%s", "x")
				if _, err := c.br.ReadByte(); err != io.EOF {
					t.Errorf("after the answer: got %v, want its end", err)
				}
			})
		}
	}
}
