package main

// Functions of the local provider, from the flags -function, -env, -label, -route
// and -samples.

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"faas/internal/naming"
	"faas/internal/settings"
	"faas/watchdog"
)

// A localFunction is a command, or replicas that run already.
type localFunction struct {
	name      string
	command   string
	addresses []string // host:port
	source    string   // what it came from, as messages name it; "": it is a sample

	env      map[string]localSetting // by key
	labels   map[string]localSetting // by label
	routes   []string                // http.ServeMux patterns
	watchdog watchdog.Config         // of a command; resolve sets it
}

// A localSetting is the value of one flag for one function.
type localSetting struct {
	function   string
	key, value string // -route has no key
	source     string // as messages name it
}

// sampleFunctions are served without any -function, if this machine has their
// programs.
var sampleFunctions = []localFunction{
	{name: "echo", command: "cat"},
	{name: "wordcount", command: "wc"},
	{name: "hash", command: "sha256sum"},
	{name: "env", command: "env"},
	{name: "HostnameIntent", command: `sh -c 'printf "{\"version\":\"1.0\",\"response\":{\"outputSpeech\":{\"type\":\"PlainText\",\"text\":\"This is %s.\"},\"shouldEndSession\":true}}" "$(uname -n)"'`},
}

// inherited are the variables of the gateway's own environment that local functions
// get. There are few, because a function may print them, as the sample env does.
var inherited = []string{"PATH", "HOME", "TMPDIR", "LANG", "TZ", "USER"}

// localFlags holds the flags' values, in their order.
type localFlags struct {
	functions []localFunction
	env       []localSetting
	labels    []localSetting
	routes    []localSetting
	samples   bool
}

// define defines the flags.
func (l *localFlags) define(p *settings.Set) {
	p.Repeatable("function", "name=command", "a function: a program that reads STDIN and writes STDOUT; or, as\nname=http://host:port[,http://host:port...], replicas that run already.\nRepeatable. The samples are served only when there is none", func(s string) error {
		f, err := parseLocalFunction(s)
		if err == nil {
			f.source = p.Source("function")
			l.functions = append(l.functions, f)
		}
		return err
	})
	p.Repeatable("env", "name:KEY=value", "a variable for one function; the settings of its watchdog are variables, too, such as\nmode=cgi. Repeatable. Of the gateway's own, functions get only\n"+strings.Join(inherited, ", "), func(s string) error {
		function, key, value, err := parseAssignment(s, "KEY")
		if err == nil {
			err = validVariable(key, value)
		}
		if err == nil {
			l.env = append(l.env, localSetting{function, key, value, p.Source("env")})
		}
		return err
	})
	p.Repeatable("label", "name:label=value", "a label of one function, as it would be on its service on a Swarm, such as\nfaas.timeout=5m. Repeatable", func(s string) error {
		function, label, value, err := parseAssignment(s, "label")
		if err == nil {
			err = validLocalLabel(label)
		}
		if err == nil {
			l.labels = append(l.labels, localSetting{function, label, value, p.Source("label")})
		}
		return err
	})
	p.Repeatable("route", "PATTERN=name", "serves a function at a http.ServeMux pattern, too, as in 'POST /shout/{who}=shout'.\nRepeatable", func(s string) error {
		pattern, function, err := parseRouteFlag(s)
		if err == nil {
			l.routes = append(l.routes, localSetting{function: function, value: pattern, source: p.Source("route")})
		}
		return err
	})
	var names []string
	for _, f := range sampleFunctions {
		names = append(names, f.name)
	}
	p.Boolean(&l.samples, "samples", "", "serve the samples beside what -function names; false: never.\nThey are "+strings.Join(names, ", "))
}

// parseLocalFunction parses the value of -function.
func parseLocalFunction(s string) (localFunction, error) {
	name, value, ok := strings.Cut(s, "=")
	if !ok {
		return localFunction{}, fmt.Errorf("%q: want name=command or name=http://host:port", s)
	}
	f := localFunction{name: name, command: value}
	if !naming.IsFunction(name) {
		return f, badName(name)
	}
	words, err := watchdog.SplitCommand(value)
	switch {
	case err != nil:
		return f, fmt.Errorf("%s: %w: close or escape it in %q", name, err, value)
	case len(words) == 0 || words[0] == "":
		return f, fmt.Errorf("%s: it has no command: want name=command, as in shout='tr a-z A-Z'", name)
	case !strings.Contains(words[0], "://"):
		if _, port, err := net.SplitHostPort(value); err == nil && validPort(port) {
			return f, fmt.Errorf("%s: %q is an address: replicas that run already are given as http://%[2]s", name, value)
		}
		return f, nil
	}
	f.command = ""
	for _, v := range settings.SplitList(value) {
		address, err := parseReplica(v)
		if err != nil {
			return f, fmt.Errorf("%s: %w", name, err)
		}
		f.addresses = append(f.addresses, address)
	}
	return f, nil
}

// parseReplica returns host:port of a URL http://host:port.
func parseReplica(s string) (string, error) {
	u, err := url.Parse(s)
	if err == nil && u.Scheme == "https" {
		return "", fmt.Errorf("%q: the gateway speaks plain HTTP to replicas, not HTTPS: give the address of a port without TLS, as http://host:port", s)
	}
	if err != nil || u.Scheme != "http" || u.Hostname() == "" || u.User != nil || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("%q is not http://host:port", s)
	}
	port := cmp.Or(u.Port(), "80")
	if !validPort(port) {
		return "", fmt.Errorf("%q: port %s is not a number from 1 to 65535", s, port)
	}
	return net.JoinHostPort(u.Hostname(), port), nil
}

func validPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

// parseAssignment parses a flag's value for one function, name:key=value. what is
// the word for the key in messages.
func parseAssignment(s, what string) (function, key, value string, err error) {
	function, rest, colon := strings.Cut(s, ":")
	key, value, equals := strings.Cut(rest, "=")
	switch {
	case !colon || !equals || key == "":
		return function, "", "", fmt.Errorf("%q: want name:%s=value", s, what)
	case !naming.IsFunction(function):
		return function, "", "", badName(function)
	}
	return function, key, value, nil
}

func badName(name string) error {
	return fmt.Errorf("%q is not a function's name: a letter or digit, then letters, digits and ._-, %d at most", name, naming.MaxLen)
}

// validVariable checks a variable for a function.
func validVariable(key, value string) error {
	for i := range len(key) {
		if c := key[i]; !isAlnum(c) && c != '_' || i == 0 && c >= '0' && c <= '9' {
			return fmt.Errorf("%q is not a variable's name: letters, digits and underscores", key)
		}
	}
	if key == "fprocess" || key == "function_process" {
		return fmt.Errorf("%s: the command of a function is what -function says", key)
	}
	if strings.Contains(value, "\x00") {
		return fmt.Errorf("%s: a NUL byte, which no variable can hold", key)
	}
	return nil
}

// resolve returns the functions that the flags describe, ready to run, and adds
// errors to p. c has all other settings.
func (l *localFlags) resolve(p *settings.Set, c *config, getenv func(string) string) []localFunction {
	var functions []localFunction
	find := func(name string) *localFunction {
		i := slices.IndexFunc(functions, func(f localFunction) bool { return f.name == name })
		if i < 0 {
			return nil
		}
		return &functions[i]
	}
	given := l.functions
	if l.samples || len(given) == 0 && !p.Given("samples") {
		given = slices.Concat(c.findSamples(), given)
	}
	for _, f := range given {
		if earlier := find(f.name); earlier != nil {
			*earlier = f // and its command need not exist
		} else {
			functions = append(functions, f)
		}
	}
	for _, s := range slices.Concat(l.env, l.labels, l.routes) {
		f := find(s.function)
		switch {
		case f == nil && p.Failed("function"): // it may be the invalid one
		case f == nil:
			p.Bad(s.source, fmt.Errorf("there is no function %q", s.function))
		case s.key == "":
			f.routes = append(f.routes, s.value)
		case isLabel(s.key):
			if f.labels == nil {
				f.labels = map[string]localSetting{}
			}
			f.labels[s.key] = s
		case f.addresses != nil:
			p.Bad(s.source, fmt.Errorf("%s:%s: the replicas of %[1]s run already: set it where they were started", s.function, s.key))
		default:
			if f.env == nil {
				f.env = map[string]localSetting{}
			}
			f.env[s.key] = s
		}
	}
	functions = slices.DeleteFunc(functions, func(f localFunction) bool { return isNoFunction(f.labelValues()) })
	_, listen, _ := net.SplitHostPort(c.listen)
	servers := map[string]string{listen: "the gateway"} // by port
	for i := range functions {
		f := &functions[i]
		d := f.checkLabels(p, c)
		if f.addresses == nil {
			f.resolve(p, c, getenv, d.timeout)
			f.claimPort(p, servers)
		}
	}
	slices.Sort(c.ignored)
	c.ignored = slices.Compact(c.ignored)
	return functions
}

// findSamples returns the samples whose programs this machine has.
func (c *config) findSamples() []localFunction {
	var samples []localFunction
	for _, f := range sampleFunctions {
		program, _, _ := strings.Cut(f.command, " ")
		if _, err := exec.LookPath(program); err != nil {
			c.missing = append(c.missing, f.name)
			continue
		}
		samples = append(samples, f)
	}
	return samples
}

// resolve reads the settings of the command's watchdog: as in an image they are
// variables of the function's environment. Those in the gateway's own environment
// are ignored, so that one function's mode does not apply to all. timeout is the
// longest invocation.
func (f *localFunction) resolve(p *settings.Set, c *config, getenv func(string) string, timeout time.Duration) {
	var err error
	f.watchdog, err = watchdog.ParseConfig(func(name string) string {
		switch name {
		case "fprocess":
			return f.command
		case "suppress_lock":
			return "true"
		case "port":
			return "0" // any
		}
		v := f.env[name].value
		if v == "" && getenv(name) != "" {
			c.ignored = append(c.ignored, name)
		}
		if v == "" && name == "exec_timeout" {
			return timeout.String()
		}
		return v
	})
	if err != nil {
		for line := range strings.Lines(err.Error()) {
			name, text, _ := strings.Cut(line, ": ")
			if name == "fprocess" {
				p.Bad(f.source, fmt.Errorf("%s: %s", f.name, text))
			} else {
				p.Bad(cmp.Or(f.env[name].source, "-env"), fmt.Errorf("%s:%s: %s", f.name, name, text))
			}
		}
		return
	}
	f.watchdog.Env = []string{}
	for _, name := range inherited {
		if _, own := f.env[name]; !own && getenv(name) != "" {
			f.watchdog.Env = append(f.watchdog.Env, name+"="+getenv(name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(f.env)) {
		f.watchdog.Env = append(f.watchdog.Env, name+"="+f.env[name].value)
	}
}

// claimPort checks that no other program uses the port of a program that serves by
// itself: one would answer for the other, or could not start.
func (f *localFunction) claimPort(p *settings.Set, servers map[string]string) {
	if f.watchdog.Mode != watchdog.ModeHTTP {
		return
	}
	u, err := url.Parse(f.watchdog.UpstreamURL)
	if err != nil {
		return // ParseConfig has reported it
	}
	port := cmp.Or(u.Port(), "80")
	if other := servers[port]; other != "" {
		source := cmp.Or(f.env["upstream_url"].source, "-env")
		p.Bad(source, fmt.Errorf("%s:upstream_url: port %s is %s's: have the program serve at another one, and say so as in -env '%[1]s:upstream_url=http://127.0.0.1:8083'", f.name, port, other))
	}
	servers[port] = "function " + f.name
}
