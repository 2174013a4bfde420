package main

// How soon a silent peer is given up, on Linux.

import (
	"os"
	"syscall"
	"time"
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
