package watchdog

// Processes that a killed program has left behind. Its direct children end with it
// (see tie), their children do not.

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// endLimit is how long endLeftovers waits for what it has killed.
const endLimit = time.Second

// owner names this program in marks: its pid and its start time, as pids are
// reused.
func owner() string {
	pid := os.Getpid()
	if _, start, ok := processStat(pid); ok {
		return strconv.Itoa(pid) + "." + start
	}
	return ""
}

// processStat returns the state of a process, as ps shows it, and when it was
// started, in ticks since the system was.
func processStat(pid int) (state, start string, ok bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return "", "", false
	}
	// The name, in parentheses, may hold anything; the 3rd field follows.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 20 {
		return "", "", false
	}
	return fields[0], fields[19], true
}

// endLeftovers kills the processes that programs which are gone have left
// behind, and waits until they have ended: one may hold a port.
func endLeftovers(log *slog.Logger) {
	end := time.Now().Add(endLimit)
	for time.Now().Before(end) {
		left := leftovers()
		if len(left) == 0 {
			return
		}
		for _, p := range left {
			// A process descriptor is behind it: the pid cannot have become
			// another's.
			if err := p.Signal(syscall.SIGKILL); err == nil {
				log.Warn("killed what an earlier run has left behind", "pid", p.Pid)
			}
		}
		for _, p := range left {
			if p.WithHandle(func(fd uintptr) { readable(int(fd), time.Until(end)) }) != nil {
				time.Sleep(10 * time.Millisecond) // an old system: look again
			}
			p.Release()
		}
	}
}

// leftovers returns the processes with the mark of a program that is gone, this
// one excepted. A process of another PID namespace, as of a container, is none:
// its mark speaks of other pids. The caller must release them.
func leftovers() []*os.Process {
	here, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return nil
	}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	var left []*os.Process
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || pid == os.Getpid() || !isLeftover(pid) {
			continue
		}
		if there, err := os.Readlink(dir + "/ns/pid"); err != nil || there != here {
			continue
		}
		p, err := os.FindProcess(pid)
		if err != nil {
			continue
		}
		if isLeftover(pid) { // and still the same process
			left = append(left, p)
		} else {
			p.Release()
		}
	}
	return left
}

func isLeftover(pid int) bool {
	name, _, ok := strings.Cut(invocationMark(pid), "-")
	if !ok {
		return false
	}
	by, start, ok := strings.Cut(name, ".")
	owner, err := strconv.Atoi(by)
	if !ok || err != nil || owner <= 0 {
		return false
	}
	state, since, ok := processStat(owner)
	if !ok {
		return syscall.Kill(owner, 0) == syscall.ESRCH // it may be hidden
	}
	return state == "Z" || state == "X" || since != start
}
