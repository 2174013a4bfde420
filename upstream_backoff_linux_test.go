//go:build !386 && !s390x

package main

import (
	"errors"
	"net"
	"syscall"
	"testing"
	"time"
)

// A system that does not know the limit refuses to set it, and connects all the same.
func TestConnectionsToReplicasHaveALimitOfBackOff(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := newDialer().DialContext(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var ms int // of TCP_RTO_MAX_MS
	if lost := raw.Control(func(fd uintptr) { ms, err = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, 44) }); lost != nil {
		t.Fatal(lost)
	}
	if got := time.Duration(ms) * time.Millisecond; !errors.Is(err, syscall.ENOPROTOOPT) && (err != nil || got != backOffLimit) {
		t.Errorf("got %v, error %v, want %v", got, err, backOffLimit)
	}
}
