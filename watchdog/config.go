package watchdog

// The settings and their validation.

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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
	ModeStatic    = "static"    // the files of a directory, without a process

	// modeSerializing is what OpenFaaS's watchdog calls ModeFork.
	modeSerializing = "serializing"
)

// modes are the values of the setting mode, the default first.
var modes = []string{ModeFork, ModeStreaming, ModeCGI, ModeHTTP, ModeStatic, modeSerializing}

// Config holds the settings of one function. ParseConfig fills in the
// defaults; in a Config made by hand a zero field means what its comment says.
type Config struct {
	Command []string // program and arguments; required but in ModeStatic
	Mode    string   // one of the Mode constants; "" is ModeFork
	Port    int      // where fwatchdog listens; the Handler itself does not

	ExecTimeout  time.Duration // longest invocation; 0: no limit
	ReadTimeout  time.Duration // longest wait for the client to send more; 0: no limit
	WriteTimeout time.Duration // longest wait for the client to take more; 0: no limit

	HealthcheckInterval time.Duration // how long fwatchdog serves after SIGTERM while unhealthy

	MaxInflight  int           // invocations at a time; 0: no limit
	ContentType  string        // of the response; "": the request's, or else application/octet-stream
	CGIHeaders   bool          // hand the request over as Http_* variables
	CombineOut   bool          // STDERR goes into the response, too
	PrefixLogs   bool          // STDERR goes to the log line by line; false: it is the watchdog's own STDERR
	BufferOutput int           // bytes of output held back; 0: none
	MaxBody      int           // ModeCGI: bytes of a body without a Content-Length, which is kept until its length is known
	Prefork      int           // processes started ahead; 0: none
	ForkServer   []string      // template whose forks the processes are: "python", "perl", "ruby", or a command; nil: none
	Preload      []string      // modules that a template loads besides what the script begins with
	UpstreamURL  string        // ModeHTTP: where the process serves
	Doze         time.Duration // ModeHTTP and ForkServer: a process that nobody calls for so long ends until the next call; 0: never
	StaticPath   string        // ModeStatic: the directory
	ReadyPath    string        // path that the function itself answers /_/ready at; "": the watchdog answers
	LogCalls     bool          // a line in the log for each call
	LockFile     string        // exists while the function is healthy; "": no such file

	// Env is the environment that processes start from, each entry
	// name=value; nil means os.Environ(). It is no setting of fwatchdog.
	Env []string

	// Warnings are logged by New: values that OpenFaaS's watchdogs tolerate, for
	// which the default applies.
	Warnings []string
}

// ParseConfig reads the settings, which README.md lists, from getenv, fills in
// the defaults and checks them all, the command's existence included. Its error
// joins one error per bad setting; each names its variable. A setting of
// OpenFaaS's watchdogs that these would have ignored is a warning instead.
func ParseConfig(getenv func(string) string) (Config, error) {
	p := settings{getenv: getenv}
	c := Config{
		Mode:                p.oneOf("mode", modes...),
		Port:                p.integer("port", 8080, 0, 65535),
		ReadTimeout:         p.duration("read_timeout", 30*time.Second),
		WriteTimeout:        p.duration("write_timeout", 30*time.Second),
		HealthcheckInterval: p.duration("healthcheck_interval", 2*time.Second),
		MaxInflight:         p.integer("max_inflight", 0, 0, 1<<20),
		ContentType:         getenv("content_type"),
		CGIHeaders:          p.boolean("cgi_headers", true),
		CombineOut:          p.boolean("combine_output", false),
		PrefixLogs:          p.boolean("prefix_logs", true),
		BufferOutput:        p.size("buffer_output", 1<<20),
		MaxBody:             p.size("max_body", 64<<20),
		Prefork:             p.integer("prefork", 0, 0, 1024),
		Preload:             p.list("forkserver_preload"),
		UpstreamURL:         p.text("http_upstream_url", p.text("upstream_url", "http://127.0.0.1:8082")),
		Doze:                p.duration("doze", 0),
		StaticPath:          p.text("static_path", "/home/app/public"),
		ReadyPath:           getenv("ready_path"),
	}
	// A long write_timeout is meant for the process, too.
	c.ExecTimeout = p.duration("exec_timeout", max(30*time.Second, c.WriteTimeout))
	if c.Mode == modeSerializing {
		c.Mode = ModeFork
	}
	c.LogCalls = p.boolean("log_calls", c.Mode != ModeHTTP && c.Mode != ModeStatic)
	if p.boolean("jwt_auth", false) {
		p.bad("jwt_auth", "fwatchdog does not check tokens, and the function would be open to all: unset it, and keep the function's port inside the network")
	}
	if template, err := SplitCommand(getenv("forkserver")); err != nil {
		p.bad("forkserver", "%w: close or escape it in %q", err, getenv("forkserver"))
	} else {
		c.ForkServer = template
	}
	if !p.boolean("suppress_lock", false) {
		dir, missing := getenv("TMPDIR"), false
		if dir == "" {
			dir = os.TempDir()
			_, err := os.Stat(dir)
			missing = errors.Is(err, fs.ErrNotExist)
		}
		// An image from scratch has no such directory, and no program that could look there.
		if !missing {
			c.LockFile = filepath.Join(dir, ".lock")
		}
	}
	name, line := "function_process", getenv("function_process")
	if line == "" {
		name, line = "fprocess", getenv("fprocess")
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
	c.Warnings = p.warnings
	return c, nil
}

// validate checks combinations of settings, and mistakes in a Config filled in by
// hand. command is the name of the setting that gave the command.
func (c *Config) validate(command string) []error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	if c.Mode == ModeStatic {
		if info, err := os.Stat(c.StaticPath); err != nil {
			bad("static_path: %w: set it to the directory with the files", err)
		} else if !info.IsDir() {
			bad("static_path: %s is no directory", c.StaticPath)
		}
	} else if len(c.Command) == 0 || c.Command[0] == "" {
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
	if c.Mode != "" && !slices.Contains(modes, c.Mode) {
		bad("mode: %q is none of %s", c.Mode, strings.Join(modes, ", "))
	}
	if c.ReadyPath != "" && !strings.HasPrefix(c.ReadyPath, "/") {
		bad("ready_path: %q does not begin with /", c.ReadyPath)
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"exec_timeout", c.ExecTimeout},
		{"read_timeout", c.ReadTimeout},
		{"write_timeout", c.WriteTimeout},
		{"healthcheck_interval", c.HealthcheckInterval},
		{"doze", c.Doze},
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
		{"max_body", c.MaxBody},
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
		case c.Mode == ModeCGI || c.Mode == ModeHTTP || c.Mode == ModeStatic:
			bad("prefork: mode %s has no processes to start ahead: set prefork=0 or mode=fork", c.Mode)
		case c.CGIHeaders:
			bad("prefork: a process that runs already cannot get the request in its environment: set cgi_headers=false or prefork=0")
		}
	}
	switch {
	case len(c.ForkServer) == 0 && len(c.Preload) > 0:
		bad("forkserver_preload: without forkserver there is no template to load it: set forkserver")
	case len(c.ForkServer) > 0 && (c.Mode == ModeHTTP || c.Mode == ModeStatic):
		bad("forkserver: mode %s has no process per request: unset forkserver, or set mode=fork", c.Mode)
	case len(c.ForkServer) > 0 && c.Prefork > 0:
		bad("forkserver: prefork starts processes ahead, a fork server needs none: set prefork=0 or unset forkserver")
	}
	if c.Doze > 0 && c.Mode != ModeHTTP && len(c.ForkServer) == 0 {
		bad("doze: mode %s keeps no process that could end: unset doze", cmp.Or(c.Mode, ModeFork))
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

// isHere reports whether host is this machine, without a DNS lookup.
func isHere(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && (addr.Unmap().IsLoopback() || addr.Unmap().IsUnspecified())
}
