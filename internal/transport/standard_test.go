package transport

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
)

// A reset is none the less one where a write has met it first, and a replica that
// has closed its side first has not reset the connection.
func TestStandardConnResetMetByAWrite(t *testing.T) {
	for _, c := range []struct {
		linger int
		want   error
	}{{0, syscall.ECONNRESET}, {-1, io.EOF}} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		dialled, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		conn := &standardConn{Conn: dialled, ended: make(chan struct{})}
		defer conn.Close()
		replica, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		replica.(*net.TCPConn).SetLinger(c.linger)
		replica.Close()
		for err == nil {
			_, err = conn.Write([]byte("body"))
		}
		if n, err := conn.Read(make([]byte, 1)); n != 0 || !errors.Is(err, c.want) {
			t.Errorf("linger %d: got %d bytes, %v, want %v", c.linger, n, err, c.want)
		}
	}
}
