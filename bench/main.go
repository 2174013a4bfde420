// Command bench compares the gateway and the watchdog with others of their
// kind on this machine's loopback. It builds them, starts them all, and loads
// one after the other in rounds (A B C, A B C, ...), so that a machine that
// slows down slows all of them. It prints tables of medians and writes them to
// a file.
//
//	bench [-rounds N] [-seconds N] [-only REGEXP] [-o FILE]
//
// Linux only. See docs/performance.md.
package main

// Settings, building, and the order of things.

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"
)

// A bench is one run of it all.
type bench struct {
	ctx     context.Context
	rounds  int
	length  time.Duration // of a round of one contestant
	only    *regexp.Regexp
	dir     string // scratch: programs, settings, logs
	caddy   string // path of a caddy, or ""
	wrk     bool   // wrk is the load, or else bench/load
	report  report
	started []*contestant
}

func main() {
	rounds := flag.Int("rounds", 7, "rounds of each comparison")
	seconds := flag.Int("seconds", 2, "of load on one contestant in one round")
	only := flag.String("only", "", "run comparisons whose title matches this `regexp`")
	caddy := flag.String("caddy", "", "`path` of a caddy to compare with, if it is not in PATH")
	output := flag.String("o", "", "`file` to write the tables to, in Markdown")
	flag.Parse()
	if flag.NArg() > 0 || *rounds < 1 || *seconds < 1 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *rounds, *seconds, *only, *caddy, *output); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, rounds, seconds int, only, caddy, output string) error {
	filter, err := regexp.Compile(only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	dir, err := os.MkdirTemp("", "faas-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{ctx: ctx, rounds: rounds, length: time.Duration(seconds) * time.Second, only: filter, dir: dir}
	if caddy == "" {
		caddy = "caddy"
	}
	if path, err := exec.LookPath(caddy); err == nil {
		b.caddy = path
	}
	_, err = exec.LookPath("wrk")
	b.wrk = err == nil
	defer b.stopAll()
	if err := b.build(); err != nil {
		return err
	}
	began := time.Now()
	b.report.head(b)
	for _, compare := range []func() error{b.gateways, b.registered, b.peers, b.idleConnections, b.watchdogs, b.python, b.wholePath} {
		if err := compare(); err != nil {
			return err
		}
		b.stopAll()
	}
	b.report.finish(time.Since(began))
	if output == "" {
		_, err := io.WriteString(os.Stdout, b.report.summary())
		return err
	}
	fmt.Print(b.report.summary())
	return os.WriteFile(output, b.report.markdown(), 0o644)
}

// build compiles what is compared and what it is compared with.
func (b *bench) build() error {
	for _, pkg := range []string{".", "./watchdog/fwatchdog", "./bench/proxy", "./bench/upstream", "./bench/load", "./bench/execrun"} {
		if err := b.command(nil, "go", "build", "-trimpath", "-o", b.dir+"/", pkg).Run(); err != nil {
			return fmt.Errorf("build %s: %w", pkg, err)
		}
	}
	for _, name := range []string{"spawn", "cgi"} {
		if err := b.command(nil, "cc", "-O2", "-pthread", "-o", b.program(name), filepath.Join("bench/spawn", name+".c")).Run(); err != nil {
			fmt.Fprintf(os.Stderr, "bench: without a C compiler there is no comparison with %s: %v\n", name, err)
		}
	}
	return nil
}

// program is the path of one that was built.
func (b *bench) program(name string) string { return filepath.Join(b.dir, name) }

// has reports whether a program was built.
func (b *bench) has(name string) bool {
	_, err := os.Stat(b.program(name))
	return err == nil
}

// command is one whose errors are shown.
func (b *bench) command(env []string, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(b.ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	return cmd
}
