package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// env turns pairs of a name and a value into a getenv.
func env(pairs ...string) func(string) string {
	m := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return func(name string) string { return m[name] }
}

// settingCases has every setting once, with a value that is not its default.
var settingCases = []struct {
	flag, value, other string
	get                func(c *config) any
	want, def          any
}{
	{"listen", "127.0.0.1:0", ":1", func(c *config) any { return c.listen }, "127.0.0.1:0", ":8080"},
	{"provider", "swarm", "local", func(c *config) any { return c.provider }, "swarm", "local"},
	{"network", "blue", "red", func(c *config) any { return c.network }, "blue", "functions"},
	{"upstream-timeout", "90s", "1s", func(c *config) any { return c.upstreamTimeout }, 90 * time.Second, time.Minute},
	{"max-inflight", "7", "1", func(c *config) any { return c.maxInflight }, 7, 0},
	{"queue", "8", "1", func(c *config) any { return c.queue }, 8, 1000},
	{"queue-timeout", "1m30s", "1s", func(c *config) any { return c.queueTimeout }, 90 * time.Second, 30 * time.Second},
	{"scale-type", "rps", "capacity", func(c *config) any { return c.scale.kind }, scaleRPS, scaleCapacity},
	{"scale-target", "2.5", "1", func(c *config) any { return c.scale.target }, 2.5, 10.0},
	{"scale-min", "0", "2", func(c *config) any { return c.scale.min }, 0, 1},
	{"scale-max", "3", "2", func(c *config) any { return c.scale.max }, 3, 20},
	{"autoscale", "false", "true", func(c *config) any { return c.autoscale }, false, true},
	{"drain", "0", "1", func(c *config) any { return c.drain }, time.Duration(0), 5 * time.Second},
	{"shutdown-timeout", "5", "1", func(c *config) any { return c.shutdownTimeout }, 5 * time.Second, time.Minute},
	{"log-level", "debug", "error", func(c *config) any { return c.logLevel }, slog.LevelDebug, slog.LevelInfo},
	{"log-format", "json", "text", func(c *config) any { return c.logFormat }, "json", "text"},
	{"access-log", "true", "false", func(c *config) any { return c.accessLog }, true, false},
	{"trusted-proxies", "10.0.0.0/8", "11.0.0.0/8", func(c *config) any { return c.trustedProxies },
		[]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, []netip.Prefix(nil)},
	{"transport", "std", "direct", func(c *config) any { return c.transport }, "std", "direct"},
	{"alexa-verify", "true", "false", func(c *config) any { return c.alexaVerify }, true, false},
	{"alexa-route", "/alexa", "/other", func(c *config) any { return c.alexaRoute }, "/alexa", "/"},
}

func TestEveryFlagAndItsVariable(t *testing.T) {
	for _, s := range settingCases {
		t.Run(s.flag, func(t *testing.T) {
			variable := strings.ReplaceAll(s.flag, "-", "_")
			for _, c := range []struct {
				name string
				args []string
				env  func(string) string
				want any
			}{
				{"default", nil, env(), s.def},
				{"flag", []string{"-" + s.flag + "=" + s.value}, env(), s.want},
				{"variable", nil, env(variable, s.value), s.want},
				{"flag beats variable", []string{"-" + s.flag + "=" + s.value}, env(variable, s.other), s.want},
				{"the flag's name is no variable", nil, env(strings.ToUpper(variable), s.value), s.def},
			} {
				got, err := parseConfig(c.args, c.env, new(bytes.Buffer))
				if err != nil {
					t.Errorf("%s: %v", c.name, err)
				} else if v := s.get(&got); !reflect.DeepEqual(v, c.want) {
					t.Errorf("%s: got %v, want %v", c.name, v, c.want)
				}
			}
		})
	}
}

// Every flag but those that take more than one value or do something else is
// in settingCases.
func TestNoFlagIsForgotten(t *testing.T) {
	var usage bytes.Buffer
	if _, err := parseConfig([]string{"-help"}, env(), &usage); !errors.Is(err, flag.ErrHelp) {
		t.Fatalf("-help: got %v, want %v", err, flag.ErrHelp)
	}
	known := []string{"function", "route", "alexa-application", "version", "run-healthcheck"}
	for _, s := range settingCases {
		known = append(known, s.flag)
	}
	for line := range strings.Lines(usage.String()) {
		if name, ok := strings.CutPrefix(line, "  -"); ok {
			name = strings.Fields(name)[0]
			if !slices.Contains(known, name) {
				t.Errorf("no case for -%s", name)
			}
		}
	}
	for _, name := range known {
		if !strings.Contains(usage.String(), "  -"+name) {
			t.Errorf("-help does not name -%s", name)
		}
	}
}

func TestBadSettings(t *testing.T) {
	for _, c := range []struct{ flag, value string }{
		{"listen", "8080"}, {"listen", ":http"}, {"listen", ":70000"}, {"listen", ""},
		{"provider", "kubernetes"}, {"network", ""},
		{"function", "echo"}, {"function", "a/b=cat"}, {"function", "=cat"}, {"function", strings.Repeat("a", 64) + "=cat"},
		{"function", "f=http://"}, {"function", "f=http://host:1/path"}, {"function", "f=http://user@host:1"}, {"function", "f=http://a:1,ftp://b:1"},
		{"route", "/x"}, {"route", "=echo"}, {"route", "/function/x=echo"}, {"route", "GET  /{x=echo"},
		{"upstream-timeout", "fast"}, {"upstream-timeout", "-1s"}, {"upstream-timeout", "-1"}, {"upstream-timeout", "0"},
		{"upstream-timeout", "99999999999999999"}, {"upstream-timeout", "1.5"},
		{"max-inflight", "-1"}, {"max-inflight", "many"}, {"queue", "-1"}, {"queue", "1e3"}, {"queue-timeout", "0"},
		{"scale-type", "cpu"}, {"scale-target", "0"}, {"scale-target", "-1"}, {"scale-target", "NaN"}, {"scale-target", "Inf"},
		{"scale-min", "-1"}, {"scale-min", "21"}, {"scale-max", "0"},
		{"drain", "-1s"}, {"shutdown-timeout", "x"},
		{"log-level", "loud"}, {"log-format", "xml"}, {"access-log", "maybe"},
		{"trusted-proxies", "10.0.0.0/33"}, {"trusted-proxies", "localhost"},
		{"transport", "quic"}, {"alexa-verify", "2"}, {"alexa-application", "amzn1.x"},
		{"alexa-route", "alexa"}, {"alexa-route", "/{x}"}, {"alexa-route", "/function/x"},
	} {
		t.Run(c.flag+"="+c.value, func(t *testing.T) {
			_, err := parseConfig([]string{"-" + c.flag + "=" + c.value}, env(), new(bytes.Buffer))
			if err == nil || !strings.Contains(err.Error(), "-"+c.flag+":") && !strings.Contains(err.Error(), "-"+c.flag+" ") {
				t.Errorf("got %v, want an error that names -%s", err, c.flag)
			}
			if c.value == "" {
				return // an empty variable is none
			}
			variable := strings.ReplaceAll(c.flag, "-", "_")
			if _, err := parseConfig(nil, env(variable, c.value), new(bytes.Buffer)); err == nil {
				t.Errorf("variable %s: got no error", variable)
			}
		})
	}
}

func TestAllBadSettingsAreReportedAtOnce(t *testing.T) {
	_, err := parseConfig([]string{"-queue", "x", "-drain=y", "-scale-min=9", "-scale-max=2", "-upstream-timeout=0", "-alexa-application=a", "stray"},
		env("log_level", "loud", "max_inflight", "-3", "queue", "also wrong but not asked"), new(bytes.Buffer))
	if err == nil {
		t.Fatal("got no error")
	}
	for _, want := range []string{"-queue:", "-drain:", "-scale-min:", "-upstream-timeout:", "-alexa-application:", `"stray"`, "-log-level:", "-max-inflight:"} {
		if strings.Count(err.Error(), want) != 1 {
			t.Errorf("got %d times %q, want it once in\n%v", strings.Count(err.Error(), want), want, err)
		}
	}
}

func TestRepeatableSettings(t *testing.T) {
	c, err := parseConfig([]string{"-function", "a=cat -u", "-function=b=http://10.0.0.1:81,http://h", "-route", "POST /a/{id}=a", "-route=example.com/=b"}, env(), new(bytes.Buffer))
	if err != nil {
		t.Fatal(err)
	}
	wantFunctions := []localFunction{{name: "a", command: "cat -u"}, {name: "b", addresses: []string{"10.0.0.1:81", "h:80"}}}
	if got := c.functions[len(sampleFunctions):]; !reflect.DeepEqual(got, wantFunctions) {
		t.Errorf("functions: got %+v, want the samples and %+v", got, wantFunctions)
	}
	wantRoutes := []localRoute{{"POST /a/{id}", "a"}, {"example.com/", "b"}}
	if !reflect.DeepEqual(c.routes, wantRoutes) {
		t.Errorf("routes: got %+v, want %+v", c.routes, wantRoutes)
	}
	lines := env("function", "a=cat -u\n\nb=http://10.0.0.1:81,http://h\n", "route", "POST /a/{id}=a\nexample.com/=b")
	same, err := parseConfig(nil, lines, new(bytes.Buffer))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(same, c) {
		t.Errorf("from variables of several lines: got %+v, want %+v", same, c)
	}
	if _, err := parseConfig([]string{"-provider=swarm", "-function", "a=cat"}, env(), new(bytes.Buffer)); err == nil || !strings.Contains(err.Error(), "-function") {
		t.Errorf("-function on Swarm: got %v, want an error that names it", err)
	}
}

func TestParseDuration(t *testing.T) {
	for _, c := range []struct {
		in   string
		want time.Duration
	}{{"0", 0}, {"5", 5 * time.Second}, {"5s", 5 * time.Second}, {"100ms", 100 * time.Millisecond}, {"1m30s", 90 * time.Second}, {"2h", 2 * time.Hour}} {
		if got, err := parseDuration(c.in); err != nil || got != c.want {
			t.Errorf("%q: got %v, %v, want %v", c.in, got, err, c.want)
		}
	}
	for _, bad := range []string{"", "s", "5 s", "-5", "1e3", "9223372036854775807", "0x10"} {
		if got, err := parseDuration(bad); err == nil {
			t.Errorf("%q: got %v, want an error", bad, got)
		}
	}
}

// What -help, -version and bad settings print, and the exit status.
func TestRunWithoutServing(t *testing.T) {
	for _, c := range []struct {
		args           []string
		env            func(string) string
		status         int
		stdout, stderr string
	}{
		{[]string{"-help"}, env(), 0, "-upstream-timeout", ""},
		{[]string{"-version"}, env(), 0, "gateway development (revision ", ""},
		{[]string{"-nope"}, env(), exitSettings, "", "-nope"},
		{[]string{"-queue=x", "-drain=y"}, env(), exitSettings, "", "-drain: \"y\""},
		{nil, env("queue", "x"), exitSettings, "", "-queue: \"x\""},
		{[]string{"-function", "broken=no-such-program-anywhere"}, env(), exitSettings, "", "function broken"},
		{[]string{"-function", "a=no-such-1", "-function", "b=no-such-2"}, env(), exitSettings, "", "function b"},
		{[]string{"-route", "/x=nobody"}, env(), exitSettings, "", `no function "nobody"`},
	} {
		t.Run(fmt.Sprint(c.args), func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if got := run(t.Context(), c.args, c.env, &stdout, &stderr, nil); got != c.status {
				t.Errorf("got exit status %d, want %d; stderr:\n%s", got, c.status, &stderr)
			}
			if !strings.Contains(stdout.String(), c.stdout) || !strings.Contains(stderr.String(), c.stderr) {
				t.Errorf("got stdout\n%s\nstderr\n%s\nwant %q and %q in them", &stdout, &stderr, c.stdout, c.stderr)
			}
			if c.status == 0 && stderr.Len() > 0 {
				t.Errorf("stderr: got %q, want nothing", &stderr)
			}
		})
	}
}
