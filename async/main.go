// Faas-async runs functions later: calls that nobody waits for, schedules and
// topics, kept in NATS JetStream until they are done. See docs/async.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"
)

const (
	exitFailure  = 1
	exitSettings = 2
)

// Both are set at link time for a release or an image, which is built without
// the repository: -ldflags "-X main.version=1.2.3 -X main.revision=0a1b2c".
var version, revision = "", ""

func main() {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	os.Exit(run(context.Background(), os.Args[1:], os.Getenv, os.Stdout, os.Stderr, signals))
}

// run is the program: it returns the exit status. A first signal drains, a
// second one ends it now.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer, signals <-chan os.Signal) int {
	c, err := parseConfig(args, getenv, stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "faas-async: bad settings:\n%v\nRun faas-async -help for all of them.\n", err)
		return exitSettings
	case c.version:
		fmt.Fprintf(stdout, "faas-async %s (revision %s, %s)\n", buildVersion(), buildRevision(), runtime.Version())
		return 0
	case c.runHealthcheck:
		return healthcheck(ctx, c.listen, stderr)
	}
	log := newLogger(&c, stderr)
	if getenv("GOMEMLIMIT") == "" {
		go boundMemory(ctx) // as long as the process
	}
	if err := serve(ctx, &c, log, signals, func(*service) {}); err != nil {
		log.Error("faas-async ended", "error", err)
		return exitFailure
	}
	return 0
}

func newLogger(c *config, w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.logLevel}
	if c.logFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// healthcheck asks the faas-async that listens on this machine whether it is
// ready.
func healthcheck(ctx context.Context, listen string, stderr io.Writer) int {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		fmt.Fprintln(stderr, "faas-async: -listen:", err)
		return exitFailure
	}
	if ip := net.ParseIP(host); host == "" || ip.IsUnspecified() {
		host = "localhost"
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/healthz", nil)
	if err == nil {
		var resp *http.Response
		// Without the proxy of the environment: this is about this machine.
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		if resp, err = client.Do(req); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return 0
			}
			err = fmt.Errorf("/healthz answers %s", resp.Status)
		}
	}
	fmt.Fprintln(stderr, "faas-async: unhealthy:", err)
	return exitFailure
}

func buildVersion() string {
	if version != "" {
		return version
	}
	return "development"
}

func buildRevision() string {
	if revision != "" {
		return revision
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return "unknown"
}
