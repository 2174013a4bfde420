package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"faas/internal/scale"
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
	{"namespace", "functions", "others", func(c *config) any { return c.namespace }, "functions", "openfaas-fn"},
	{"auth-dir", "/auth", "/other", func(c *config) any { return c.authDir }, "/auth", "/run/secrets"},
	{"registry-config", "/config.json", "/other.json", func(c *config) any { return c.registryConfig }, "/config.json", ""},
	{"provider", "swarm", "local", func(c *config) any { return c.provider }, "swarm", "local"},
	{"network", "blue", "red", func(c *config) any { return c.network }, "blue", "functions"},
	{"upstream-timeout", "90s", "1s", func(c *config) any { return c.upstreamTimeout }, 90 * time.Second, time.Minute},
	{"max-inflight", "7", "1", func(c *config) any { return c.maxInflight }, 7, 0},
	{"queue", "8", "1", func(c *config) any { return c.queue }, 8, 1000},
	{"queue-timeout", "1m30s", "1s", func(c *config) any { return c.queueTimeout }, 90 * time.Second, 30 * time.Second},
	{"scale-type", "rps", "capacity", func(c *config) any { return c.scale.Kind }, scale.RPS, scale.Capacity},
	{"scale-target", "2.5", "1", func(c *config) any { return c.scale.Target }, 2.5, 10.0},
	{"scale-min", "0", "2", func(c *config) any { return c.scale.Min }, 0, 1},
	{"scale-max", "3", "2", func(c *config) any { return c.scale.Max }, 3, 20},
	{"autoscale", "false", "true", func(c *config) any { return c.autoscale }, false, true},
	{"drain", "0", "1", func(c *config) any { return c.drain }, time.Duration(0), 5 * time.Second},
	{"shutdown-timeout", "5", "1", func(c *config) any { return c.shutdownTimeout }, 5 * time.Second, time.Minute},
	{"log-level", "debug", "error", func(c *config) any { return c.logLevel }, slog.LevelDebug, slog.LevelInfo},
	{"log-format", "json", "text", func(c *config) any { return c.logFormat }, "json", "text"},
	{"access-log", "true", "false", func(c *config) any { return c.accessLog }, true, false},
	{"trusted-proxies", "10.0.0.0/8", "11.0.0.0/8", func(c *config) any { return c.trustedProxies },
		[]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, []netip.Prefix(nil)},
	{"async", "http://127.0.0.1:8081", "http://x", func(c *config) any { return c.async },
		&url.URL{Scheme: "http", Host: "127.0.0.1:8081"}, (*url.URL)(nil)},
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
				{"variable with the prefix", nil, env("FAAS_"+strings.ToUpper(variable), s.value), s.want},
				{"variable with the prefix, in lower case", nil, env("FAAS_"+variable, s.value), s.want},
				{"the prefix beats the bare name", nil, env("FAAS_"+strings.ToUpper(variable), s.value, variable, s.other), s.want},
				{"flag beats the prefix", []string{"-" + s.flag + "=" + s.value}, env("FAAS_"+strings.ToUpper(variable), s.other), s.want},
				{"an empty variable is none", nil, env("FAAS_"+strings.ToUpper(variable), "", variable, s.value), s.want},
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

// -peers and -peer-listen are only good together.
func TestPeerSettings(t *testing.T) {
	for _, c := range []struct {
		args []string
		env  func(string) string
	}{
		{[]string{"-peers=tasks.gateway:8081, 10.0.0.2:8081", "-peer-listen=:8081"}, env()},
		{nil, env("peers", "tasks.gateway:8081,10.0.0.2:8081", "peer_listen", ":8081")},
	} {
		got, err := parseConfig(c.args, c.env, new(bytes.Buffer))
		if err != nil || !slices.Equal(got.peers, []string{"tasks.gateway:8081", "10.0.0.2:8081"}) || got.peerListen != ":8081" {
			t.Errorf("%q: got %q, %q, %v, want both peers and :8081", c.args, got.peers, got.peerListen, err)
		}
	}
}

// Every flag but those that take more than one value, need another or do
// something else is in settingCases.
func TestNoFlagIsForgotten(t *testing.T) {
	var usage bytes.Buffer
	if _, err := parseConfig([]string{"-help"}, env(), &usage); !errors.Is(err, flag.ErrHelp) {
		t.Fatalf("-help: got %v, want %v", err, flag.ErrHelp)
	}
	known := []string{"function", "env", "label", "route", "samples", "alexa-application", "version", "run-healthcheck", "peers", "peer-listen"}
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
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range known {
		if !strings.Contains(usage.String(), "  -"+name+" ") {
			t.Errorf("-help does not name -%s", name)
		}
		if !strings.Contains(string(readme), "-"+name+"`") {
			t.Errorf("README.md does not name -%s", name)
		}
	}
}

func TestBadSettings(t *testing.T) {
	for _, c := range []struct{ flag, value string }{
		{"listen", "8080"}, {"listen", ":http"}, {"listen", ":70000"}, {"listen", ""},
		{"provider", "kubernetes"}, {"network", ""},
		{"function", "echo"}, {"function", "a/b=cat"}, {"function", "=cat"}, {"function", strings.Repeat("a", 64) + "=cat"},
		{"function", "f="}, {"function", "f=''"}, {"function", "f='x"}, {"function", "f=no-such-program"}, {"function", "f=localhost:3000"},
		{"function", "f=https://h:1"}, {"function", "f=http://h:0"}, {"function", "f=http://h:65536"}, {"function", "f=http://a:1,https://b:2"},
		{"env", "echo"}, {"env", "echo:KEY"}, {"env", "echo:=v"}, {"env", "KEY=v"}, {"env", "a/b:KEY=v"}, {"env", "echo:1K=v"}, {"env", "echo: K=v"},
		{"env", "nobody:KEY=v"}, {"env", "echo:fprocess=wc"}, {"env", "echo:function_process=wc"}, {"env", "echo:mode=fast"}, {"env", "echo:buffer_output=x"},
		{"samples", "some"},
		{"function", "f=http://"}, {"function", "f=http://host:1/path"}, {"function", "f=http://user@host:1"}, {"function", "f=http://a:1,ftp://b:1"},
		{"async", "127.0.0.1:8081"}, {"async", "http://"}, {"async", "ftp://x"}, {"async", "http://x/y"}, {"async", "http://u@x"}, {"async", "http://x?y"},
		{"label", "echo"}, {"label", "echo:faas.timeout"}, {"label", "echo:no.such=x"}, {"label", "nobody:faas.timeout=1s"}, {"label", "echo:faas.timeout=x"},
		{"route", "/x"}, {"route", "=echo"}, {"route", "/function/x=echo"}, {"route", "GET  /{x=echo"}, {"route", "/x=nobody"},
		{"upstream-timeout", "fast"}, {"upstream-timeout", "-1s"}, {"upstream-timeout", "-1"}, {"upstream-timeout", "0"},
		{"upstream-timeout", "99999999999999999"}, {"upstream-timeout", "1.5"},
		{"max-inflight", "-1"}, {"max-inflight", "many"}, {"queue", "-1"}, {"queue", "1e3"}, {"queue-timeout", "0"},
		{"scale-type", "cpu"}, {"scale-target", "0"}, {"scale-target", "-1"}, {"scale-target", "NaN"}, {"scale-target", "Inf"},
		{"scale-min", "-1"}, {"scale-min", "21"}, {"scale-max", "0"}, {"scale-max", "101"}, {"scale-target", "2e6"},
		{"drain", "-1s"}, {"shutdown-timeout", "x"},
		{"log-level", "loud"}, {"log-format", "xml"}, {"access-log", "maybe"},
		{"trusted-proxies", "10.0.0.0/33"}, {"trusted-proxies", "localhost"},
		{"peers", "gateway"}, {"peers", ":8081"}, {"peers", "gateway:0"}, {"peers", "gateway:http"}, {"peers", "gateway:8081"},
		{"peer-listen", "8081"}, {"peer-listen", "gateway:8081"}, {"peer-listen", ":0"}, {"peer-listen", ":8081"},
		{"transport", "quic"}, {"alexa-verify", "2"}, {"alexa-application", "amzn1.x"}, {"alexa-application", ","},
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
			bare := strings.ReplaceAll(c.flag, "-", "_")
			for _, variable := range []string{bare, "FAAS_" + bare, "FAAS_" + strings.ToUpper(bare)} {
				_, err := parseConfig(nil, env(variable, c.value), new(bytes.Buffer))
				if err == nil {
					t.Errorf("variable %s: got no error", variable)
					continue
				}
				for line := range strings.Lines(err.Error()) {
					if !strings.HasPrefix(line, "variable "+variable+": ") {
						t.Errorf("got %q, want it to begin with the variable %s", line, variable)
					}
				}
			}
		})
	}
}

func TestAllBadSettingsAreReportedAtOnce(t *testing.T) {
	_, err := parseConfig([]string{"-queue", "x", "-functions", "a=b", "-drain=y", "-scale-min=9", "-scale-max=2", "-upstream-timeout=0", "stray", "-alexa-application=a",
		"-trusted-proxies=here,there", "-function=one=no-such-program", "-function=two=cat", "-env=two:mode=none", "-env=two:prefork=x", "-access-log", "yes", "-network"},
		env("log_level", "loud", "FAAS_MAX_INFLIGHT", "-3", "queue", "also wrong but not asked", "max_inflight", "nor this"), new(bytes.Buffer))
	if err == nil {
		t.Fatal("got no error")
	}
	want := []string{
		"-queue: ", "-functions: ", "-drain: ", "-upstream-timeout: ", `unexpected argument "stray"`, `-trusted-proxies: trusted proxy "here"`,
		`-trusted-proxies: trusted proxy "there"`, `unexpected argument "yes": the value of -access-log`, "-network: ", "variable FAAS_MAX_INFLIGHT: ",
		"variable log_level: ", "-scale-min: ", "-alexa-application: ", "-function: one: ", "-env: two:mode: ", "-env: two:prefork: ",
	}
	for line := range strings.Lines(err.Error()) {
		i := slices.IndexFunc(want, func(w string) bool { return strings.HasPrefix(line, w) })
		if i < 0 {
			t.Errorf("got %q, which nothing is wrong with, or twice", line)
			continue
		}
		want = slices.Delete(want, i, i+1)
	}
	if len(want) > 0 {
		t.Errorf("nothing begins with %q in\n%v", want, err)
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
		{[]string{"-nope"}, env(), exitSettings, "", "-nope: there is no such setting"},
		{[]string{"-listen"}, env(), exitSettings, "", "-listen: it needs a value"},
		{[]string{"-function", "f=https://h:1"}, env(), exitSettings, "", "plain HTTP"},
		{[]string{"-run-healthcheck", "-listen", ":0"}, env(), exitFailure, "", "port 0"},
		// Settings of functions that are in other arguments than the check's.
		{[]string{"-version"}, env("FAAS_ENV", "f:mode=http"), 0, "gateway development", ""},
		{[]string{"-queue=x", "-drain=y"}, env(), exitSettings, "", "-drain: \"y\""},
		{nil, env("queue", "x"), exitSettings, "", "variable queue: \"x\""},
		{[]string{"-function", "broken=no-such-program-anywhere"}, env(), exitSettings, "", "-function: broken: "},
		{[]string{"-function", "a=no-such-1", "-function", "b=no-such-2"}, env(), exitSettings, "", "-function: b: "},
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
