package main

// Settings: flags, and environment variables of the same names.

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"strings"
	"time"
)

// config is what faas-async was told. It is read once, validated as a whole
// and never changed.
type config struct {
	listen    string
	gateway   *url.URL
	namespace string
	authDir   string
	poll      time.Duration // between two looks at the gateway's functions

	nats           string // URLs; empty: the embedded server
	natsLogin      string // file
	natsCA         string // file
	natsCert       string // file
	natsKey        string // file
	streamReplicas int
	data           string
	natsListen     string // of the embedded server; empty: it does not listen
	minFree        int64

	maxBody       int64
	queueBytes    int64
	history       int
	workers       int
	callTimeout   time.Duration
	maxAge        time.Duration
	deadRetention time.Duration
	callbacks     callbackRules

	drain           time.Duration
	shutdownTimeout time.Duration
	logLevel        slog.Level
	logFormat       string

	version        bool
	runHealthcheck bool
}

// hardMaxBody is what NATS lets through in one message, 64 MiB, less what goes
// along with a body.
const hardMaxBody = 63 << 20

// parseConfig reads the settings from args, and what args leave open from the
// environment. Usage goes to usage when it is asked for. The error joins all
// bad settings, each named; flag.ErrHelp says that usage was printed.
func parseConfig(args []string, getenv func(string) string, usage io.Writer) (config, error) {
	c := config{}
	p := settings{FlagSet: flag.NewFlagSet("faas-async", flag.ContinueOnError)}
	p.SetOutput(io.Discard)

	p.text(&c.listen, "listen", ":8081", "`address` to listen on; port 0 takes a free one, which is logged", validListen)
	p.value("gateway", "http://127.0.0.1:8080", "`URL` of the gateway, which runs the functions", func(s string) error {
		u, err := url.Parse(s)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return fmt.Errorf("%q is not a URL such as http://gateway:8080", s)
		}
		u.Path = strings.TrimSuffix(u.Path, "/")
		c.gateway = u
		return nil
	})
	p.text(&c.namespace, "namespace", "openfaas-fn", "the `name` that may follow a function's name after a dot", notEmpty)
	p.text(&c.authDir, "auth-dir", "/run/secrets", "`folder` of basic-auth-user and basic-auth-password, for the gateway's API and for dead letters", notEmpty)
	p.duration(&c.poll, "poll", 5*time.Second, "time between two looks at the gateway's list of functions")
	p.text(&c.nats, "nats", "", "`URLs` of NATS servers, separated by commas; none: the embedded one", nil)
	p.text(&c.natsLogin, "nats-credentials", "", "`file` with NATS credentials, or with one line user:password", readable)
	p.text(&c.natsCA, "nats-ca", "", "`file` with the certificates that sign the NATS servers'", readable)
	p.text(&c.natsCert, "nats-cert", "", "`file` with the certificate shown to the NATS servers", readable)
	p.text(&c.natsKey, "nats-key", "", "`file` with its key", readable)
	p.number(&c.streamReplicas, "stream-replicas", 1, 1, "NATS servers that hold each message, 1 to 5")
	p.text(&c.data, "data", "data", "embedded server: `folder` that it keeps everything in", notEmpty)
	p.text(&c.natsListen, "nats-listen", "127.0.0.1:4222", "embedded server: `address` on which NATS clients may publish to topics; none: it does not listen", func(s string) error {
		if s == "none" {
			return nil
		}
		return validListen(s)
	})
	p.size(&c.minFree, "min-free", "128MiB", "embedded server: disk `space` that calls are not accepted into")
	p.size(&c.maxBody, "max-body", "8MiB", "largest `body` of a call")
	p.size(&c.queueBytes, "queue-bytes", "1GiB", "most `bytes` of calls that wait; as much again for callbacks, topics and dead letters each")
	p.number(&c.history, "history", 100_000, 1000, "calls whose outcome is remembered, for a day at most")
	p.number(&c.workers, "workers", 64, 2, "calls that run at once; as many callbacks")
	p.duration(&c.callTimeout, "call-timeout", time.Hour, "longest run of a call; the gateway has its own limit")
	p.duration(&c.maxAge, "max-age", 24*time.Hour, "a call that still could not run after so long is given up")
	p.duration(&c.deadRetention, "dead-retention", 7*24*time.Hour, "how long a dead letter is kept")
	p.value("callback-allow", "public,gateway", "where callbacks may go: `list` of public, gateway, CIDRs and host:port, separated by commas", func(s string) (err error) {
		c.callbacks, err = parseCallbackRules(s)
		return err
	})
	p.duration(&c.drain, "drain", 2*time.Second, "after SIGTERM: not ready, still serving")
	p.duration(&c.shutdownTimeout, "shutdown-timeout", 30*time.Second, "after that running calls get this long, and are then given back")
	p.value("log-level", "info", "`level`: debug, info, warn or error", func(s string) error {
		if c.logLevel.UnmarshalText([]byte(s)) != nil {
			return fmt.Errorf("%q is none of debug, info, warn, error", s)
		}
		return nil
	})
	p.text(&c.logFormat, "log-format", "text", "`format`: text or json", oneOf("text", "json"))
	p.BoolVar(&c.version, "version", false, "print the version and exit")
	p.BoolVar(&c.runHealthcheck, "run-healthcheck", false, "ask /healthz of the configured address and exit with 0 or 1")

	err := p.parse(args, getenv)
	if errors.Is(err, flag.ErrHelp) {
		p.SetOutput(usage)
		fmt.Fprintln(usage, "Usage: faas-async [flags]\nEach flag is also an environment variable: -max-body is max_body.")
		p.PrintDefaults()
		return config{}, err
	}
	if c.natsListen == "none" {
		c.natsListen = ""
	}
	return c, errors.Join(err, c.validate())
}

// validate checks what settings say together.
func (c *config) validate() error {
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.maxBody < 1 || c.maxBody > hardMaxBody {
		add("-max-body: must be from 1 byte to 63MiB, as a NATS message has 64 MiB at most")
	}
	if c.queueBytes < 2*c.maxBody {
		add("-queue-bytes: %d is less than two bodies of -max-body", c.queueBytes)
	}
	if c.streamReplicas > 5 {
		add("-stream-replicas: %d is more than 5", c.streamReplicas)
	}
	if c.streamReplicas > 1 && c.nats == "" {
		add("-stream-replicas: needs -nats, the embedded server is one alone")
	}
	if (c.natsCert == "") != (c.natsKey == "") {
		add("-nats-cert and -nats-key: one needs the other")
	}
	if c.nats == "" && (c.natsLogin != "" || c.natsCA != "" || c.natsCert != "") {
		add("-nats-credentials, -nats-ca, -nats-cert: need -nats")
	}
	if c.workers > 4096 {
		add("-workers: %d is more than 4096", c.workers)
	}
	for name, d := range map[string]time.Duration{"poll": c.poll, "call-timeout": c.callTimeout, "max-age": c.maxAge, "dead-retention": c.deadRetention} {
		if d <= 0 {
			add("-%s: must be above 0", name)
		}
	}
	return errors.Join(errs...)
}
