package main

// Contestants: programs that are started once, loaded in turns, and stopped at
// the end of a comparison.

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const startTimeout = 15 * time.Second

// A contestant is one server under test, or a program that measures itself.
type contestant struct {
	name string
	addr string // that load is sent to
	cmd  *exec.Cmd
	log  string // the name of a file
	more []int  // other processes whose CPU time counts

	children bool // and that of the children of all of them
	template bool // more is the fork server's template, which is replaced now and then

	// mallocs reads how many objects the process has allocated so far; nil
	// where there is no telling.
	mallocs func() (float64, error)

	// rate, if not nil, does the whole round and returns requests per second.
	rate func() (float64, error)
}

// start runs a program and waits until addr accepts connections.
func (b *bench) start(name, addr string, env []string, dir string, program string, args ...string) (*contestant, error) {
	cmd := b.command(env, program, args...)
	cmd.Dir = dir
	log, err := os.CreateTemp(b.dir, "log")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	c := &contestant{name: name, addr: addr, log: log.Name(), cmd: cmd}
	b.started = append(b.started, c)
	for end := time.Now().Add(startTimeout); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
			return c, nil
		}
		if time.Now().After(end) || b.ctx.Err() != nil {
			text, _ := os.ReadFile(log.Name())
			return nil, fmt.Errorf("%s does not answer: %w\n%s", name, err, text)
		}
	}
}

// stopAll ends what was started, the last first.
func (b *bench) stopAll() {
	for i := len(b.started) - 1; i >= 0; i-- {
		c := b.started[i].cmd
		c.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(10*time.Second, func() { c.Process.Kill() })
		c.Wait()
		kill.Stop()
	}
	b.started = nil
}

// freeAddr is an address of loopback that nobody listens on.
func freeAddr() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}

func port(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return port
}

// upstream starts the server behind the contestants.
func (b *bench) upstream() (addr string, err error) {
	addr, err = freeAddr()
	if err != nil {
		return "", err
	}
	_, err = b.start("upstream", addr, nil, "", b.program("upstream"), addr)
	return addr, err
}

// gateway starts the gateway as it is by default, with a function bench at
// upstream, as many more as wanted, and more flags.
func (b *bench) gateway(name, upstream string, more int, flags ...string) (*contestant, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	args := append(flags, "-listen", addr, "-drain", "0s", "-function", "bench=http://"+upstream)
	for i := range more {
		args = append(args, "-function", fmt.Sprintf("other-%d=http://%s", i, upstream))
	}
	c, err := b.start(name, addr, nil, "", b.program("faas"), args...)
	if err != nil {
		return nil, err
	}
	c.mallocs = func() (float64, error) { return mallocsOfMetrics("http://" + addr + "/metrics") }
	return c, nil
}

// bare starts the baseline.
func (b *bench) bare(name, upstream string, env ...string) (*contestant, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	c, err := b.start(name, addr, env, "", b.program("proxy"), addr, "http://"+upstream)
	if err != nil {
		return nil, err
	}
	c.mallocs = func() (float64, error) { return mallocsOfVars("http://" + addr + "/debug/vars") }
	return c, nil
}

// watchdog starts fwatchdog with settings from env.
func (b *bench) watchdog(name, dir string, env ...string) (*contestant, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	env = append(env, "port="+port(addr), "suppress_lock=true", "healthcheck_interval=0s")
	return b.start(name, addr, env, dir, b.program("fwatchdog"))
}

// mallocsOfMetrics reads what the Go collector of Prometheus exposes.
func mallocsOfMetrics(url string) (float64, error) {
	resp, err := http.Get(url)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), "go_memstats_mallocs_total "); ok {
			return strconv.ParseFloat(value, 64)
		}
	}
	return 0, errors.Join(lines.Err(), fmt.Errorf("%s has no go_memstats_mallocs_total", url))
}

// mallocsOfVars reads what package expvar exposes.
func mallocsOfVars(url string) (float64, error) {
	resp, err := http.Get(url)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	var vars struct {
		Memstats struct{ Mallocs float64 }
	}
	err = json.NewDecoder(resp.Body).Decode(&vars)
	return vars.Memstats.Mallocs, err
}
