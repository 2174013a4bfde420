package main

// The gateway's settings and their validation.

import (
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"faas/internal/naming"
	"faas/internal/scale"
	"faas/internal/settings"
)

// config holds the gateway's settings. It is read once, validated as a whole and
// never changed.
type config struct {
	listen          string
	provider        string // "local" or "swarm"
	network         string
	functions       []localFunction // of the local provider
	upstreamTimeout time.Duration
	maxInflight     int
	queue           int
	queueTimeout    time.Duration
	scale           scale.Limits
	autoscale       bool
	drain           time.Duration
	shutdownTimeout time.Duration
	logLevel        slog.Level
	logFormat       string
	accessLog       bool
	trustedProxies  []netip.Prefix
	transport       string   // "direct" or "std"
	async           *url.URL // where asynchronous calls are kept; nil: nowhere
	peers           []string // host:port of other gateways; none: it is alone
	peerListen      string   // where it answers them

	alexaVerify       bool
	alexaApplications []string
	alexaRoute        string

	namespace      string // the only one
	authDir        string
	registryConfig string

	version        bool
	runHealthcheck bool

	missing []string // samples whose programs this machine does not have
	ignored []string // variables of the gateway that would be settings of a watchdog
}

// defaults returns the definition of a function without labels.
func (c *config) defaults() definition {
	return definition{port: 8080, timeout: c.upstreamTimeout, maxInflight: c.maxInflight, scale: c.scale}
}

// parseConfig reads the settings from args, and those not in args from the
// environment. For -help it prints the usage to usage and returns flag.ErrHelp.
// Otherwise the error joins one error per invalid setting, each with its name.
func parseConfig(args []string, getenv func(string) string, usage io.Writer) (config, error) {
	c := config{scale: scale.Limits{ZeroDuration: defaultZeroDuration, Factor: defaultScaleFactor}}
	p := settings.New("gateway")
	var local localFlags

	p.Group = "The gateway"
	p.Text(&c.listen, "listen", "address", ":8080", "where it serves; port 0 takes a free one, which is logged", validListen)
	p.Choice(&c.provider, "provider", "local|swarm", "where functions run: as programs of this machine, or as services of a Docker Swarm")
	p.Text(&c.network, "network", "name", "functions", "swarm: the overlay network whose services are functions", settings.NotEmpty)
	p.Choice(&c.transport, "transport", "direct|std", "how replicas are talked to; std is net/http's Transport")
	p.Define(settings.Setting{Name: "trusted-proxies", Kind: "CIDR,...", Meaning: "networks whose X-Forwarded-* headers are kept and appended to; others' are replaced", Set: func(s string) (err error) {
		c.trustedProxies, err = parseTrustedProxies(s)
		return err
	}})

	p.Define(settings.Setting{Name: "async", Kind: "URL", Meaning: "of faas-async, which takes what is below /async-function/; without it that is 501", Set: func(s string) (err error) {
		c.async, err = parseAsyncURL(s)
		return err
	}})

	p.Group = "Several gateways"
	p.Define(settings.Setting{Name: "peers", Kind: "host:port,...", Meaning: "where the gateways in front of the same functions answer each other; a host that stands\nfor several, such as tasks.SERVICE.NETWORK on Swarm, names all of them", Set: func(s string) error {
		c.peers = settings.SplitList(s)
		return validPeers(c.peers)
	}})
	p.Text(&c.peerListen, "peer-listen", "address", "", "where it answers them, as in :8081: on the network that leads to them, and nobody else", validPeerListen)

	p.Group = "Functions of this machine (-provider local)"
	local.define(p)

	p.Group = "Limits"
	p.Duration(&c.upstreamTimeout, "upstream-timeout", "60s", time.Millisecond, "longest invocation, waiting for a replica included")
	p.Number(&c.maxInflight, "max-inflight", "0", 0, math.MaxInt, "invocations at once per function; more get 429; 0 is no limit")
	p.Number(&c.queue, "queue", "1000", 0, math.MaxInt, "callers held per function while it has no ready replica; more get 429")
	p.Duration(&c.queueTimeout, "queue-timeout", "30s", time.Millisecond, "longest wait for a replica to become ready; then 503")

	p.Group = "Scaling, of functions without labels"
	p.Boolean(&c.autoscale, "autoscale", "true", "replicas follow the load; false: the gateway only wakes functions that have none")
	p.Choice(&c.scale.Kind, "scale-type", scale.Capacity+"|"+scale.RPS, "what is counted as load: invocations in flight, or started per second")
	p.Define(settings.Setting{Name: "scale-target", Kind: "number", Def: "10", Meaning: "load that one replica takes", Set: func(s string) error {
		f, err := strconv.ParseFloat(s, 64)
		if err != nil || !(f > 0 && f <= maxScaleTarget) {
			return fmt.Errorf("%q is not a number above 0, up to %.0f", s, float64(maxScaleTarget))
		}
		c.scale.Target = f
		return nil
	}})
	p.Number(&c.scale.Min, "scale-min", "1", 0, scale.MaxReplicas, "fewest replicas of a function in use; 0 is as 1")
	p.Number(&c.scale.Max, "scale-max", "20", 1, scale.MaxReplicas, "most replicas")

	p.Group = "Alexa"
	p.Text(&c.alexaRoute, "alexa-route", "path", "/", "where Alexa requests are accepted; on a path other than / nothing else is", validAlexaRoute)
	p.Boolean(&c.alexaVerify, "alexa-verify", "false", "accept Alexa requests only with Amazon's signature")
	p.Define(settings.Setting{Name: "alexa-application", Kind: "ID,...", Meaning: "skills that are accepted; needs -alexa-verify", Set: func(s string) error {
		if c.alexaApplications = settings.SplitList(s); len(c.alexaApplications) == 0 {
			return fmt.Errorf("%q names no skill", s)
		}
		return nil
	}})

	p.Group = "Shutdown, on SIGTERM, SIGINT or SIGHUP"
	p.Duration(&c.drain, "drain", "5s", 0, "first it is unhealthy and serves as before, for so long")
	p.Duration(&c.shutdownTimeout, "shutdown-timeout", "60s", 0, "then what is in flight gets so long")

	p.Group = "Control plane"
	p.Text(&c.namespace, "namespace", "name", "openfaas-fn", "the one that all functions are in: NAME.NAMESPACE names one as well", validNamespace)
	p.Text(&c.authDir, "auth-dir", "folder", "/run/secrets", "has the files basic-auth-user and basic-auth-password; without them /system/ is closed, or with -provider local open to this machine alone", settings.NotEmpty)
	p.Text(&c.registryConfig, "registry-config", "file", "", "swarm: credentials for private registries, in the format of Docker's config.json", func(string) error { return nil })

	p.Group = "Logs"
	p.Define(settings.Setting{Name: "log-level", Kind: "debug|info|warn|error", Def: "info", Meaning: "the least severe level that is logged", Set: func(s string) error {
		if c.logLevel.UnmarshalText([]byte(s)) != nil {
			return fmt.Errorf("%q is none of debug, info, warn, error", s)
		}
		return nil
	}})
	p.Choice(&c.logFormat, "log-format", "text|json", "of each line")
	p.Boolean(&c.accessLog, "access-log", "false", "one line per invocation")

	p.Group = "Instead of serving"
	p.Action(&c.version, "version", "print the version and exit")
	p.Action(&c.runHealthcheck, "run-healthcheck", "ask /healthz of the configured address and exit with 0 or 1")

	if err := p.Parse(args, getenv); err != nil {
		fmt.Fprint(usage, usageHead)
		p.Usage(usage)
		return config{}, err
	}
	c.validate(p)
	if c.provider == "local" && !c.version && !c.runHealthcheck {
		c.functions = local.resolve(p, &c, getenv)
	}
	return c, p.Err()
}

const usageHead = `Usage: gateway [flags]

The way into functions: programs of this machine, or services of a Docker Swarm.
For example, in two terminals:

  gateway -function 'shout=tr a-z A-Z' -route 'POST /shout=shout'
  curl -d hello localhost:8080/function/shout

A duration is 30s, 1m30s or whole seconds; a bool is set by -NAME or -NAME=false.
Each flag can be an environment variable: -upstream-timeout is
FAAS_UPSTREAM_TIMEOUT, or upstream_timeout. The flag wins over both, and the
name with FAAS_ over the one without. A flag that is repeatable has a value on
each line of its variable.
`

// validate checks combinations of settings.
func (c *config) validate(p *settings.Set) {
	bad := func(name, format string, args ...any) { p.Bad(p.Source(name), fmt.Errorf(format, args...)) }
	if c.scale.Min > c.scale.Max {
		bad("scale-min", "%d is more than -scale-max, %d", c.scale.Min, c.scale.Max)
	}
	if c.provider == "local" && c.scale.Max > maxLocalReplicas {
		bad("scale-max", "%d is more than %d, the most with -provider local", c.scale.Max, maxLocalReplicas)
	}
	if len(c.peers) > 0 && c.peerListen == "" {
		bad("peers", "needs -peer-listen, as in :8081, where the others find this gateway")
	}
	if len(c.peers) == 0 && c.peerListen != "" {
		bad("peer-listen", "needs -peers, which names the gateways that may call")
	}
	if len(c.alexaApplications) > 0 && !c.alexaVerify {
		bad("alexa-application", "needs -alexa-verify, without it nothing is checked")
	}
	if c.provider != "swarm" {
		return
	}
	for _, only := range []struct{ name, instead string }{
		{"function", "a function is a service on the functions network"},
		{"env", "a function's environment is its service's"},
		{"label", "a function's labels are its service's"},
		{"route", "a function's routes are its service's label " + labelRoute},
		{"samples", "samples are services of the stack"},
	} {
		if p.Given(only.name) {
			bad(only.name, "only with -provider local; on Swarm %s", only.instead)
		}
	}
}

func newLogger(c *config, w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.logLevel}
	if c.logFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

func validListen(s string) error {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("%q is not an address such as :8080 or 127.0.0.1:8080", s)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q: port %q is not a number from 0 to 65535", s, port)
	}
	return nil
}

func validAlexaRoute(s string) error {
	if s == "/" {
		return nil
	}
	if !strings.HasPrefix(s, "/") || strings.ContainsAny(s, "{}%?# ") {
		return fmt.Errorf("%q is not a plain path such as /alexa", s)
	}
	return reservedPath(s)
}

func validNamespace(s string) error {
	if !naming.IsFunction(s) || strings.Contains(s, ".") {
		return fmt.Errorf("%q is not a name: a letter or digit, then letters, digits, _ and -, %d at most", s, naming.MaxLen)
	}
	return nil
}
