//go:build !386 && !s390x

package transport

// Detection of silent peers, on Linux. The two excluded architectures have no
// separate system call for socket options.

import (
	"os"
	"syscall"
	"time"
	"unsafe"
)

// tcpUserTimeout is TCP_USER_TIMEOUT of tcp(7), which package syscall lacks.
const tcpUserTimeout = 18

// limitUnacked makes a connection fail with ETIMEDOUT once the peer has not
// acknowledged for d what was sent to it, or keep-alive probes; 0 is the system's
// own limit, which is many minutes. The system also counts the time in which a
// healthy peer reads nothing, so the limit is only for data that fits its receive
// buffer.
func limitUnacked(c syscall.RawConn, d time.Duration) error {
	var err error
	if lost := c.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(d.Milliseconds()))
	}); lost != nil {
		return lost
	}
	return os.NewSyscallError("setsockopt", err)
}

// waitsLong reports whether the system would wait for d or longer before it sends
// again what is lost.
func waitsLong(c syscall.RawConn, d time.Duration) bool {
	info, ok := tcpInfo(c)
	return ok && time.Duration(info.Rto)*time.Microsecond >= d
}

// isSilent reports whether the peer has acknowledged nothing for d although data or
// probes were sent to it. A healthy one that reads no more data answers the probes.
func isSilent(c syscall.RawConn, d time.Duration) bool {
	info, ok := tcpInfo(c)
	return ok && silent(&info, d)
}

// A healthy peer answers before these are exceeded. The system waits 200 ms for the
// first retransmission, and twice as long each time.
const (
	silentRetransmits = 3
	silentProbes      = 2 // keep-alive or window probes
	silentWaits       = 2 // times d during which nothing is sent again, either
)

// silent is the decision of isSilent.
func silent(info *syscall.TCPInfo, d time.Duration) bool {
	const ms = time.Millisecond
	heard, sent := time.Duration(info.Last_ack_recv)*ms, time.Duration(info.Last_data_sent)*ms
	answerable := sent >= 2*time.Duration(info.Rtt)*time.Microsecond // the last retransmission
	switch {
	case info.Probes >= silentProbes:
	case info.Unacked == 0:
		return false
	case info.Retransmits > silentRetransmits, info.Retransmits == silentRetransmits && answerable:
	default:
		return min(heard, sent) >= silentWaits*d
	}
	return heard >= d
}

func tcpInfo(c syscall.RawConn) (info syscall.TCPInfo, ok bool) {
	size := uint32(unsafe.Sizeof(info))
	var failed syscall.Errno
	lost := c.Control(func(fd uintptr) {
		_, _, failed = syscall.Syscall6(syscall.SYS_GETSOCKOPT, fd, syscall.IPPROTO_TCP, syscall.TCP_INFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	})
	return info, lost == nil && failed == 0
}
