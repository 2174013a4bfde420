package main

// Settings: flags, and environment variables of the same names.

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// config is what the gateway was told. It is read once, validated as a whole
// and never changed.
type config struct {
	listen          string
	provider        string // "local" or "swarm"
	network         string
	functions       []localFunction
	routes          []localRoute
	upstreamTimeout time.Duration
	maxInflight     int
	queue           int
	queueTimeout    time.Duration
	scale           scaleLimits
	autoscale       bool
	drain           time.Duration
	shutdownTimeout time.Duration
	logLevel        slog.Level
	logFormat       string
	accessLog       bool
	trustedProxies  []netip.Prefix
	transport       string // "direct" or "std"

	alexaVerify       bool
	alexaApplications []string
	alexaRoute        string

	version        bool
	runHealthcheck bool
}

// A localFunction is one -function flag: a command, or replicas that run
// already.
type localFunction struct {
	name      string
	command   string
	addresses []string // host:port
}

// A localRoute is one -route flag.
type localRoute struct{ pattern, name string }

// sampleFunctions are what the local provider serves without any -function.
// They use nothing that a Unix does not have.
var sampleFunctions = []string{
	"echo=cat",
	"wordcount=wc",
	"hash=sha256sum",
	"env=env",
	`HostnameIntent=sh -c 'printf "{\"version\":\"1.0\",\"response\":{\"outputSpeech\":{\"type\":\"PlainText\",\"text\":\"This is %s.\"},\"shouldEndSession\":true}}" "$(uname -n)"'`,
}

// parseConfig reads the settings from args, and what args leave open from the
// environment. Usage goes to usage when it is asked for. The error joins all
// bad settings, each named; flag.ErrHelp says that usage was printed.
func parseConfig(args []string, getenv func(string) string, usage io.Writer) (config, error) {
	c := config{autoscale: true, scale: scaleLimits{zeroDuration: defaultZeroDuration, factor: defaultScaleFactor}}
	p := settings{FlagSet: flag.NewFlagSet("gateway", flag.ContinueOnError)}
	p.SetOutput(io.Discard)

	for _, sample := range sampleFunctions {
		f, err := parseLocalFunction(sample)
		if err != nil {
			return config{}, fmt.Errorf("sample function: %w", err)
		}
		c.functions = append(c.functions, f)
	}
	p.text(&c.listen, "listen", ":8080", "`address` to listen on; port 0 takes a free one, which is logged", validListen)
	p.text(&c.provider, "provider", "local", "where functions run: `local` or swarm", oneOf("local", "swarm"))
	p.text(&c.network, "network", "functions", "swarm: the overlay `network` whose services are functions", notEmpty)
	p.list("function", "local: `name=command`, or name=http://host:port[,http://host:port...] for replicas that run already; repeatable", func(s string) error {
		f, err := parseLocalFunction(s)
		if err == nil {
			c.functions = append(c.functions, f)
		}
		return err
	})
	p.list("route", "local: `'PATTERN=name'` serves a function at a http.ServeMux pattern too; repeatable", func(s string) error {
		pattern, name, err := parseRouteFlag(s)
		if err == nil {
			c.routes = append(c.routes, localRoute{pattern, name})
		}
		return err
	})
	p.duration(&c.upstreamTimeout, "upstream-timeout", 60*time.Second, "longest invocation")
	p.number(&c.maxInflight, "max-inflight", 0, 0, "requests in flight per function, more get 429; 0 is no limit")
	p.number(&c.queue, "queue", 1000, 0, "callers held per function while it has no ready replica")
	p.duration(&c.queueTimeout, "queue-timeout", 30*time.Second, "longest wait for a replica to become ready")
	p.text(&c.scale.kind, "scale-type", scaleCapacity, "what is counted as load: `capacity` (requests in flight) or rps", oneOf(scaleCapacity, scaleRPS))
	p.list1("scale-target", "10", "load per `replica`", func(s string) error {
		f, err := strconv.ParseFloat(s, 64)
		if err != nil || !(f > 0 && f <= 1e9) {
			return fmt.Errorf("%q is not a number above 0", s)
		}
		c.scale.target = f
		return nil
	})
	p.number(&c.scale.min, "scale-min", 1, 0, "fewest replicas")
	p.number(&c.scale.max, "scale-max", 20, 1, "most replicas")
	p.truth(&c.autoscale, "autoscale", "replicas follow the load; false: the gateway only wakes functions that have none")
	p.duration(&c.drain, "drain", 5*time.Second, "after SIGTERM: not ready, still serving")
	p.duration(&c.shutdownTimeout, "shutdown-timeout", 60*time.Second, "after that requests in flight get this long")
	p.list1("log-level", "info", "`level`: debug, info, warn or error", func(s string) error {
		if c.logLevel.UnmarshalText([]byte(s)) != nil {
			return fmt.Errorf("%q is none of debug, info, warn, error", s)
		}
		return nil
	})
	p.text(&c.logFormat, "log-format", "text", "`format`: text or json", oneOf("text", "json"))
	p.truth(&c.accessLog, "access-log", "one log line per invocation")
	p.list1("trusted-proxies", "", "`CIDRs` whose X-Forwarded-* headers are kept and appended to, separated by commas", func(s string) (err error) {
		c.trustedProxies, err = parseTrustedProxies(s)
		return err
	})
	p.text(&c.transport, "transport", "direct", "connections to replicas: `direct`, or std for net/http's Transport", oneOf("direct", "std"))
	p.truth(&c.alexaVerify, "alexa-verify", "accept Alexa requests only with Amazon's signature")
	p.list1("alexa-application", "", "skill `IDs` that are accepted, separated by commas; needs -alexa-verify", func(s string) error {
		c.alexaApplications = splitList(s)
		return nil
	})
	p.text(&c.alexaRoute, "alexa-route", "/", "`path` on which Alexa requests are accepted; on one other than / nothing else is", validAlexaRoute)
	p.BoolVar(&c.version, "version", false, "print the version and exit")
	p.BoolVar(&c.runHealthcheck, "run-healthcheck", false, "ask /healthz of the configured address and exit with 0 or 1")

	err := p.parse(args, getenv)
	if errors.Is(err, flag.ErrHelp) {
		p.SetOutput(usage)
		fmt.Fprintln(usage, "Usage: gateway [flags]\nEach flag is also an environment variable: -upstream-timeout is upstream_timeout.")
		p.PrintDefaults()
		return config{}, err
	}
	return c, errors.Join(err, c.validate())
}

// validate checks what settings say together.
func (c *config) validate() error {
	var errs []error
	if c.scale.max > maxScale {
		errs = append(errs, fmt.Errorf("-scale-max: %d is more than %d", c.scale.max, maxScale))
	}
	if c.scale.min > c.scale.max {
		errs = append(errs, fmt.Errorf("-scale-min: %d is more than -scale-max, %d", c.scale.min, c.scale.max))
	}
	if c.provider == "swarm" && len(c.functions) > len(sampleFunctions) || c.provider == "swarm" && len(c.routes) > 0 {
		errs = append(errs, errors.New("-function and -route: only with -provider local; on Swarm functions are services, and routes their label faas.route"))
	}
	if len(c.alexaApplications) > 0 && !c.alexaVerify {
		errs = append(errs, errors.New("-alexa-application: needs -alexa-verify, without it nothing is checked"))
	}
	if c.upstreamTimeout == 0 {
		errs = append(errs, errors.New("-upstream-timeout: must be above 0"))
	}
	if c.queueTimeout == 0 {
		errs = append(errs, errors.New("-queue-timeout: must be above 0"))
	}
	return errors.Join(errs...)
}

// settings is a FlagSet that goes on after a bad value, so that all of them
// are reported at once.
type settings struct {
	*flag.FlagSet
	lists []string // flags whose variable may hold several lines
	errs  []error
}

func (p *settings) parse(args []string, getenv func(string) string) error {
	for err := p.Parse(args); err != nil; err = p.Parse(p.Args()) { // which begins behind the bad one
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		p.errs = append(p.errs, err)
	}
	if p.NArg() > 0 {
		p.errs = append(p.errs, fmt.Errorf("unexpected argument %q: settings are flags, as in -listen :8080", p.Arg(0)))
	}
	given := map[string]bool{"version": true, "run-healthcheck": true}
	p.Visit(func(f *flag.Flag) { given[f.Name] = true })
	p.VisitAll(func(f *flag.Flag) {
		value := getenv(strings.ReplaceAll(f.Name, "-", "_"))
		if value == "" || given[f.Name] {
			return
		}
		values := []string{value}
		if slices.Contains(p.lists, f.Name) {
			values = strings.FieldsFunc(value, func(r rune) bool { return r == '\n' })
		}
		for _, v := range values {
			if err := f.Value.Set(v); err != nil {
				p.errs = append(p.errs, fmt.Errorf("-%s: %w", f.Name, err))
			}
		}
	})
	return errors.Join(p.errs...)
}

// list1 defines a flag with a value that set takes; its error is kept for
// later, under the flag's name.
func (p *settings) list1(name, def, usage string, set func(string) error) {
	if def != "" {
		usage += " (default " + def + ")"
		if err := set(def); err != nil {
			panic("default of -" + name + ": " + err.Error())
		}
	}
	p.Func(name, usage, func(s string) error {
		if err := set(s); err != nil {
			p.errs = append(p.errs, fmt.Errorf("-%s: %w", name, err))
		}
		return nil
	})
}

// list is list1 for a flag that may be repeated; its variable holds one value
// a line.
func (p *settings) list(name, usage string, add func(string) error) {
	p.lists = append(p.lists, name)
	p.list1(name, "", usage, add)
}

func (p *settings) text(v *string, name, def, usage string, valid func(string) error) {
	p.list1(name, def, usage, func(s string) error {
		if err := valid(s); err != nil {
			return err
		}
		*v = s
		return nil
	})
}

func (p *settings) number(v *int, name string, def, least int, usage string) {
	p.list1(name, strconv.Itoa(def), usage, func(s string) error {
		n, err := strconv.Atoi(s)
		if err != nil || n < least {
			return fmt.Errorf("%q is not a whole number from %d up", s, least)
		}
		*v = n
		return nil
	})
}

func (p *settings) duration(v *time.Duration, name string, def time.Duration, usage string) {
	p.list1(name, def.String(), usage, func(s string) (err error) {
		*v, err = parseDuration(s)
		return err
	})
}

func (p *settings) truth(v *bool, name, usage string) {
	p.BoolFunc(name, usage, func(s string) error {
		b, err := strconv.ParseBool(s)
		if err != nil {
			p.errs = append(p.errs, fmt.Errorf("-%s: %q is neither true nor false", name, s))
			return nil
		}
		*v = b
		return nil
	})
}

// parseDuration takes a Go duration or whole seconds, not below 0.
func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if seconds, e := strconv.Atoi(s); e == nil && int64(seconds) <= int64(time.Duration(1<<63-1)/time.Second) {
		d, err = time.Duration(seconds)*time.Second, nil
	}
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is not a duration such as 30s or 1m30s, nor whole seconds", s)
	}
	return d, nil
}

func parseLocalFunction(s string) (localFunction, error) {
	name, value, ok := strings.Cut(s, "=")
	if !ok {
		return localFunction{}, fmt.Errorf("%q: want name=command or name=http://host:port", s)
	}
	if !validName(name) {
		return localFunction{}, fmt.Errorf("%q is not a name: a letter or digit, then letters, digits and ._-, %d at most", name, maxNameLen)
	}
	f := localFunction{name: name}
	if !strings.HasPrefix(value, "http://") {
		f.command = value
		return f, nil
	}
	for _, v := range splitList(value) {
		u, err := url.Parse(v)
		if err != nil || u.Scheme != "http" || u.Hostname() == "" || u.User != nil || (u.Path != "" && u.Path != "/") || u.RawQuery != "" {
			return localFunction{}, fmt.Errorf("function %s: %q is not http://host:port", name, v)
		}
		port := u.Port()
		if port == "" {
			port = "80"
		}
		f.addresses = append(f.addresses, net.JoinHostPort(u.Hostname(), port))
	}
	return f, nil
}

func splitList(s string) []string {
	var list []string
	for v := range strings.SplitSeq(s, ",") {
		if v = strings.TrimSpace(v); v != "" {
			list = append(list, v)
		}
	}
	return list
}

func notEmpty(s string) error {
	if s == "" {
		return errors.New("must not be empty")
	}
	return nil
}

func oneOf(values ...string) func(string) error {
	return func(s string) error {
		if !slices.Contains(values, s) {
			return fmt.Errorf("%q is none of %s", s, strings.Join(values, ", "))
		}
		return nil
	}
}

func validListen(s string) error {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("%q is not an address such as :8080 or 127.0.0.1:8080", s)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q: port %q is not a number from 0 to 65535", s, port)
	} else if n > 65535 {
		return fmt.Errorf("%q: port above 65535", s)
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
