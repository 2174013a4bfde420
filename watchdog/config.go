package watchdog

// Settings: what they are, where they come from, what is wrong with them.

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// The modes of a function.
const (
	ModeFork      = "fork"      // a process per request, STDIN to STDOUT
	ModeStreaming = "streaming" // as fork, and each write is flushed at once
	ModeCGI       = "cgi"       // a process per request, as RFC 3875 has it
	ModeHTTP      = "http"      // one process that is an HTTP server
)

// Config holds the settings of one function. ParseConfig fills in the
// defaults; in a Config made by hand a zero field means what its comment says.
type Config struct {
	Command []string // program and arguments; required
	Mode    string   // one of the Mode constants; "" is ModeFork
	Port    int      // where fwatchdog listens; the Handler itself does not

	ExecTimeout  time.Duration // longest invocation; 0: no limit
	ReadTimeout  time.Duration // longest wait for the client to send more; 0: no limit
	WriteTimeout time.Duration // longest wait for the client to take more; 0: no limit

	HealthcheckInterval time.Duration // how long fwatchdog serves after SIGTERM while unhealthy

	MaxInflight  int    // invocations at a time; 0: no limit
	ContentType  string // of the response; "": the request's, or else application/octet-stream
	CGIHeaders   bool   // hand the request over as Http_* variables
	CombineOut   bool   // STDERR goes into the response, too
	PrefixLogs   bool   // STDERR goes to the log line by line; false: it is the watchdog's own STDERR
	BufferOutput int    // bytes of output held back; 0: none
	Prefork      int    // processes started ahead; 0: none
	UpstreamURL  string // ModeHTTP: where the process serves
	LockFile     string // exists while the function is healthy; "": no such file

	// Env is the environment that processes start from, each entry
	// name=value; nil means os.Environ(). It is no setting of fwatchdog.
	Env []string
}

// ParseConfig reads the settings of contract.md from getenv, fills in the
// defaults and checks them all, the command's existence included. Its error
// joins one error per bad setting; each names its variable.
func ParseConfig(getenv func(string) string) (Config, error) {
	p := settings{getenv: getenv}
	c := Config{
		Mode:                p.oneOf("mode", ModeFork, ModeStreaming, ModeCGI, ModeHTTP),
		Port:                p.integer("port", 8080, 0, 65535),
		ExecTimeout:         p.duration("exec_timeout", 30*time.Second),
		ReadTimeout:         p.duration("read_timeout", 30*time.Second),
		WriteTimeout:        p.duration("write_timeout", 30*time.Second),
		HealthcheckInterval: p.duration("healthcheck_interval", 2*time.Second),
		MaxInflight:         p.integer("max_inflight", 0, 0, 1<<20),
		ContentType:         getenv("content_type"),
		CGIHeaders:          p.boolean("cgi_headers", true),
		CombineOut:          p.boolean("combine_output", false),
		PrefixLogs:          p.boolean("prefix_logs", true),
		BufferOutput:        p.size("buffer_output", 1<<20),
		Prefork:             p.integer("prefork", 0, 0, 1024),
		UpstreamURL:         p.text("upstream_url", "http://127.0.0.1:8082"),
	}
	if !p.boolean("suppress_lock", false) {
		dir := getenv("TMPDIR")
		if dir == "" {
			dir = os.TempDir()
		}
		c.LockFile = filepath.Join(dir, ".lock")
	}
	name, line := "fprocess", getenv("fprocess")
	if line == "" && getenv("function_process") != "" {
		name, line = "function_process", getenv("function_process")
	}
	words, err := SplitCommand(line)
	if err != nil {
		p.errs = append(p.errs, fmt.Errorf("%s: %w: close or escape it in %q", name, err, line))
	} else {
		c.Command = words
		p.errs = append(p.errs, c.validate(name)...)
	}
	if err := errors.Join(p.errs...); err != nil {
		return Config{}, err
	}
	return c, nil
}

// validate checks what one setting means for another and what a caller that
// fills a Config by hand can get wrong. command is the name under which the
// command was given.
func (c *Config) validate(command string) []error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	if len(c.Command) == 0 || c.Command[0] == "" {
		bad("%s: no command: set it to the program that answers requests, for example %s=cat", command, command)
	} else if _, err := exec.LookPath(c.Command[0]); err != nil {
		bad("%s: %w: install the program or give its full path", command, err)
	}
	for _, word := range c.Command {
		if strings.IndexByte(word, 0) >= 0 {
			bad("%s: NUL byte, which no argument can hold: remove it", command)
			break
		}
	}
	switch c.Mode {
	case "", ModeFork, ModeStreaming, ModeCGI, ModeHTTP:
	default:
		bad("mode: %q is none of %s, %s, %s, %s", c.Mode, ModeFork, ModeStreaming, ModeCGI, ModeHTTP)
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"exec_timeout", c.ExecTimeout},
		{"read_timeout", c.ReadTimeout},
		{"write_timeout", c.WriteTimeout},
		{"healthcheck_interval", c.HealthcheckInterval},
	} {
		if d.value < 0 {
			bad("%s: %s is negative: use 0 for none", d.name, d.value)
		}
	}
	for _, n := range []struct {
		name  string
		value int
	}{
		{"max_inflight", c.MaxInflight},
		{"buffer_output", c.BufferOutput},
		{"prefork", c.Prefork},
	} {
		if n.value < 0 {
			bad("%s: %d is negative: use 0 for none", n.name, n.value)
		}
	}
	if strings.ContainsAny(c.ContentType, "\r\n\x00") {
		bad("content_type: %q holds a control character: remove it", c.ContentType)
	}
	if c.Prefork > 0 {
		switch {
		case c.Mode == ModeCGI || c.Mode == ModeHTTP:
			bad("prefork: mode %s has no processes to start ahead: set prefork=0 or mode=fork", c.Mode)
		case c.CGIHeaders:
			bad("prefork: a process that runs already cannot get the request in its environment: set cgi_headers=false or prefork=0")
		}
	}
	if c.Mode == ModeHTTP {
		if u, err := url.Parse(c.UpstreamURL); err != nil {
			bad("upstream_url: %w: give it as http://host:port", err)
		} else if u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			bad("upstream_url: %q is not http://host:port with an optional path", c.UpstreamURL)
		} else if c.Port > 0 && isHere(u.Hostname()) && cmp.Or(u.Port(), "80") == strconv.Itoa(c.Port) {
			bad("upstream_url: %q is where fwatchdog itself listens: set it, or port, to another port", c.UpstreamURL)
		}
	}
	return errs
}

// isHere reports whether host names this machine without asking anybody.
func isHere(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && (addr.Unmap().IsLoopback() || addr.Unmap().IsUnspecified())
}

// settings reads values of one kind each and gathers what is wrong with them.
type settings struct {
	getenv func(string) string
	errs   []error
}

func (s *settings) bad(name, format string, args ...any) {
	s.errs = append(s.errs, fmt.Errorf("%s: "+format, append([]any{name}, args...)...))
}

func (s *settings) text(name, fallback string) string {
	if v := s.getenv(name); v != "" {
		return v
	}
	return fallback
}

// oneOf returns the value, which must be one of choices; the first one holds
// when there is none.
func (s *settings) oneOf(name string, choices ...string) string {
	v := s.text(name, choices[0])
	for _, c := range choices {
		if v == c {
			return v
		}
	}
	s.bad(name, "%q is none of %s", v, strings.Join(choices, ", "))
	return choices[0]
}

func (s *settings) integer(name string, fallback, low, high int) int {
	v := s.getenv(name)
	if v == "" {
		return fallback
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < low || n > high {
		s.bad(name, "%q is not a number: use a whole one from %d to %d", v, low, high)
		return fallback
	}
	return n
}

func (s *settings) boolean(name string, fallback bool) bool {
	v := s.getenv(name)
	if v == "" {
		return fallback
	}
	b, err := strconv.ParseBool(v)
	if err != nil {
		s.bad(name, "%q is neither true nor false", v)
		return fallback
	}
	return b
}

// duration takes what time.ParseDuration takes, and whole seconds.
func (s *settings) duration(name string, fallback time.Duration) time.Duration {
	v := s.getenv(name)
	if v == "" {
		return fallback
	}
	d, ok := parseDuration(v)
	if !ok {
		s.bad(name, "%q is not a duration: use for example 30s, 1m30s or whole seconds, 0 for none", v)
		return fallback
	}
	return d
}

// parseDuration takes a Go duration or whole seconds, neither negative.
func parseDuration(v string) (time.Duration, bool) {
	d, err := time.ParseDuration(v)
	if err != nil {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || n > int64(time.Duration(1<<63-1)/time.Second) {
			return 0, false
		}
		d = time.Duration(n) * time.Second
	}
	return d, d >= 0
}

// size takes bytes, with a unit such as KiB, MiB or GiB (of 1024) or kB, MB,
// GB (of 1000), up to 1 GiB.
func (s *settings) size(name string, fallback int) int {
	v := s.getenv(name)
	if v == "" {
		return fallback
	}
	digits := strings.TrimRight(v, " abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
	var unit int64
	switch strings.ToLower(strings.TrimSpace(v[len(digits):])) {
	case "", "b":
		unit = 1
	case "k", "kib":
		unit = 1 << 10
	case "m", "mib":
		unit = 1 << 20
	case "g", "gib":
		unit = 1 << 30
	case "kb":
		unit = 1e3
	case "mb":
		unit = 1e6
	case "gb":
		unit = 1e9
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || unit == 0 || n < 0 || n > (1<<30)/unit {
		s.bad(name, "%q is not a size: use bytes or for example 64KiB or 1MiB, up to 1GiB", v)
		return fallback
	}
	return int(n * unit)
}
