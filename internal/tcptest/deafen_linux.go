package tcptest

import (
	"net"
	"syscall"
	"testing"
)

// Deafen makes the connection drop what arrives, acknowledgements of keep-alive
// included, as if its machine had been cut off.
func Deafen(t *testing.T, c net.Conn) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if lost := raw.Control(func(fd uintptr) {
		//lint:ignore SA1019 one instruction is not worth another module
		err = syscall.AttachLsf(int(fd), []syscall.SockFilter{{Code: syscall.BPF_RET | syscall.BPF_K, K: 0}})
	}); lost != nil || err != nil {
		t.Fatalf("attach a filter: %v, %v", lost, err)
	}
}
