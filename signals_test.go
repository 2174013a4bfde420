package main

// What signals do to the real program, and to the real processes of its
// functions.

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A gatewayProcess is the program, built and started as its users do.
type gatewayProcess struct {
	*exec.Cmd
	addr   string
	stderr io.ReadCloser // of which the log up to the start has been read
	log    *bytes.Buffer
	pids   string // the file in which its functions' processes write their pids
	served string // where web serves
}

// startGatewayProcess starts the program with two functions: busy, whose
// process starts another one and waits, and web, a server that stays up.
// ignore is a signal that it is started to ignore, as a shell names it.
func startGatewayProcess(t *testing.T, program, ignore string, args ...string) *gatewayProcess {
	t.Helper()
	p := &gatewayProcess{pids: filepath.Join(t.TempDir(), "pids"), log: new(bytes.Buffer)}
	p.served = freeAddr(t)
	shell := "exec \"$@\""
	if ignore != "" {
		shell = "trap '' " + ignore + "; " + shell
	}
	p.Cmd = exec.Command("sh", append([]string{"-c", shell, "sh", program, "-listen=127.0.0.1:0",
		"-function", "busy=sh -c 'sleep 600 & echo $$ $! >>" + p.pids + "; wait'",
		// The gateway itself is the server that is sure to be here.
		"-function", "web=sh -c 'echo $$ >>" + p.pids + "; exec " + program + " -listen " + p.served + " -drain 0'",
		"-env", "web:mode=http", "-env", "web:upstream_url=http://" + p.served}, args...)...)
	p.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // else a Ctrl-C is for it as well
	var err error
	if p.stderr, err = p.StderrPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Process.Kill()
		for _, pid := range p.functions(t) {
			if runs(pid) {
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		p.Wait()
	})
	lines := bufio.NewReader(p.stderr)
	for p.addr == "" {
		line, err := lines.ReadBytes('\n')
		p.log.Write(line)
		if m := servingAt.FindSubmatch(line); m != nil {
			p.addr = string(m[1])
		} else if err != nil {
			t.Fatalf("it did not serve: %v\n%s", err, p.log)
		}
	}
	p.stderr = struct {
		io.Reader
		io.Closer
	}{lines, p.stderr}
	return p
}

// occupy calls both functions and returns when their processes run: web's,
// busy's, and the one that busy's has started.
func (p *gatewayProcess) occupy(t *testing.T) (pids []int) {
	t.Helper()
	if resp, body := call(t, "POST", "http://"+p.addr+"/function/web/function/echo", "hello"); resp.StatusCode != 200 || body != "hello" {
		t.Fatalf("web: got %d %q, want 200 hello", resp.StatusCode, body)
	}
	go http.Post("http://"+p.addr+"/function/busy", "text/plain", nil)
	for end := time.Now().Add(20 * time.Second); len(pids) < 3; pids = p.functions(t) {
		if time.Now().After(end) {
			t.Fatalf("got processes %v, want three", pids)
		}
		time.Sleep(5 * time.Millisecond)
	}
	for _, pid := range pids {
		if !runs(pid) {
			t.Fatalf("process %d of %v has ended by itself", pid, pids)
		}
	}
	return pids
}

func (p *gatewayProcess) functions(t *testing.T) (pids []int) {
	b, err := os.ReadFile(p.pids)
	if err != nil && !os.IsNotExist(err) {
		t.Error(err)
	}
	for _, field := range strings.Fields(string(b)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			t.Error(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

// end sends a signal and returns the exit status, and what it logged.
func (p *gatewayProcess) end(t *testing.T, s syscall.Signal) (status syscall.WaitStatus, log string) {
	t.Helper()
	late := time.AfterFunc(time.Minute, func() { p.Process.Kill() })
	defer late.Stop()
	if err := p.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(p.log, p.stderr); err != nil {
		t.Error(err)
	}
	p.Wait()
	return p.ProcessState.Sys().(syscall.WaitStatus), p.log.String()
}

// runs reports whether a process exists and has not ended.
func runs(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return runtime.GOOS != "linux" // where it has ended just now
	}
	_, state, _ := bytes.Cut(stat, []byte(") "))
	return !bytes.HasPrefix(state, []byte("Z")) // an orphan may wait for whoever reaps it
}

// wantGone waits until none of the processes runs. What was killed may take a
// moment.
func wantGone(t *testing.T, pids []int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		var left []int
		for _, pid := range pids {
			if runs(pid) {
				left = append(left, pid)
			}
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Errorf("processes %v of %v are left behind", left, pids)
			return
		}
	}
}

// A machine may stand still until a limit is long over. Its callers are told so all the
// same.
func TestALimitPassesWhileTheGatewayStandsStill(t *testing.T) {
	const limit = time.Second
	program, _ := build(t)
	inside := make(chan struct{}, 1)
	silent := startReplica(t, func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		inside <- struct{}{}
		<-r.Context().Done()
	})
	p := startGatewayProcess(t, program, "", "-function", "silent=http://"+silent, "-label", fmt.Sprint("silent:faas.timeout=", limit))
	awaitReady(t, "http://"+p.addr, "silent")
	for _, request := range []string{"GET %s HTTP/1.1\r\nHost: x\r\n\r\n", "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"} {
		c := dialRaw(t, "http://"+p.addr)
		c.send(request, "/function/silent")
		within(t, "the call at the function", inside)
		if err := p.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		<-time.After(limit + 2*lateBy)
		if err := p.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		if resp, body := c.receive(request[:3]); resp.StatusCode != http.StatusGatewayTimeout {
			t.Errorf("%s: got %d %q, want 504", request[:4], resp.StatusCode, body)
		}
	}
}

func TestSignalsLeaveNoProcess(t *testing.T) {
	// A signal that this process ignores, as under nohup, the program would too;
	// one that it handles is reset.
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	program, _ := build(t)
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		t.Run(s.String(), func(t *testing.T) {
			p := startGatewayProcess(t, program, "", "-drain=0", "-shutdown-timeout=100ms")
			pids := p.occupy(t)
			status, log := p.end(t, s)
			if !status.Exited() || status.ExitStatus() != exitFailure || !strings.Contains(log, "signal="+s.String()) || !strings.Contains(log, "cut off") {
				t.Errorf("got %v, want exit status %d after what was in flight was cut off:\n%s", p.ProcessState, exitFailure, log)
			}
			wantGone(t, pids)
		})
	}
	// Go's answer to SIGQUIT is kept: the stacks are what it is sent for.
	t.Run(syscall.SIGQUIT.String(), func(t *testing.T) {
		p := startGatewayProcess(t, program, "")
		pids := p.occupy(t)
		status, log := p.end(t, syscall.SIGQUIT)
		if !status.Exited() || status.ExitStatus() != 2 || !strings.Contains(log, "SIGQUIT: quit") || !strings.Contains(log, "main.serve(") {
			t.Errorf("got %v, want exit status 2 and every goroutine's stack:\n%s", p.ProcessState, log)
		}
		wantGone(t, pids)
	})
	t.Run("nohup", func(t *testing.T) {
		p := startGatewayProcess(t, program, "HUP", "-drain=0", "-shutdown-timeout=100ms")
		pids := p.occupy(t)
		if err := p.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		_, log := p.end(t, syscall.SIGTERM) // which is delivered after it
		if strings.Contains(log, "hangup") || !strings.Contains(log, "signal=terminated") {
			t.Errorf("it did not ignore SIGHUP:\n%s", log)
		}
		wantGone(t, pids)
	})
	t.Run("nobody reads the log", func(t *testing.T) {
		p := startGatewayProcess(t, program, "", "-drain=0", "-shutdown-timeout=100ms")
		pids := p.occupy(t)
		p.stderr.Close()
		p.stderr = io.NopCloser(strings.NewReader(""))
		if status, _ := p.end(t, syscall.SIGTERM); !status.Exited() || status.ExitStatus() != exitFailure {
			t.Errorf("got %v, want exit status %d", p.ProcessState, exitFailure)
		}
		wantGone(t, pids)
	})
}
