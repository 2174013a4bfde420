package watchdog

// Orphans: what a process leaves behind that its process group does not hold.

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

const (
	prSetChildSubreaper = 36 // PR_SET_CHILD_SUBREAPER of prctl(2)

	// reapInterval lies between two looks at orphans, however many children end.
	reapInterval = 100 * time.Millisecond

	// lastReap is how long ReapOrphans waits at its end for what it kills.
	lastReap = time.Second
)

// AdoptOrphans makes this program the parent of every orphan among its
// descendants. Whoever calls it must have ReapOrphans run. It is for a program
// that has one Handler and no other children.
func (h *Handler) AdoptOrphans() error {
	if _, err := children(); err != nil {
		return err
	}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, prSetChildSubreaper, 1, 0); errno != 0 {
		return os.NewSyscallError("prctl", errno)
	}
	return nil
}

// ReapOrphans reaps orphans that have ended, and kills those that outlive the
// invocation which started them, by the mark in their environment; one that has
// shed its mark it kills as soon as no process of the handler is left. It never
// takes the status of a process that the handler started. It returns when ctx
// is done and no orphan is left.
func (h *Handler) ReapOrphans(ctx context.Context) {
	ended := make(chan os.Signal, 1)
	defer signal.Stop(ended)
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-pause.C:
		case <-ctx.Done():
			h.family.reapLast()
			return
		}
		// While the timer runs nobody asks for the signal: children may end
		// thousands of times a second.
		signal.Notify(ended, syscall.SIGCHLD)
		select {
		case <-h.family.shrunk:
		default:
		}
		h.family.reapOrphans(false)
		// A child that has ended may still be a member at that time, and its
		// orphans are spared: the end of its membership is news, too.
		select {
		case <-ended:
		case <-h.family.shrunk:
		case <-ctx.Done():
			h.family.reapLast()
			return
		}
		signal.Stop(ended)
		pause.Reset(reapInterval)
	}
}

// reapLast reaps and kills until no orphan is left.
func (f *family) reapLast() {
	for end := time.Now().Add(lastReap); f.reapOrphans(true) > 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
}

// reapOrphans reaps orphans that have ended and kills those whose invocation
// has ended, or all. It returns how many were killed.
func (f *family) reapOrphans(all bool) int {
	pids, err := children()
	if err != nil {
		return 0
	}
	killed := 0
	for _, pid := range pids {
		if f.has(pid) {
			continue
		}
		// Only under the lock is it certain that this is none of the family.
		f.mu.Lock()
		if !f.has(pid) {
			if got, _ := syscall.Wait4(pid, nil, syscall.WNOHANG, nil); got == 0 {
				if all || !f.spares(pid) {
					// Nobody else can reap this child, so the pid is still its own.
					syscall.Kill(pid, syscall.SIGKILL)
					killed++
				}
			}
		}
		f.mu.Unlock()
	}
	return killed
}

// spares reports whether an orphan may belong to an invocation that is under
// way. One without a mark, or with a template's, may belong to any.
func (f *family) spares(pid int) bool {
	if f.idle() {
		return false
	}
	mark := invocationMark(pid)
	return mark == "" || isTemplateMark(mark) || f.hasMark(mark)
}

// children returns the pids of this program's children.
func children() ([]int, error) {
	names, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil || len(names) == 0 {
		return nil, fmt.Errorf("list children: /proc/self/task/*/children: %w", os.ErrNotExist)
	}
	var pids []int
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // a thread that has ended
		}
		for _, field := range bytes.Fields(b) {
			if pid, err := strconv.Atoi(string(field)); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids, nil
}

// invocationMark returns the mark in a process's environment, or "".
func invocationMark(pid int) string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return ""
	}
	for v := range bytes.SplitSeq(b, []byte{0}) {
		if mark, ok := bytes.CutPrefix(v, []byte(markVariable+"=")); ok {
			return string(mark)
		}
	}
	return ""
}
