// Gateway is the way into functions that run as services of Docker Swarm, or
// as processes of this machine. See README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"time"
)

const (
	exitFailure  = 1
	exitSettings = 2

	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 2 * time.Minute // longer than what balancers in front usually keep

	// What the garbage collector may let pile up besides what GOGC allows. The
	// gateway's live heap is a few MiB, and a heap of that size would be
	// collected dozens of times a second under load.
	heapHeadroom = 32 << 20
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
		fmt.Fprintf(stderr, "gateway: bad settings:\n%v\nRun gateway -help for all of them.\n", err)
		return exitSettings
	case c.version:
		fmt.Fprintf(stdout, "gateway %s (revision %s, %s)\n", buildVersion(), buildRevision(), goVersion())
		return 0
	case c.runHealthcheck:
		return healthcheck(ctx, c.listen, stderr)
	}
	// Counted as live, never touched: takes no memory itself.
	headroom := make([]byte, heapHeadroom)
	defer runtime.KeepAlive(headroom)

	log := newLogger(&c, stderr)
	err = func() error {
		var verifier *alexaVerifier
		if c.alexaVerify {
			if verifier, err = newAlexaVerifier(c.alexaApplications, nil, nil, time.Now); err != nil {
				return fmt.Errorf("-alexa-verify: %w", err)
			}
		}
		from, stop, err := newProvider(ctx, &c, getenv, log)
		if err != nil {
			return err
		}
		defer stop()
		return serve(ctx, &c, from, verifier, log, signals, func(net.Addr) {})
	}()
	if settings, ok := errors.AsType[settingsError](err); ok {
		fmt.Fprintf(stderr, "gateway: bad settings:\n%v\n", settings.error)
		return exitSettings
	}
	if err != nil {
		log.Error("gateway ended", "error", err)
		return exitFailure
	}
	return 0
}

// A settingsError is one that only the provider could find.
type settingsError struct{ error }

// newProvider starts the provider that the settings name. stop ends it, after
// the last request.
func newProvider(ctx context.Context, c *config, getenv func(string) string, log *slog.Logger) (_ provider, stop func(), err error) {
	defaults := definition{port: 8080, timeout: c.upstreamTimeout, maxInflight: c.maxInflight, scale: c.scale}
	if c.provider == "swarm" {
		p, err := newSwarm(ctx, c.network, defaults)
		if err != nil {
			return nil, nil, err
		}
		return p, func() { p.docker.Close() }, nil
	}
	p, err := newLocal(c.functions, c.routes, defaults, getenv, log)
	if err != nil {
		return nil, nil, settingsError{err}
	}
	if err := p.start(ctx); err != nil {
		p.close()
		return nil, nil, err
	}
	return p, p.close, nil
}

// serve wires the parts, serves until a signal or ctx ends it, and stops them
// in the opposite order. verifier checks Alexa requests, nil for none to be
// checked. listening is told the address.
func serve(ctx context.Context, c *config, from provider, verifier *alexaVerifier, log *slog.Logger, signals <-chan os.Signal, listening func(net.Addr)) error {
	registry := newRegistry(from, log)
	m := newMetrics(registry.functions)
	dial := newDialer().DialContext
	transport := newTransport(c.transport, dial)
	registry.metrics, registry.dial, registry.closeIdle = m, dial, transport.closeIdle
	registry.alexaRoute = c.alexaRoute
	scaler := newAutoscaler(registry.scalables, from, sinceEpoch, rand.Float64, registry.scaled, log)
	scaler.wakeOnly = !c.autoscale
	registry.answering = scaler.answering
	up := &upstream{
		transport: transport, refresh: registry.refresh, wake: scaler.wake, log: log,
		queue: c.queue, queueTimeout: c.queueTimeout,
	}
	g := newGateway(c, registry, up, m, log)
	g.verifier = verifier
	if err := registry.load(ctx); err != nil {
		return err
	}

	ln, err := net.Listen("tcp", c.listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	loops, stopLoops := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stopLoops()
	wg.Go(func() { registry.run(loops) })
	wg.Go(func() { scaler.run(loops) })

	strict := newStrictListener(ln, m.refused)
	server := newServer(g, strict, log)
	served := make(chan error, 1)
	go func() { served <- server.Serve(strict) }()
	log.Info("gateway is serving", "address", ln.Addr().String(), "provider", c.provider, "functions", len(registry.functions()), "version", buildVersion())
	listening(ln.Addr())

	select {
	case err := <-served:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	case s := <-signals:
		log.Info("draining: not ready, still serving", "signal", s.String(), "drain", c.drain)
		g.draining.Store(true)
		scaler.drain()
		select {
		case <-time.After(c.drain):
		case <-ctx.Done():
		case <-signals:
			server.Close()
			return errors.New("ended by a second signal")
		}
	}
	// ctx may be over: the requests in flight get a time of their own.
	bounded, cancel := context.WithTimeout(context.Background(), c.shutdownTimeout)
	defer cancel()
	wg.Go(func() {
		select {
		case <-signals:
			cancel()
		case <-bounded.Done():
		}
	})
	err = server.Shutdown(bounded)
	if err == nil {
		err = g.idle(bounded)
	}
	if err != nil {
		server.Close()
		return fmt.Errorf("requests in flight were cut off: %w", err)
	}
	cancel()
	log.Info("gateway ended, nothing was in flight any more")
	return nil
}

// newServer makes the server of g on ln. HTTP/2 is taken without TLS as well,
// for those who put a proxy in front that speaks it.
func newServer(g *gateway, ln *strictListener, log *slog.Logger) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:           g,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderLen,
		Protocols:         protocols,
		ConnState:         ln.connState,
		ConnContext:       withCaller,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
}

func newLogger(c *config, w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.logLevel}
	if c.logFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// healthcheck asks the gateway that listens on this machine whether it is
// ready.
func healthcheck(ctx context.Context, listen string, stderr io.Writer) int {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		fmt.Fprintln(stderr, "gateway: -listen:", err)
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
	fmt.Fprintln(stderr, "gateway: unhealthy:", err)
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

func goVersion() string { return runtime.Version() }
