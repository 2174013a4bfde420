package watchdog

// The same on macOS, as far as it has it: enough to try functions on a laptop.

import (
	"os"
	"syscall"
	"time"
	"unsafe"
)

const (
	pPID     = 1          // P_PID of waitid(2)
	fionread = 0x4004667f // FIONREAD of tty(4)
)

// newPipe makes a pipe whose ends no other child inherits.
func newPipe() (r, w int, err error) {
	var fds [2]int
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := syscall.Pipe(fds[:]); err != nil {
		return -1, -1, os.NewSyscallError("pipe", err)
	}
	syscall.CloseOnExec(fds[0])
	syscall.CloseOnExec(fds[1])
	return fds[0], fds[1], nil
}

// awaitZombie waits for child pid to end. The child stays a zombie, so that
// nobody else can get its pid yet.
func awaitZombie(pid int) {
	var info [128]byte // siginfo_t, which may not be missing here
	for {
		_, _, errno := syscall.Syscall6(syscall.SYS_WAITID, pPID, uintptr(pid),
			uintptr(unsafe.Pointer(&info)), syscall.WEXITED|syscall.WNOWAIT, 0, 0)
		if errno != syscall.EINTR {
			return
		}
	}
}

// readable is never called: there are no process descriptors.
func readable(int, time.Duration) bool { return false }

// unread returns how many bytes a pipe holds.
func unread(fd int) int {
	var n int32
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), fionread, uintptr(unsafe.Pointer(&n)))
	if errno != 0 {
		return 0
	}
	return int(n)
}

// duplicate is never called: there are no process descriptors.
func duplicate(int) (int, error) { return -1, syscall.ENOSYS }

// tie does nothing: a child does not learn of its parent's end.
func tie(*syscall.SysProcAttr) {}
