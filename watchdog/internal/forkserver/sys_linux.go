package forkserver

// System calls that package syscall has no name for.

import (
	"os"
	"syscall"
	"time"
	"unsafe"
)

const (
	sysPidfdSendSignal = 424 // the same number on every architecture
	sysPidfdOpen       = 434

	pPID   = 1 // P_PID of waitid(2)
	pollIn = 1 // POLLIN of poll(2)
)

// openPidfd returns a descriptor of process pid.
func openPidfd(pid int) (int, error) {
	fd, _, errno := syscall.RawSyscall(sysPidfdOpen, uintptr(pid), 0, 0)
	if errno != 0 {
		return -1, os.NewSyscallError("pidfd_open", errno)
	}
	return int(fd), nil
}

// signalPidfd signals the process of a descriptor, and reports whether there
// still is one.
func signalPidfd(fd int, s syscall.Signal) bool {
	_, _, errno := syscall.RawSyscall6(sysPidfdSendSignal, uintptr(fd), uintptr(s), 0, 0, 0, 0)
	return errno == 0
}

// readable waits for fd to become readable, and reports whether it has. A wait
// below 0 has no end.
func readable(fd int, wait time.Duration) bool {
	poll := struct {
		fd              int32
		events, revents int16
	}{fd: int32(fd), events: pollIn}
	var left *syscall.Timespec
	if wait >= 0 {
		ts := syscall.NsecToTimespec(int64(wait)) // ppoll(2) leaves in it what remains
		left = &ts
	}
	for {
		n, _, errno := syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&poll)), 1,
			uintptr(unsafe.Pointer(left)), 0, 0, 0)
		if errno != syscall.EINTR {
			return errno == 0 && n == 1
		}
	}
}

// isChild reports whether pid is a child of this program, running or not.
func isChild(pid int) bool {
	for {
		_, _, errno := syscall.Syscall6(syscall.SYS_WAITID, pPID, uintptr(pid), 0,
			syscall.WEXITED|syscall.WNOHANG|syscall.WNOWAIT, 0, 0)
		if errno != syscall.EINTR {
			return errno == 0
		}
	}
}
