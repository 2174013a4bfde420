// Package tcptest has TCP servers for tests that do what net/http's server cannot.
package tcptest

import (
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

var free atomic.Uint32

// Free returns a host:port at which nothing listens. No listener on port 0 gets it
// meanwhile: the system takes those from 32768 on (Linux) or 49152 on.
func Free(t *testing.T) string {
	t.Helper()
	for range 1000 {
		addr := fmt.Sprint("127.0.0.1:", 10_000+(uint32(os.Getpid())*97+free.Add(1))%20_000)
		if ln, err := net.Listen("tcp", addr); err == nil {
			ln.Close()
			return addr
		}
	}
	t.Fatal("no port is free")
	return ""
}

// Start starts a TCP server that a test scripts, and returns its host:port. Each
// connection goes to serve with its number, from 1, unless nothing comes on it.
// It is closed when serve returns, or after 30 s.
func Start(t *testing.T, serve func(n int64, c net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var n atomic.Int64
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(30 * time.Second))
				if sends(c.(*net.TCPConn)) {
					serve(n.Add(1), c)
				}
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		wg.Wait()
	})
	return ln.Addr().String()
}

// sends waits for the first byte, which stays where it is, and reports whether it
// comes: who only looks whether a server is up connects and sends nothing.
func sends(c *net.TCPConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	n := 0
	raw.Read(func(fd uintptr) bool {
		n, _, err = syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK)
		return err != syscall.EAGAIN
	})
	return n > 0
}
