package main

import (
	"bytes"
	"io"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"faas/internal/scale"
	"faas/watchdog"
)

// resolved returns the functions of arguments and variables.
func resolved(t *testing.T, getenv func(string) string, args ...string) []localFunction {
	t.Helper()
	c, err := parseConfig(args, getenv, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return c.functions
}

func namesOf(functions []localFunction) []string {
	var names []string
	for _, f := range functions {
		names = append(names, f.name)
	}
	return names
}

func TestRepeatableSettings(t *testing.T) {
	args := []string{
		"-function", "a=cat -u", "-function=b=http://10.0.0.1:81,HTTP://h", "-route", "POST /a/{id}=a", "-route=example.com/=b", "-route=/a=a",
		"-env", "a:exec_timeout=5s", "-env=a:URL=http://x/?a=b:c",
	}
	got := resolved(t, env(), args...)
	if len(got) != 2 || got[0].name != "a" || got[0].command != "cat -u" || got[1].name != "b" || !slices.Equal(got[1].addresses, []string{"10.0.0.1:81", "h:80"}) {
		t.Fatalf("got %+v, want a and b", got)
	}
	if a := got[0].routes; !slices.Equal(a, []string{"POST /a/{id}", "/a"}) || !slices.Equal(got[1].routes, []string{"example.com/"}) {
		t.Errorf("got routes %q and %q", a, got[1].routes)
	}
	if w := got[0].watchdog; w.ExecTimeout != 5*time.Second || !slices.Equal(w.Env, []string{"URL=http://x/?a=b:c", "exec_timeout=5s"}) {
		t.Errorf("got limit %v and environment %q", w.ExecTimeout, w.Env)
	}

	lines := env("FAAS_FUNCTION", "a=cat -u\n\r\n \nb=http://10.0.0.1:81,HTTP://h\r\n", "route", "POST /a/{id}=a\nexample.com/=b\n/a=a", "FAAS_env", "a:exec_timeout=5s\na:URL=http://x/?a=b:c")
	same := resolved(t, lines)
	for _, functions := range [][]localFunction{got, same} {
		for i := range functions {
			functions[i].source, functions[i].env = "", nil // which differ
		}
	}
	if !reflect.DeepEqual(same, got) {
		t.Errorf("from variables of several lines: got %+v, want %+v", same, got)
	}
}

// The parts of -env, and of every other flag that says something of one function.
func TestParseAssignment(t *testing.T) {
	for _, c := range []struct{ in, function, key, value string }{
		{"f:KEY=value", "f", "KEY", "value"},
		{"f:KEY=", "f", "KEY", ""},
		{"a.b-c_d:com.openfaas.scale.zero-duration=1m", "a.b-c_d", "com.openfaas.scale.zero-duration", "1m"},
		{"f:faas.route=POST /a/{id}, example.com:/b=c", "f", "faas.route", "POST /a/{id}, example.com:/b=c"},
	} {
		function, key, value, err := parseAssignment(c.in, "KEY")
		if err != nil || function != c.function || key != c.key || value != c.value {
			t.Errorf("%q: got %q, %q, %q, %v, want %q, %q, %q", c.in, function, key, value, err, c.function, c.key, c.value)
		}
	}
	for _, bad := range []string{"", "f", "f:", "f:KEY", "f:=v", "KEY=v", ":KEY=v", "/:KEY=v", "f=x:y"} {
		if _, _, _, err := parseAssignment(bad, "KEY"); err == nil {
			t.Errorf("%q: got no error, want one", bad)
		}
	}
}

// Whoever names a function does not want to serve the samples to everybody.
func TestSamplesAreServedWithoutAFunction(t *testing.T) {
	samples := namesOf(sampleFunctions)
	for _, c := range []struct {
		args []string
		want []string
	}{
		{nil, samples},
		{[]string{"-route", "/x=echo"}, samples},
		{[]string{"-function", "mine=cat"}, []string{"mine"}},
		{[]string{"-function", "mine=cat", "-samples"}, append(slices.Clone(samples), "mine")},
		{[]string{"-function", "hash=cat", "-samples"}, samples},
		{[]string{"-samples=false"}, nil},
		{[]string{"-function", "mine=cat", "-samples=false"}, []string{"mine"}},
		{[]string{"-function", "f=no-such-program", "-function", "f=cat"}, []string{"f"}}, // the later one counts
	} {
		if got := namesOf(resolved(t, env(), c.args...)); !slices.Equal(got, c.want) {
			t.Errorf("%q: got %q, want %q", c.args, got, c.want)
		}
	}
	_, err := parseConfig([]string{"-function", "mine=cat", "-route", "/x=echo"}, env(), io.Discard)
	if err == nil || !strings.Contains(err.Error(), `-route: there is no function "echo"`) {
		t.Errorf("a route to a sample that is not served: got %v, want an error that names it", err)
	}
}

// A machine without one of the samples' programs serves the others.
func TestASampleWithoutItsProgramIsLeftOut(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	c, err := parseConfig(nil, env(), io.Discard)
	if err != nil || len(c.functions) > 0 || !slices.Equal(c.missing, namesOf(sampleFunctions)) {
		t.Errorf("got %+v, missing %q, %v, want every sample to be missing", c.functions, c.missing, err)
	}
}

func TestFunctionFlagsReplaceSamples(t *testing.T) {
	addr := startReplica(t, echoReplica)
	other := startReplica(t, echoReplica)
	p := startLocal(t, pathOnly, "-samples", "-function", "echo=printf replaced", "-function", "mine=tr a-z A-Z", "-function", "far=http://"+addr+",http://"+other, "-route", "/shout=mine")
	base := startGateway(t, p)
	for _, c := range []struct{ path, answer string }{
		{"/function/echo", "replaced"}, {"/function/mine", "HELLO"}, {"/shout", "HELLO"}, {"/function/far", "hello"},
	} {
		if resp, got := call(t, "POST", base+c.path, "hello"); resp.StatusCode != 200 || got != c.answer {
			t.Errorf("%s: got %d %q, want 200 %q", c.path, resp.StatusCode, got, c.answer)
		}
	}
	waitForMetric(t, base, `gateway_service_count{function_name="far"} 2`)
}

// Each function has settings of its own, which its process sees, too. Those in
// the gateway's environment hold for none.
func TestEachFunctionHasItsOwnSettings(t *testing.T) {
	getenv := env("PATH", os.Getenv("PATH"), "TZ", "Europe/Berlin", "mode", "http", "exec_timeout", "1ms", "combine_output", "true", "content_type", "text/x-gateway")
	p := startLocal(t, getenv, "-samples",
		"-function", `page=sh -c 'printf "Status: 418\nContent-Type: text/x-own\n\nI am $WHO in $TZ"'`,
		"-env", "page:mode=cgi", "-env", "page:WHO=a teapot", "-env", "page:TZ=UTC",
		"-function", "slow=sleep 60", "-env", "slow:exec_timeout=100ms",
		"-function", "loud=sh -c 'echo out; echo err >&2'", "-env", "loud:combine_output=true")
	base := startGateway(t, p)
	for _, c := range []struct {
		function string
		status   int
		body     string
	}{
		{"page", 418, "I am a teapot in UTC"},
		{"slow", 504, "100ms"},
		{"loud", 200, "out\nerr\n"},
		{"echo", 200, "hello"},
		{"env", 200, "TZ=Europe/Berlin"},
	} {
		resp, got := call(t, "POST", base+"/function/"+c.function, "hello")
		if resp.StatusCode != c.status || !strings.Contains(got, c.body) {
			t.Errorf("%s: got %d %q, want %d with %q", c.function, resp.StatusCode, got, c.status, c.body)
		}
		if c.function == "page" && resp.Header.Get("Content-Type") != "text/x-own" {
			t.Errorf("page: got %q, want its own content type", resp.Header.Get("Content-Type"))
		}
	}

	c, err := parseConfig(nil, getenv, io.Discard)
	if want := []string{"combine_output", "content_type", "exec_timeout", "mode"}; err != nil || !slices.Equal(c.ignored, want) {
		t.Errorf("got %q as ignored, %v, want %q", c.ignored, err, want)
	}
}

// The gateway's own limit is the function's, unless it has one.
func TestTheLimitOfALocalFunction(t *testing.T) {
	for _, c := range []struct {
		args []string
		want time.Duration
	}{
		{nil, 60 * time.Second},
		{[]string{"-upstream-timeout=5m"}, 5 * time.Minute},
		{[]string{"-upstream-timeout=5m", "-env=f:exec_timeout=0"}, 0},
		{[]string{"-env=f:exec_timeout=7", "-env=f:exec_timeout=8"}, 8 * time.Second},
	} {
		f := resolved(t, env(), append([]string{"-function", "f=cat"}, c.args...)...)[0]
		if f.watchdog.ExecTimeout != c.want {
			t.Errorf("%q: got %v, want %v", c.args, f.watchdog.ExecTimeout, c.want)
		}
	}
}

// A program in mode http has its port to itself: a second replica, another
// function or the gateway would be in its way.
func TestAProgramThatServesHasItsPortToItself(t *testing.T) {
	web := []string{"-function=web=cat", "-env=web:mode=http", "-function=api=cat", "-env=api:mode=http"}
	for _, c := range []struct {
		args []string
		want string // in the error; "": none
	}{
		{nil, "-env: api:upstream_url: port 8082 is function web's"},
		{[]string{"-env=api:upstream_url=http://localhost:8082/x"}, "port 8082 is function web's"},
		{[]string{"-env=api:upstream_url=http://localhost:8083"}, ""},
		{[]string{"-env=api:upstream_url=http://localhost:8080"}, "port 8080 is the gateway's"},
		{[]string{"-env=api:upstream_url=http://localhost:8080", "-listen=:9000"}, ""},
		{[]string{"-env=api:mode=fork"}, ""},
	} {
		_, err := parseConfig(slices.Concat(web, c.args), env(), io.Discard)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: got %v, want %q", c.args, err, c.want)
		}
	}

	p := newLocal([]localFunction{{name: "web", watchdog: watchdog.Config{Command: []string{"cat"}, Mode: watchdog.ModeHTTP, UpstreamURL: "http://" + closedAddr(t)}}},
		definition{timeout: time.Minute, scale: scale.Limits{Min: 3, Max: 20}}, slog.New(slog.DiscardHandler))
	defer p.close()
	if err := p.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	d := definition{name: "web", service: "web"}
	if err := p.scale(t.Context(), d, func(int) int { return 5 }); err != nil {
		t.Fatal(err)
	}
	defs, _ := p.list(t.Context())
	addrs, _ := p.addresses(t.Context(), d)
	if len(addrs) != 1 || defs[0].replicas != 1 || defs[0].scale.Max != 1 || defs[0].scale.Min != 1 {
		t.Errorf("got replicas %q and limits %+v, want one at most", addrs, defs[0].scale)
	}
}

// What is wrong with a function is said in the words of its flags.
func TestMessagesNameTheFlag(t *testing.T) {
	for _, c := range []struct {
		args []string
		env  func(string) string
		want string
	}{
		{[]string{"-function", "f=no-such-program"}, env(), "-function: f: exec: \"no-such-program\": executable file not found in $PATH"},
		{nil, env("function", "f=no-such-program"), "variable function: f: exec: "},
		{[]string{"-function", "f="}, env(), "-function: f: it has no command"},
		{[]string{"-function", "f='"}, env(), "-function: f: single quote without its closing quote"},
		{[]string{"-function", "f=https://h"}, env(), "-function: f: \"https://h\": the gateway speaks plain HTTP to replicas, not HTTPS"},
		{[]string{"-function", "f=localhost:3000"}, env(), "given as http://localhost:3000"},
		{[]string{"-function", "f=cat", "-env", "f:doze=x"}, env(), "-env: f:doze: \"x\" is not a duration"},
		{[]string{"-function", "f=cat"}, env("FAAS_ENV", "f:prefork=2"), "variable FAAS_ENV: f:prefork: "},
		{[]string{"-function", "f=http://h:1", "-env", "f:mode=http"}, env(), "-env: f:mode: the replicas of f run already"},
		{[]string{"-provider=swarm"}, env("FAAS_FUNCTION", "f=cat"), "variable FAAS_FUNCTION: only with -provider local"},
		{[]string{"-provider=swarm", "-env=f:A=b"}, env(), "-env: only with -provider local"},
		{[]string{"-provider=swarm", "-route=/f=f"}, env(), "-route: only with -provider local"},
		{[]string{"-provider=swarm", "-samples"}, env(), "-samples: only with -provider local"},
	} {
		_, err := parseConfig(c.args, c.env, new(bytes.Buffer))
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "fprocess") {
			t.Errorf("%q: got %v, want %s", c.args, err, c.want)
		}
	}
	// Of a function whose flag is bad, nothing more is said.
	_, err := parseConfig([]string{"-function", "f", "-env", "f:A=b", "-route", "/f=f"}, env(), new(bytes.Buffer))
	if err == nil || strings.Count(err.Error(), "\n") > 0 {
		t.Errorf("got %v, want the one error of -function", err)
	}
}
