package watchdog

// Linux only: pipes that are close-on-exec from the start, process descriptors.

import (
	"os"
	"syscall"
	"time"
	"unsafe"
)

const (
	pPID   = 1 // P_PID of waitid(2)
	pollIn = 1 // POLLIN of poll(2)
)

// newPipe makes a pipe whose ends no other child inherits.
func newPipe() (r, w int, err error) {
	var fds [2]int
	if err := syscall.Pipe2(fds[:], syscall.O_CLOEXEC); err != nil {
		return -1, -1, os.NewSyscallError("pipe2", err)
	}
	return fds[0], fds[1], nil
}

// awaitZombie waits for child pid to end. The child stays a zombie, so that
// nobody else can get its pid yet.
func awaitZombie(pid int) {
	for {
		_, _, errno := syscall.Syscall6(syscall.SYS_WAITID, pPID, uintptr(pid), 0,
			syscall.WEXITED|syscall.WNOWAIT, 0, 0)
		if errno != syscall.EINTR {
			return
		}
	}
}

// readable waits for fd to become readable, and reports whether it has.
func readable(fd int, wait time.Duration) bool {
	poll := struct {
		fd              int32
		events, revents int16
	}{fd: int32(fd), events: pollIn}
	left := syscall.NsecToTimespec(int64(wait)) // ppoll(2) leaves in it what remains
	for {
		n, _, errno := syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&poll)), 1,
			uintptr(unsafe.Pointer(&left)), 0, 0, 0)
		if errno != syscall.EINTR {
			return errno == 0 && n == 1
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

// duplicate returns another descriptor of the same file, close-on-exec.
func duplicate(fd int) (int, error) {
	got, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_DUPFD_CLOEXEC, 0)
	if errno != 0 {
		return -1, os.NewSyscallError("fcntl", errno)
	}
	return int(got), nil
}

// tie asks for the end of the child when this program is killed.
//
// The signal is sent at the end of the thread that started the child, not of the
// program. Go ends a thread only with a goroutine that has locked itself to it and
// returns without unlocking: no program that uses this package may do that.
func tie(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }
