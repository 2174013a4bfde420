// Gateway routes HTTP requests to functions that run as services of Docker Swarm,
// or as processes of this machine. See README.md.
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
	"sync"
	"syscall"
	"time"

	"faas/internal/alexa"
	"faas/internal/basicauth"
	"faas/internal/buildinfo"
	"faas/internal/healthcheck"
	"faas/internal/registryauth"
	"faas/internal/scale"
	"faas/internal/wire"
	"faas/ui"
)

const (
	exitFailure  = 1
	exitSettings = 2

	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 2 * time.Minute // longer than load balancers usually keep connections

	// lastRequests is how long connections that were accepted in time may take to send
	// their request.
	lastRequests = 250 * time.Millisecond

	// Extra garbage allowed between collections, beyond GOGC. The gateway's live
	// heap is a few MiB, and a heap of that size would be collected dozens of times
	// a second under load.
	heapHeadroom = 32 << 20
)

// Both are set at link time for a release or an image, which is built without
// the repository: -ldflags "-X main.version=1.2.3 -X main.revision=0a1b2c".
var version, revision = "", ""

var thisBuild = buildinfo.New(version, revision)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Getenv, os.Stdout, os.Stderr, endSignals()))
}

// endSignals returns the signals that stop the gateway. A signal that was ignored
// at the start, as nohup does with SIGHUP, stays ignored.
func endSignals() <-chan os.Signal {
	signals := make(chan os.Signal, 4)
	for _, s := range []os.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	// The reader of the log may exit first, as tee does on Ctrl-C. Then writes
	// fail, but must not end the gateway before it has drained.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	return signals
}

// run is the program: it returns the exit status. The first signal drains, a second
// one exits at once.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer, signals <-chan os.Signal) int {
	c, err := parseConfig(args, getenv, stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "gateway: bad settings:\n%v\ngateway -help lists all settings.\n", err)
		return exitSettings
	case c.version:
		fmt.Fprintf(stdout, "gateway %s\n", thisBuild)
		return 0
	case c.runHealthcheck:
		return checkHealth(ctx, c.listen, stderr)
	}
	// Counted as live but never touched, so it takes no memory.
	headroom := make([]byte, heapHeadroom)
	defer runtime.KeepAlive(headroom)

	log := newLogger(&c, stderr)
	err = func() error {
		var verifier *alexa.Verifier
		if c.alexaVerify {
			if verifier, err = alexa.NewVerifier(alexa.Options{Applications: c.alexaApplications}); err != nil {
				return fmt.Errorf("-alexa-verify: %w", err)
			}
		}
		from, stop, err := newProvider(ctx, &c, log)
		if err != nil {
			return err
		}
		defer stop()
		return serve(ctx, &c, from, verifier, log, signals, func(net.Addr) {})
	}()
	if err != nil {
		log.Error("gateway ended", "error", err)
		return exitFailure
	}
	return 0
}

// newProvider starts the provider named in the settings. Call stop after the last
// request.
func newProvider(ctx context.Context, c *config, log *slog.Logger) (_ provider, stop func(), err error) {
	defaults := c.defaults()
	if c.provider == "swarm" {
		p, err := newSwarm(ctx, c.network, defaults)
		if err != nil {
			return nil, nil, err
		}
		p.namespace, p.credentials = c.namespace, registryauth.File(c.registryConfig)
		return p, func() { p.docker.Close() }, nil
	}
	if len(c.missing) > 0 {
		log.Warn("samples skipped: their programs are not installed", "functions", c.missing)
	}
	if len(c.ignored) > 0 {
		log.Warn("watchdog settings in the gateway's environment are ignored: set them per function, as in -env 'NAME:mode=http'", "ignored", c.ignored)
	}
	p := newLocal(c.functions, defaults, log)
	stopWatching := killBeforeQuit(p.kill)
	stop = func() {
		p.close()
		stopWatching()
	}
	if err := p.start(ctx); err != nil {
		stop()
		return nil, nil, err
	}
	return p, stop, nil
}

// killBeforeQuit makes SIGQUIT kill the processes of functions first. Go's own
// handling, every goroutine's stack on STDERR and exit status 2, is kept, but would
// leave them behind.
func killBeforeQuit(kill func()) (stop func()) {
	quit := make(chan os.Signal, 1)
	if !signal.Ignored(syscall.SIGQUIT) {
		signal.Notify(quit, syscall.SIGQUIT)
	}
	stopped := make(chan struct{})
	go func() {
		select {
		case <-quit:
			kill()
			signal.Reset(syscall.SIGQUIT)
			syscall.Kill(os.Getpid(), syscall.SIGQUIT)
		case <-stopped:
		}
	}()
	return func() {
		signal.Stop(quit)
		close(stopped)
	}
}

// serve wires the parts, serves until a signal or ctx ends it, and stops them in
// reverse order. verifier checks Alexa requests; nil: they are not checked.
// listening is called with the address.
func serve(ctx context.Context, c *config, from provider, verifier *alexa.Verifier, log *slog.Logger, signals <-chan os.Signal, listening func(net.Addr)) (err error) {
	registry := newRegistry(c, from, log)
	m := newMetrics(registry.functions)
	dial := newDialer().DialContext
	transport := newTransport(c.transport, noteReached(dial))
	registry.metrics, registry.dial, registry.closeIdle = m, dial, transport.CloseIdle
	alerts := newAlerts(time.Now)
	options := scale.Options{Now: sinceEpoch, Changed: registry.scaled, WakeOnly: !c.autoscale, Leave: alerts.fires, Log: log}
	others := newGateways(c, registry, alerts.fires, verifier, m, log)
	if others != nil {
		registry.gateways, options.Others = others, others
		options.Leave = func(name string) bool { return alerts.fires(name) || others.alerts(name) }
	}
	m.registry.MustRegister(gatewaysCollector{others.known()})
	scaler := scale.New(registry.scalables, registry, options)
	registry.answering = scaler.Answering
	up := &upstream{
		transport: transport, refresh: registry.refresh, wake: scaler.Wake, log: log,
		queue: c.queue, queueTimeout: c.queueTimeout,
	}
	g := newGateway(c, registry, up, m, log)
	g.verifier = verifier
	auth := basicauth.New(c.authDir, c.provider == "local", time.Now, m.login)
	api := newAPI(from, registry, auth, alerts, c, log)
	api.async = g.async
	g.api = api
	if g.page, err = ui.Handler(access(auth)); err != nil {
		return err
	}
	defer g.cutOff()
	if err := registry.load(ctx); err != nil {
		return err
	}

	ln, err := net.Listen("tcp", c.listen)
	if err != nil {
		return fmt.Errorf("%w; -listen takes another address, such as :8081", err)
	}
	loops, stopLoops := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stopLoops()
	wg.Go(func() { registry.run(loops) })
	wg.Go(func() { scaler.Run(loops) })
	if others != nil {
		wg.Go(func() { others.run(loops) })
	}

	strict := wire.Listen(ln, m.refused)
	server := newServer(g, strict, log)
	server.RegisterOnShutdown(api.end)
	served := make(chan error, 1)
	go func() { served <- server.Serve(strict) }()
	log.Info("gateway is serving", "address", ln.Addr().String(), "provider", c.provider, "functions", len(registry.functions()), "version", thisBuild.Version)
	if c.provider == "local" { // elsewhere the port is published under another address
		log.Info("open the page in a browser", "url", pageURL(ln.Addr()))
	}
	listening(ln.Addr())

	drain := time.Duration(0)
	select {
	case err := <-served:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	case s := <-signals:
		log.Info("draining: not ready, still serving", "signal", s.String(), "drain", c.drain)
		g.draining.Store(true)
		scaler.Drain()
		others.drain()
		drain = c.drain
	}
	// Another signal exits at once, except SIGHUP, which a closing terminal may
	// send several times.
	hurried, hurry := context.WithCancel(context.Background())
	defer hurry()
	wg.Go(func() {
		for hurried.Err() == nil {
			select {
			case s := <-signals:
				if s != syscall.SIGHUP {
					hurry()
				}
			case <-hurried.Done():
			}
		}
	})
	select {
	case <-time.After(drain):
	case <-ctx.Done():
	case <-hurried.Done():
		server.Close()
		return errors.New("ended by a second signal")
	}
	// Shutdown closes a connection on which it finds a request that has not been read.
	ln.Close()
	sleep(hurried, lastRequests)
	// ctx may be done: the requests in flight get a new deadline.
	bounded, cancel := context.WithTimeout(hurried, c.shutdownTimeout)
	defer cancel()
	defer strict.EndLingering(bounded) // those have their answers: they are not cut off
	err = server.Shutdown(bounded)
	if err == nil {
		err = g.idle(bounded)
	}
	if err != nil {
		server.Close()
		return fmt.Errorf("requests in flight were cut off: %w", err)
	}
	log.Info("gateway ended, nothing was in flight any more")
	return nil
}

// access tells the page whether the API wants a login.
func access(auth *basicauth.Authenticator) func(*http.Request) ui.Access {
	return func(r *http.Request) ui.Access {
		open, refusal := auth.Open(r)
		switch {
		case refusal != nil:
			return ui.Access{State: ui.AccessClosed, Text: refusal.Text}
		case open:
			return ui.Access{State: ui.AccessOpen}
		}
		return ui.Access{State: ui.AccessLogin}
	}
}

// pageURL is where a browser on this machine finds the page.
func pageURL(at net.Addr) string {
	host, port, _ := net.SplitHostPort(at.String())
	if ip := net.ParseIP(host); ip.IsUnspecified() {
		host = "localhost"
	}
	return "http://" + net.JoinHostPort(host, port) + "/ui/"
}

// newServer makes the server of g on ln. It also accepts HTTP/2 without TLS, for
// proxies in front that speak it.
func newServer(g *gateway, ln *wire.Listener, log *slog.Logger) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:           g,
		BaseContext:       func(net.Listener) context.Context { return g.base },
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderLen,
		Protocols:         protocols,
		ConnState:         ln.ConnState,
		ConnContext:       ln.ConnContext,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
}

// checkHealth asks the gateway that listens on this machine whether it is ready.
func checkHealth(ctx context.Context, listen string, stderr io.Writer) int {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		fmt.Fprintln(stderr, "gateway: -listen:", err)
		return exitFailure
	}
	if port == "0" {
		fmt.Fprintln(stderr, "gateway: -listen: port 0 was any: name the one that the gateway logged")
		return exitFailure
	}
	if ip := net.ParseIP(host); host == "" || ip.IsUnspecified() {
		host = "localhost"
	}
	if err := healthcheck.Ask(ctx, "http://"+net.JoinHostPort(host, port)+"/healthz"); err != nil {
		fmt.Fprintln(stderr, "gateway: unhealthy:", err)
		return exitFailure
	}
	return 0
}
