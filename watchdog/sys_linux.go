package watchdog

// What only Linux has: pipes that are close-on-exec from the start, process
// descriptors, looking at an exit without taking its status.

import (
	"os"
	"syscall"
	"unsafe"
)

const pPID = 1 // P_PID of waitid(2)

// newPipe makes a pipe whose ends no other child inherits.
func newPipe() (r, w int, err error) {
	var fds [2]int
	if err := syscall.Pipe2(fds[:], syscall.O_CLOEXEC); err != nil {
		return -1, -1, os.NewSyscallError("pipe2", err)
	}
	return fds[0], fds[1], nil
}

// exited waits for child pid to end, or with block false only looks whether it
// has. The child stays a zombie, so that nobody else can get its pid yet.
func exited(pid int, block bool) (bool, error) {
	// siginfo_t has 128 bytes and starts with si_signo, which stays 0 if
	// WNOHANG finds nothing.
	var info [128 / 8]uint64
	options := syscall.WEXITED | syscall.WNOWAIT
	if !block {
		options |= syscall.WNOHANG
	}
	for {
		_, _, errno := syscall.Syscall6(syscall.SYS_WAITID, pPID, uintptr(pid),
			uintptr(unsafe.Pointer(&info)), uintptr(options), 0, 0)
		switch errno {
		case 0:
			return *(*int32)(unsafe.Pointer(&info)) != 0, nil
		case syscall.EINTR:
		default:
			return false, os.NewSyscallError("waitid", errno)
		}
	}
}

// unread returns how many bytes a pipe holds.
func unread(fd int) int {
	var n int32
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.TIOCINQ, uintptr(unsafe.Pointer(&n)))
	if errno != 0 {
		return 0
	}
	return int(n)
}

// withPidfd asks for a descriptor of the child beside its pid.
func withPidfd(attr *syscall.SysProcAttr, fd *int) { attr.PidFD = fd }
