package watchdog

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func getenv(settings ...string) func(string) string {
	return func(name string) string {
		for _, s := range settings {
			if n, v, _ := strings.Cut(s, "="); n == name {
				return v
			}
		}
		return ""
	}
}

func TestParseConfigDefaults(t *testing.T) {
	got, err := ParseConfig(getenv("fprocess=cat", "TMPDIR=/somewhere"))
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Command: []string{"cat"}, Mode: "fork", Port: 8080,
		ExecTimeout: 30 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: 30 * time.Second,
		HealthcheckInterval: 2 * time.Second, CGIHeaders: true, PrefixLogs: true,
		BufferOutput: 1 << 20, MaxBody: 64 << 20, UpstreamURL: "http://127.0.0.1:8082",
		StaticPath: "/home/app/public", LogCalls: true, LockFile: "/somewhere/.lock",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestParseConfigValues(t *testing.T) {
	got, err := ParseConfig(getenv("function_process=sh -c 'a b'", "mode=streaming", "port=0", "exec_timeout=90", "read_timeout=1m30s",
		"write_timeout=0", "healthcheck_interval=500ms", "max_inflight=7", "content_type=text/plain", "cgi_headers=false",
		"combine_output=1", "prefix_logs=false", "buffer_output=64KiB", "max_body=5MB", "prefork=4", "upstream_url=http://127.0.0.1:3000/x", "suppress_lock=true",
		"static_path=/srv", "ready_path=/ok", "log_calls=false"))
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Command: []string{"sh", "-c", "a b"}, Mode: "streaming", ExecTimeout: 90 * time.Second, ReadTimeout: 90 * time.Second,
		HealthcheckInterval: 500 * time.Millisecond, MaxInflight: 7, ContentType: "text/plain", CombineOut: true,
		BufferOutput: 64 << 10, MaxBody: 5e6, Prefork: 4, UpstreamURL: "http://127.0.0.1:3000/x",
		StaticPath: "/srv", ReadyPath: "/ok",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// Every bad setting is reported, each by its name, all at once. One that images
// for OpenFaaS may come with is a warning, and its default holds.
func TestParseConfigReportsAll(t *testing.T) {
	bad := []string{"fprocess=no-such-command", "mode=x", "port=70000", "buffer_output=1XiB", "max_body=-1", "prefork=-1",
		"forkserver='", "ready_path=x", "log_calls=x", "jwt_auth=true"}
	odd := []string{"exec_timeout=-1s", "read_timeout=30 s", "write_timeout=99999999999999999999", "healthcheck_interval=1x",
		"max_inflight=-1", "cgi_headers=perhaps", "combine_output=yes", "prefix_logs=x", "suppress_lock='true'"}
	_, err := ParseConfig(getenv(append(bad, odd...)...))
	if err == nil {
		t.Fatal("got no error, want one")
	}
	reportsEach(t, strings.Split(err.Error(), "\n"), bad)

	got, err := ParseConfig(getenv(append(odd, "fprocess=cat")...))
	if err != nil {
		t.Fatal(err)
	}
	reportsEach(t, got.Warnings, odd)
	want, err := ParseConfig(getenv("fprocess=cat"))
	if err != nil {
		t.Fatal(err)
	}
	want.Warnings = got.Warnings
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want the defaults, %+v", got, want)
	}
}

// reportsEach wants one line about each setting and no other.
func reportsEach(t *testing.T, lines, settings []string) {
	t.Helper()
	for _, s := range settings {
		name, _, _ := strings.Cut(s, "=")
		if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, name+": ") }) {
			t.Errorf("got %q, want a line about %s", lines, name)
		}
	}
	if len(lines) != len(settings) {
		t.Errorf("got %d lines, want %d: %q", len(lines), len(settings), lines)
	}
}

func TestParseConfigRefuses(t *testing.T) {
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name     string
		settings []string
		want     string
	}{
		{"no command", nil, "fprocess: no command"},
		{"blank command", []string{"fprocess=  "}, "fprocess: no command"},
		{"empty word", []string{"fprocess=''"}, "fprocess: no command"},
		{"open quote", []string{"fprocess=sh -c 'x"}, "fprocess: single quote"},
		{"not executable", []string{"fprocess=" + plain}, "permission denied"},
		{"prefork with variables", []string{"fprocess=cat", "prefork=1"}, "prefork: "},
		{"prefork with cgi", []string{"fprocess=cat", "prefork=1", "cgi_headers=false", "mode=cgi"}, "prefork: mode cgi"},
		{"upstream without a host", []string{"fprocess=cat", "mode=http", "upstream_url=http://"}, "upstream_url: "},
		{"upstream of another scheme", []string{"fprocess=cat", "mode=http", "upstream_url=https://x"}, "upstream_url: "},
		{"upstream is itself", []string{"fprocess=cat", "mode=http", "upstream_url=http://127.0.0.1:8080"}, "upstream_url: "},
		{"upstream is itself by name", []string{"fprocess=cat", "mode=http", "port=80", "upstream_url=http://LocalHost/x"}, "upstream_url: "},
		{"upstream is itself in IPv6", []string{"fprocess=cat", "mode=http", "port=8082", "upstream_url=http://[::1]:8082"}, "upstream_url: "},
		{"fork server without a process", []string{"fprocess=cat", "forkserver=python", "mode=http"}, "forkserver: mode http"},
		{"fork server and prefork", []string{"fprocess=cat", "forkserver=python", "cgi_headers=false", "prefork=1"}, "forkserver: prefork"},
		{"modules for nobody", []string{"fprocess=cat", "forkserver_preload=json"}, "forkserver_preload: "},
		{"no directory", []string{"mode=static", "static_path=" + plain}, "static_path: "},
		{"directory is missing", []string{"mode=static", "static_path=" + plain + "-no"}, "static_path: "},
		{"header injection", []string{"fprocess=cat", "content_type=a\nb"}, "content_type: "},
		{"size beyond", []string{"fprocess=cat", "buffer_output=2GiB"}, "buffer_output: "},
		{"size overflow", []string{"fprocess=cat", "buffer_output=9223372036854775807KiB"}, "buffer_output: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := ParseConfig(getenv(tt.settings...)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// New refuses what a Go caller can get wrong.
func TestNewRefuses(t *testing.T) {
	for _, tt := range []struct {
		cfg  Config
		want string
	}{
		{Config{}, "command: "},
		{Config{Command: []string{"cat", "a\x00"}}, "command: NUL"},
		{Config{Command: []string{"cat"}, Mode: "x"}, "mode: "},
		{Config{Command: []string{"cat"}, ExecTimeout: -1}, "exec_timeout: "},
		{Config{Command: []string{"cat"}, BufferOutput: -1}, "buffer_output: "},
		{Config{Command: []string{"cat"}, MaxBody: -1}, "max_body: "},
		{Config{Command: []string{"cat"}, Mode: ModeHTTP}, "upstream_url: "},
	} {
		if _, err := New(tt.cfg, nil); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: got %v, want %q", tt.cfg, err, tt.want)
		}
	}
	if _, err := New(Config{Command: []string{"cat"}}, nil); err != nil {
		t.Errorf("a command alone: got %v, want a handler", err)
	}
}

// A listed size is what people write; its meaning must not depend on the case.
func TestSizes(t *testing.T) {
	for in, want := range map[string]int{"0": 0, "5": 5, "5B": 5, "2k": 2048, "2KiB": 2048, "2kB": 2000, "1 MiB": 1 << 20, "1MB": 1e6, "1GiB": 1 << 30} {
		s := settings{getenv: getenv("buffer_output=" + in)}
		if got := s.size("buffer_output", -1); got != want || len(s.errs) > 0 {
			t.Errorf("%s: got %d, %v, want %d", in, got, s.errs, want)
		}
	}
}
