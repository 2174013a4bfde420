package main

// One round: load on one contestant, and what that cost it.

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// A load is what is sent.
type load struct {
	connections int
	path        string
	body        int // bytes; 0 is a GET
}

// A sample is what one round showed. NaN would be unknown; 0 is never measured.
type sample struct {
	rate     float64 // requests per second
	p50, p99 float64 // µs
	cpu      float64 // µs per request, of the processes under test
	mallocs  float64 // objects allocated per request
}

// round loads c once.
func (b *bench) round(c *contestant, l load, length time.Duration) (sample, error) {
	if c.rate != nil {
		rate, err := c.rate()
		return sample{rate: rate}, err
	}
	before, err := c.usage()
	if err != nil {
		return sample{}, err
	}
	var s sample
	var requests float64
	if b.wrk {
		requests, err = b.runWrk(c.addr, l, length, &s)
	} else {
		requests, err = b.runLoad(c.addr, l, length, &s)
	}
	if err != nil {
		return sample{}, fmt.Errorf("%s: %w", c.name, err)
	}
	after, err := c.usage()
	if err != nil {
		return sample{}, err
	}
	s.cpu = (after.cpu - before.cpu).Seconds() * 1e6 / requests
	s.mallocs = (after.mallocs - before.mallocs) / requests
	return s, nil
}

type usage struct {
	cpu     time.Duration
	mallocs float64
}

func (c *contestant) usage() (u usage, err error) {
	if c.template {
		// The watchdog has reaped the earlier ones: their time is in that of its children.
		if c.more, err = c.newestTemplate(); err != nil {
			return u, err
		}
	}
	for _, pid := range append([]int{c.cmd.Process.Pid}, c.more...) {
		d, err := cpuTime(pid)
		if err != nil {
			return u, fmt.Errorf("CPU time of %s: %w", c.name, err)
		}
		if c.children {
			d += childrenTime(pid)
		}
		u.cpu += d
	}
	if c.mallocs != nil {
		u.mallocs, err = c.mallocs()
	}
	return u, err
}

var templateReady = regexp.MustCompile(`"fork server is ready".* pid=(\d+)`)

// newestTemplate reads the log for the process of the fork server's template; none: it
// has none yet.
func (c *contestant) newestTemplate() ([]int, error) {
	log, err := os.ReadFile(c.log)
	if err != nil {
		return nil, err
	}
	ready := templateReady.FindAllSubmatch(log, -1)
	if len(ready) == 0 {
		return nil, nil
	}
	pid, err := strconv.Atoi(string(ready[len(ready)-1][1]))
	return []int{pid}, err
}

// cpuTime returns the user and system time of all threads of a process, those
// that have ended included. It is what /proc/PID/stat shows in ticks of 10 ms,
// in nanoseconds.
func cpuTime(pid int) (time.Duration, error) {
	clock := int32(^pid)<<3 | 2 // clock_getcpuclockid(3)
	var t syscall.Timespec
	if _, _, errno := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, uintptr(clock), uintptr(unsafe.Pointer(&t)), 0); errno != 0 {
		return 0, errno
	}
	return time.Duration(t.Nano()), nil
}

// childrenTime returns the user and system time of the children that a process has
// reaped, to 10 ms; 0 if it is gone.
func childrenTime(pid int) time.Duration {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 15 {
		return 0
	}
	user, _ := strconv.Atoi(fields[13])
	system, _ := strconv.Atoi(fields[14])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// memory reads a field of /proc/PID/status in MiB, such as VmHWM, summed over
// the processes under test.
func (c *contestant) memory(field string) (mib float64) {
	for _, pid := range append([]int{c.cmd.Process.Pid}, c.more...) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return 0
		}
		_, rest, _ := strings.Cut(string(text), field+":")
		fields := strings.Fields(rest)
		if len(fields) == 0 {
			return 0
		}
		kib, _ := strconv.ParseFloat(fields[0], 64)
		mib += kib / 1024
	}
	return mib
}

// forgetPeak makes VmHWM start again from what is in use now.
func (c *contestant) forgetPeak() {
	for _, pid := range append([]int{c.cmd.Process.Pid}, c.more...) {
		os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
	}
}

// runLoad is a round by bench/load.
func (b *bench) runLoad(addr string, l load, length time.Duration, s *sample) (requests float64, err error) {
	out, err := b.command(nil, b.program("load"), "-c", strconv.Itoa(l.connections), "-d", length.String(),
		"-body", strconv.Itoa(l.body), "http://"+addr+l.path).Output()
	if err != nil {
		return 0, err
	}
	var r struct {
		Requests, Errors int
		Seconds          float64
		P50              float64 `json:"p50_us"`
		P99              float64 `json:"p99_us"`
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return 0, err
	}
	if r.Errors > 0 || r.Requests == 0 {
		return 0, fmt.Errorf("%d requests, %d errors", r.Requests, r.Errors)
	}
	s.rate, s.p50, s.p99 = float64(r.Requests)/r.Seconds, r.P50, r.P99
	return float64(r.Requests), nil
}

var (
	wrkTotal   = regexp.MustCompile(`(\d+) requests in`)
	wrkRate    = regexp.MustCompile(`Requests/sec:\s+([\d.]+)`)
	wrkP50     = regexp.MustCompile(`50%\s+([\d.]+)(us|ms|s|m)\b`)
	wrkP99     = regexp.MustCompile(`99%\s+([\d.]+)(us|ms|s|m)\b`)
	wrkProblem = regexp.MustCompile(`(Non-2xx|Socket errors).*`)
	wrkUnit    = map[string]float64{"us": 1, "ms": 1e3, "s": 1e6, "m": 60e6}
)

// runWrk is a round by wrk.
func (b *bench) runWrk(addr string, l load, length time.Duration, s *sample) (requests float64, err error) {
	seconds := max(1, int(length.Seconds()))
	args := []string{"-t", "1", "-c", strconv.Itoa(l.connections), "-d", strconv.Itoa(seconds), "--latency"}
	if l.body > 0 {
		script := filepath.Join(b.dir, "post.lua")
		text := fmt.Appendf(nil, "wrk.method = \"POST\"\nwrk.body = string.rep(\"x\", %d)\n", l.body)
		if err := os.WriteFile(script, text, 0o600); err != nil {
			return 0, err
		}
		args = append(args, "-s", script)
	}
	out, err := b.command(nil, "wrk", append(args, "http://"+addr+l.path)...).Output()
	if err != nil {
		return 0, fmt.Errorf("wrk: %w", err)
	}
	if problem := wrkProblem.Find(out); problem != nil {
		return 0, fmt.Errorf("wrk: %s", problem)
	}
	number := func(re *regexp.Regexp) float64 {
		m := re.FindSubmatch(out)
		if m == nil {
			err = errors.Join(err, fmt.Errorf("wrk printed no %s:\n%s", re, bytes.TrimSpace(out)))
			return 0
		}
		n, _ := strconv.ParseFloat(string(m[1]), 64)
		if len(m) > 2 {
			n *= wrkUnit[string(m[2])]
		}
		return n
	}
	requests, s.rate, s.p50, s.p99 = number(wrkTotal), number(wrkRate), number(wrkP50), number(wrkP99)
	if err == nil && requests == 0 {
		err = errors.New("wrk: no request was answered")
	}
	return requests, err
}
