//go:build !386 && !s390x

package transport

// The system's retransmission back-off, on Linux.

import (
	"syscall"
	"time"
)

// tcpRTOMax is TCP_RTO_MAX_MS, known since Linux 6.15.
const tcpRTOMax = 44

// LimitBackOff bounds how long the system waits before it retransmits. By default
// it waits twice as long after each loss. If acknowledgements are lost, it also
// counts its own waits as round-trip time, and in the end waits for many seconds.
// Older systems do not know the option and rely on Limits.BackOff.
func LimitBackOff(c syscall.RawConn, d time.Duration) {
	c.Control(func(fd uintptr) {
		syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpRTOMax, int(d.Milliseconds()))
	})
}
