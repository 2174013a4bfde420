package main

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"syscall"
	"testing"

	"faas/internal/tcptest"
	"faas/internal/transport"
)

// A replica whose machine is silent is ejected.
func TestASilentReplicaIsLost(t *testing.T) {
	err := &transport.Error{Stage: transport.StageSent, Err: os.NewSyscallError("read", syscall.ETIMEDOUT)}
	if !lost(err) {
		t.Errorf("got %v, want an error that ejects the replica", err)
	}
}

// Through the gateway: the POST may have run, so it is not sent again, but its
// caller hears of it long before the limit of the invocation.
func TestAPOSTToASilentReplicaFailsSoon(t *testing.T) {
	var requests atomic.Int64
	p := newMemoryProvider()
	p.set("f", nil, tcptest.Start(t, func(n int64, c net.Conn) {
		req, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return // a probe
		}
		io.Copy(io.Discard, req.Body)
		if requests.Add(1) == 1 {
			tcptest.Deafen(t, c)
		}
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		<-t.Context().Done()
	}))
	base := startGateway(t, p)
	for i, want := range []int{200, 502, 200} {
		if resp, _ := call(t, "POST", base+"/function/f", "body"); resp.StatusCode != want {
			t.Errorf("request %d: got %d, want %d", i, resp.StatusCode, want)
		}
	}
	if got := requests.Load(); got != 2 {
		t.Errorf("the function got %d requests, want 2: nobody heard the second", got)
	}
}
