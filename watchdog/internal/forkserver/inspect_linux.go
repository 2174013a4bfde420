package forkserver

// Inspection of a process for what its forks would share, or lack.

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// An inventory is what a process has.
type inventory struct {
	threads  []string
	files    []string // descriptors, as in "5 (socket:[1234])"
	children []string
	chld     bool // SIGCHLD is handled or ignored
}

// inspect looks at process pid.
func inspect(pid int) (inventory, error) {
	var v inventory
	proc := "/proc/" + strconv.Itoa(pid)
	threads, err := names(proc + "/task")
	if err != nil {
		return v, fmt.Errorf("look at the template: %w", err)
	}
	v.threads = threads
	files, err := names(proc + "/fd")
	if err != nil {
		return v, fmt.Errorf("look at the template: %w", err)
	}
	for _, fd := range files {
		to, _ := os.Readlink(filepath.Join(proc, "fd", fd))
		v.files = append(v.files, fmt.Sprintf("%s (%s)", fd, to))
	}
	for _, thread := range threads {
		// Where the kernel has no such file, nothing is known.
		b, _ := os.ReadFile(filepath.Join(proc, "task", thread, "children"))
		for _, child := range bytes.Fields(b) {
			name, _ := os.ReadFile("/proc/" + string(child) + "/comm")
			v.children = append(v.children, fmt.Sprintf("%s (%s)", child, bytes.TrimSpace(name)))
		}
	}
	status, err := os.ReadFile(proc + "/status")
	if err != nil {
		return v, fmt.Errorf("look at the template: %w", err)
	}
	for line := range bytes.Lines(status) {
		name, mask, _ := bytes.Cut(line, []byte(":"))
		if string(name) == "SigIgn" || string(name) == "SigCgt" {
			signals, _ := strconv.ParseUint(string(bytes.TrimSpace(mask)), 16, 64)
			v.chld = v.chld || signals&(1<<(syscall.SIGCHLD-1)) != 0
		}
	}
	return v, nil
}

func names(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	list, err := f.Readdirnames(-1)
	slices.Sort(list)
	return list, err
}

// beyond says what v has that keeps a process from being forked, and did not
// have at first; "" if there is none.
func (v inventory) beyond(first inventory) string {
	if n := len(v.threads) - len(first.threads); n > 0 {
		return fmt.Sprintf("%d more threads than the interpreter has by itself", n)
	}
	for _, f := range v.files {
		if !slices.Contains(first.files, f) {
			return "descriptor " + f
		}
	}
	if len(v.children) > len(first.children) {
		return "child process " + v.children[len(v.children)-1]
	}
	if v.chld && !first.chld {
		return "a handler for SIGCHLD"
	}
	return ""
}

// resident returns how many bytes of memory process pid uses; 0 if it cannot be
// known.
func resident(pid int) int64 {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
	fields := bytes.Fields(b)
	if err != nil || len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(string(fields[1]), 10, 64)
	return pages * int64(os.Getpagesize())
}
