//go:build !386 && !s390x

package main

// How soon a silent peer is given up, on Linux. The two processors excepted
// have no system call of its own for socket options.

import (
	"os"
	"syscall"
	"time"
	"unsafe"
)

// tcpUserTimeout is TCP_USER_TIMEOUT of tcp(7), which package syscall lacks.
const tcpUserTimeout = 18

// limitUnacked makes a connection fail with ETIMEDOUT once the peer has not
// acknowledged for d what was sent to it, or keep-alive probes; 0 is the
// system's own limit, which is many minutes. The system also counts how long
// a peer that is well does not take more, so a limit is only for what its
// receive buffer holds.
func limitUnacked(c syscall.RawConn, d time.Duration) error {
	var err error
	if lost := c.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(d.Milliseconds()))
	}); lost != nil {
		return lost
	}
	return os.NewSyscallError("setsockopt", err)
}

// What a peer that is well does not leave unanswered. The system waits 200 ms
// for the first retransmission, and twice as long each time.
const (
	silentRetransmits = 3
	silentProbes      = 2 // keep-alive or window probes
)

// isSilent reports whether the peer has acknowledged nothing for d although
// data or probes are on their way to it. One that is well but takes no more
// data answers the probes.
func isSilent(c syscall.RawConn, d time.Duration) bool {
	var info syscall.TCPInfo
	size := uint32(unsafe.Sizeof(info))
	var failed syscall.Errno
	if c.Control(func(fd uintptr) {
		_, _, failed = syscall.Syscall6(syscall.SYS_GETSOCKOPT, fd, syscall.IPPROTO_TCP, syscall.TCP_INFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	}) != nil || failed != 0 {
		return false
	}
	unanswered := info.Unacked > 0 && info.Retransmits >= silentRetransmits || info.Probes >= silentProbes
	return unanswered && int64(info.Last_ack_recv) >= d.Milliseconds()
}
