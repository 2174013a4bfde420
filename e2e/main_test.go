// Package e2e tests the gateway, the watchdog and the images on a real Docker
// Swarm of three nodes, the way their users run them.
package e2e

// The life of a test run: what it needs, the lab around the tests, and its end.
//
// The lab needs a parent that outlives the tests, however they end: a panic,
// a timeout or an interrupt ends a test binary on the spot. So the binary
// first makes the lab, then runs itself again for the tests themselves, in the
// network of a machine outside the Swarm, and takes the lab down afterwards.

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	// envRequired set to "required" makes a missing prerequisite a failure.
	envRequired = "FAAS_E2E"

	// envName and envNet choose another lab, so that two can be up at a time:
	// the prefix of its network namespaces and the first three octets of its
	// addresses.
	envName = "FAAS_E2E_NAME"
	envNet  = "FAAS_E2E_NET"

	// envInside is set in the process that runs the tests in a lab.
	envInside = "FAAS_E2E_INSIDE"

	// envMissing tells the tests why there is no lab.
	envMissing = "FAAS_E2E_MISSING"
)

func TestMain(m *testing.M) {
	flag.Parse()
	switch {
	case os.Getenv(envProbe) != "":
		if err := probe(context.Background(), os.Getenv(envProbe), os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "e2e: probe:", err)
			os.Exit(1)
		}
		os.Exit(0)
	case os.Getenv(envInside) != "":
		go exitWithParent(os.Stdin)
		os.Exit(m.Run())
	case flag.Lookup("test.list").Value.String() != "":
		os.Exit(m.Run())
	}
	if missing := prerequisites(); missing != "" {
		os.Setenv(envMissing, missing)
		os.Exit(m.Run())
	}
	code, err := runInLab()
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

// prerequisites says what keeps the lab from being made here, or "".
func prerequisites() string {
	required := os.Getenv(envRequired) == "required"
	if testing.Short() && !required {
		return "not run with -short"
	}
	if runtime.GOOS != "linux" {
		return "needs Linux, this is " + runtime.GOOS
	}
	var missing []string
	if os.Geteuid() != 0 {
		missing = append(missing, "root")
	}
	for _, p := range []struct{ command, from string }{
		{"dockerd", "docker.io"}, {"docker", "docker.io"}, {"containerd", "docker.io"}, {"runc", "docker.io"},
		{"ip", "iproute2"}, {"iptables", "iptables"},
		{"unshare", "util-linux"}, {"nsenter", "util-linux"},
		{"busybox", "busybox-static"}, {"go", "Go"},
	} {
		if _, err := exec.LookPath(p.command); err != nil {
			missing = append(missing, p.command+" ("+p.from+")")
		}
	}
	if busybox, err := exec.LookPath("busybox"); err == nil && !static(busybox) {
		missing = append(missing, "a static busybox (busybox-static)")
	}
	if missing == nil {
		return ""
	}
	return "missing: " + strings.Join(missing, ", ")
}

// runInLab makes the lab, runs the tests in it and takes it down. It returns
// the exit status of the tests.
func runInLab() (code int, err error) {
	started := time.Now()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT)
	defer stop()

	l, err := newLab()
	if err != nil {
		return 0, err
	}
	unlock, err := l.lock(ctx)
	if err != nil {
		return 0, err
	}
	defer unlock()

	// One from an aborted run may be there still: the lock says that nobody uses it.
	if err := l.swarmlab(ctx, "down"); err != nil {
		return 0, err
	}
	defer func() {
		// Also after an interrupt, so not under its context.
		down, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		err = errors.Join(err, l.swarmlab(down, "down"))
	}()
	if err := l.swarmlab(ctx, "up", fmt.Sprint(nodeCount), fmt.Sprint(nodeCount)); err != nil {
		return 0, err
	}
	progress(started, "lab up")
	if err := l.prepare(ctx); err != nil {
		return 0, err
	}
	progress(started, "images built and loaded")
	code, err = runTests(ctx, l, started)
	progress(started, "tests ended")
	return code, err
}

// runTests runs this binary again with the same flags, on the machine outside
// the Swarm. Where the run has a time limit, what is left of it is the limit
// of the tests, so that go test does not end the parent first.
func runTests(ctx context.Context, l *lab, started time.Time) (int, error) {
	args := append([]string{"--net=/run/netns/" + l.name + "-sw", "--", os.Args[0]}, os.Args[1:]...)
	if limit, ok := flag.Lookup("test.timeout").Value.(flag.Getter).Get().(time.Duration); ok && limit > 0 {
		args = append(args, "-test.timeout="+max(limit-time.Since(started), time.Second).String())
	}
	// The child ends when its standard input does: it must not outlive a
	// parent that was killed.
	in, parent, err := os.Pipe()
	if err != nil {
		return 0, fmt.Errorf("run the tests: %w", err)
	}
	defer in.Close()
	defer parent.Close()

	cmd := exec.CommandContext(ctx, "nsenter", args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGQUIT) } // leaves a trace of every goroutine
	cmd.WaitDelay = 10 * time.Second
	cmd.Env = append(os.Environ(), envInside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, os.Stdout, os.Stderr
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return max(exit.ExitCode(), 1), nil
	}
	if err != nil {
		return 0, fmt.Errorf("run the tests: %w", err)
	}
	return 0, nil
}

// exitWithParent ends the process when the parent's end of in is closed.
func exitWithParent(in io.Reader) {
	io.Copy(io.Discard, in)
	os.Exit(1)
}

// lock waits until no other run uses the lab, and keeps it until unlock.
func (l *lab) lock(ctx context.Context) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Clean(l.dir)+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the lab: %w", err)
	}
	for told := false; ; told = true {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("lock the lab: %w", err)
		}
		if !told {
			fmt.Fprintf(os.Stderr, "e2e: waiting for another run to leave the lab %q (%s chooses another)\n", l.name, envName)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

func progress(started time.Time, what string) {
	fmt.Fprintf(os.Stderr, "e2e: %5.1f s  %s\n", time.Since(started).Seconds(), what)
}
