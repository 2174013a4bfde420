// Command fwatchdog makes a process a function: it answers HTTP requests with
// processes, as its environment says.
package main

// From start to end: settings, listener, signals, drain.

import (
	"cmp"
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
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"faas/internal/buildinfo"
	"faas/internal/healthcheck"
	"faas/watchdog"
)

// Both are set by the linker (-X main.version=... -X main.revision=...).
var version, revision = "", ""

var thisBuild = buildinfo.New(version, revision)

const (
	// lastRequests is how long connections that were accepted in time may take to send
	// their request.
	lastRequests = 100 * time.Millisecond

	shutdownAttempt = 100 * time.Millisecond
	idleInterval    = 10 * time.Millisecond // between looks whether all invocations have ended
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2 // bad usage or settings
)

// heapHeadroom is counted as live by the garbage collector and never touched,
// so that a proxy's few MiB are not collected dozens of times a second.
const heapHeadroom = 8 << 20

func main() {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, ending()...)
	os.Exit(run(context.Background(), os.Args[1:], os.Getenv, os.Stdout, os.Stderr, signals))
}

// ending returns the signals that drain the program. SIGQUIT is among them since
// images made for other servers have it as their STOPSIGNAL; what Go does with it
// otherwise, SIGABRT still does. SIGHUP stays ignored under nohup.
func ending() []os.Signal {
	signals := []os.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT}
	if !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	return signals
}

// run is the whole program. A first signal drains it, a second one ends it.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer, signals <-chan os.Signal) int {
	flags := flag.NewFlagSet("fwatchdog", flag.ContinueOnError)
	flags.SetOutput(stderr)
	showVersion := flags.Bool("version", false, "print the version and exit")
	checkHealth := flags.Bool("run-healthcheck", false, "ask the fwatchdog that runs here whether it is healthy; exit with 0 or 1")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return exitOK
		}
		return exitUsage
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "fwatchdog: %q: no arguments are taken; settings come from the environment\n", flags.Arg(0))
		return exitUsage
	}
	if *showVersion {
		fmt.Fprintln(stdout, "fwatchdog", thisBuild)
		return exitOK
	}
	if *checkHealth {
		port := cmp.Or(getenv("port"), "8080")
		if err := healthcheck.Ask(ctx, "http://127.0.0.1:"+port+"/_/health"); err != nil {
			fmt.Fprintf(stderr, "fwatchdog: unhealthy at port %s: %v\n", port, err)
			return exitFailed
		}
		return exitOK
	}

	cfg, err := watchdog.ParseConfig(getenv)
	if err != nil {
		fmt.Fprintf(stderr, "fwatchdog: bad settings:\n%v\n", err)
		return exitUsage
	}
	if cfg.Mode == watchdog.ModeHTTP {
		headroom := make([]byte, heapHeadroom)
		defer runtime.KeepAlive(headroom)
	} else if getenv("GOMAXPROCS") == "" {
		// While a child execs, vfork holds its parent's thread and its P: with
		// one P per processor, spawning would keep everything else waiting. A
		// proxy only pays for Ps that look for work.
		runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), 8))
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))
	h, err := watchdog.New(cfg, log)
	if err != nil {
		fmt.Fprintf(stderr, "fwatchdog: bad settings:\n%v\n", err)
		return exitUsage
	}
	if err := serve(ctx, h, cfg, log, signals); err != nil {
		log.Error("ended", "error", err)
		return exitFailed
	}
	return exitOK
}

// serve listens until a signal or ctx ends it, and then until nothing is in
// flight.
func serve(ctx context.Context, h *watchdog.Handler, cfg watchdog.Config, log *slog.Logger, signals <-chan os.Signal) error {
	if err := h.AdoptOrphans(); err != nil {
		log.Warn("orphans of functions are not reaped", "error", err)
	}
	ln, err := net.Listen("tcp", ":"+strconv.Itoa(cfg.Port))
	if err != nil {
		return err
	}
	srv := h.NewServer()
	listener := watchdog.NewListener(ln)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(listener) }()

	// What goes on beside requests ends after the last of them.
	runCtx, stopRun := context.WithCancel(context.WithoutCancel(ctx))
	ran := make(chan error, 1)
	go func() { ran <- h.Run(runCtx) }()
	reapCtx, stopReaping := context.WithCancel(context.WithoutCancel(ctx))
	var reaping sync.WaitGroup
	reaping.Go(func() { h.ReapOrphans(reapCtx) })
	log.Info("listening", "address", ln.Addr().String(), "mode", cfg.Mode, "command", strings.Join(cfg.Command[:min(1, len(cfg.Command))], ""), "version", thisBuild.Version, "revision", thisBuild.Revision)

	var failure error
	running := true
	select {
	case <-ctx.Done():
	case s := <-signals:
		log.Info("draining", "signal", s.String(), "interval", cfg.HealthcheckInterval)
	case failure = <-served:
	case failure = <-ran:
		running = false
	}
	if failure == nil {
		drain(h, srv, listener, cfg.HealthcheckInterval, signals, log)
		<-served
	} else {
		srv.Close()
		h.Kill()
	}
	stopRun()
	if running {
		failure = errors.Join(failure, <-ran)
	}
	stopReaping()
	reaping.Wait()
	return failure
}

// drain goes on serving for interval while unhealthy, then finishes what is in
// flight. Another signal ends it all at once.
func drain(h *watchdog.Handler, srv *http.Server, ln *watchdog.Listener, interval time.Duration, signals <-chan os.Signal, log *slog.Logger) {
	h.Drain()
	timer := time.NewTimer(interval)
	defer timer.Stop()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	finished := make(chan struct{})
	go func() {
		defer close(finished)
		select {
		case <-timer.C:
			// Shutdown closes a connection on which it finds a request that has not
			// been read.
			ln.Close()
			select {
			case <-time.After(lastRequests):
			case <-ctx.Done():
			}
			shutdown(ctx, srv)
			awaitIdle(ctx, h)
			ln.EndLingering(ctx)
		case <-ctx.Done():
		}
	}()
	select {
	case <-finished:
	case s := <-signals:
		log.Warn("ending at once", "signal", s.String(), "inflight", h.Inflight())
		cancel()
		h.Kill()
		srv.Close()
		<-finished
	}
}

// shutdown returns when nothing is in flight, or ctx is done. Server.Shutdown
// looks at its connections less and less often, down to twice a second; started
// anew, it looks often again.
func shutdown(ctx context.Context, srv *http.Server) {
	for ctx.Err() == nil {
		attempt, cancel := context.WithTimeout(ctx, shutdownAttempt)
		err := srv.Shutdown(attempt)
		cancel()
		if err == nil {
			return
		}
	}
}

// awaitIdle returns when no invocation is under way, or ctx is done. Upgraded
// connections, as for WebSocket, are invocations that Server.Shutdown does not
// know of.
func awaitIdle(ctx context.Context, h *watchdog.Handler) {
	tick := time.NewTicker(idleInterval)
	defer tick.Stop()
	for h.Inflight() > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
