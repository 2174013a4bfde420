package watchdog

// Images made for OpenFaaS's watchdogs, by the settings that their Dockerfiles
// have.

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestOpenFaaSSettings(t *testing.T) {
	parse := func(settings ...string) Config {
		t.Helper()
		c, err := ParseConfig(getenv(settings...))
		if err != nil {
			t.Fatalf("%q: %v", settings, err)
		}
		return c
	}
	if c := parse("function_process=cat -", "fprocess=true"); strings.Join(c.Command, " ") != "cat -" {
		t.Errorf("got command %q, want that of function_process", c.Command)
	}
	if c := parse("fprocess=cat", "http_upstream_url=http://127.0.0.1:1", "upstream_url=http://127.0.0.1:2"); c.UpstreamURL != "http://127.0.0.1:1" {
		t.Errorf("got upstream %s, want that of http_upstream_url", c.UpstreamURL)
	}
	if c := parse("fprocess=cat", "mode=serializing"); c.Mode != ModeFork {
		t.Errorf("got mode %s, want fork", c.Mode)
	}
	for _, tt := range []struct {
		settings []string
		want     time.Duration
	}{
		{[]string{"write_timeout=5m"}, 5 * time.Minute},
		{[]string{"write_timeout=5s"}, 30 * time.Second},
		{[]string{"write_timeout=0"}, 30 * time.Second},
		{[]string{"write_timeout=5m", "exec_timeout=10s"}, 10 * time.Second},
		{[]string{"write_timeout=5m", "exec_timeout=0"}, 0},
	} {
		if c := parse(append(tt.settings, "fprocess=cat")...); c.ExecTimeout != tt.want {
			t.Errorf("%q: got exec_timeout %v, want %v", tt.settings, c.ExecTimeout, tt.want)
		}
	}
}

// The answer's type: content_type, or the request's, or what it looks like.
func TestContentTypeOfAnswers(t *testing.T) {
	for _, tt := range []struct{ command, setting, request, want string }{
		{"echo '<html><body>hello'", "", "", "text/html; charset=utf-8"},
		{"echo hello", "", "", "text/plain; charset=utf-8"},
		{"printf '\\211PNG\\r\\n\\032\\n'", "", "", "image/png"},
		{"true", "", "", "text/plain; charset=utf-8"},
		{"echo '<html>'", "", "application/json", "application/json"},
		{"echo '<html>'", "content_type=text/x-own", "application/json", "text/x-own"},
	} {
		settings := []string{}
		if tt.setting != "" {
			settings = append(settings, tt.setting)
		}
		url, _, _ := serve(t, testConfig(t, "sh -c \""+tt.command+"\"", settings...))
		var header []string
		if tt.request != "" {
			header = append(header, "Content-Type: "+tt.request)
		}
		resp, _ := do(t, "POST", url, strings.NewReader("x"), header...)
		if got := resp.Header.Get("Content-Type"); resp.StatusCode != 200 || got != tt.want {
			t.Errorf("%+v: got status %d and type %q, want 200 and %q", tt, resp.StatusCode, got, tt.want)
		}
	}
}

// A call is a line in the log where it is a process, a health check is none.
func TestCallsAreLogged(t *testing.T) {
	url, _, log := serve(t, testConfig(t, "sh -c 'echo hello; exit $Http_Query'"))
	do(t, "GET", url+"/_/health", nil)
	do(t, "GET", url+"/path?0", nil, "X-Call-Id: one")
	do(t, "GET", url+"/path?3", nil, "X-Call-Id: two")
	quiet, _, none := serve(t, testConfig(t, "true", "log_calls=false"))
	do(t, "GET", quiet, nil)
	got := log.String()
	for _, want := range []string{
		"msg=call call_id=one method=GET path=/path status=200 bytes=6 duration=",
		"msg=call call_id=two method=GET path=/path status=500 bytes=6 duration=",
	} {
		if strings.Count(got, want) != 1 {
			t.Errorf("want one line with %q: %s", want, got)
		}
	}
	if strings.Count(got, "msg=call") != 2 || strings.Contains(none.String(), "msg=call") {
		t.Errorf("want a line for each call where it is on: %s%s", got, none.String())
	}
}

// What the watchdog says in the function's place is marked.
func TestOwnFailuresAreMarked(t *testing.T) {
	url, _, _ := serve(t, testConfig(t, "sh -c 'test $Http_Query = fail && exit 1; sleep 60'"))
	for query, want := range map[string]string{"fail": "", "slow": "fwatchdog"} {
		limit := time.Minute
		if query == "slow" {
			limit = 300 * time.Millisecond
		}
		resp, _ := do(t, "GET", url+"?"+query, nil, "X-Timeout: "+limit.String())
		if got := resp.Header.Get("X-OpenFaaS-Internal"); resp.StatusCode < 500 || got != want {
			t.Errorf("%s: got status %d and X-OpenFaaS-Internal %q, want 500 or 504 and %q", query, resp.StatusCode, got, want)
		}
	}
	full, h, _ := serve(t, testConfig(t, "true", "max_inflight=1"))
	h.inflight.Add(1)
	defer h.inflight.Add(-1)
	if resp, _ := do(t, "GET", full, nil); resp.StatusCode != 429 || resp.Header.Get("X-OpenFaaS-Internal") != "fwatchdog" {
		t.Errorf("got status %d, X-OpenFaaS-Internal %q, want 429 and fwatchdog", resp.StatusCode, resp.Header.Get("X-OpenFaaS-Internal"))
	}
}

// STDERR is part of the answer under combine_output, and only then.
func TestStderrInTheAnswer(t *testing.T) {
	const command = "sh -c 'echo why >&2; exit 1'"
	for setting, want := range map[string]string{"combine_output=false": "", "combine_output=true": "why\n"} {
		url, _, _ := serve(t, testConfig(t, command, setting))
		if resp, body := do(t, "GET", url, nil); resp.StatusCode != 500 || body != want {
			t.Errorf("%s: got status %d, %q, want 500, %q", setting, resp.StatusCode, body, want)
		}
	}
}

// With ready_path the function says itself whether it is ready.
func TestReadyPath(t *testing.T) {
	url, h, _ := serve(t, testConfig(t, "sh -c 'echo $Http_Path; test -e ready || exit 1'", "ready_path=/am-i"))
	dir := t.TempDir()
	t.Chdir(dir)
	if resp, body := do(t, "GET", url+"/_/ready", nil); resp.StatusCode != 500 || body != "/am-i\n" {
		t.Errorf("got status %d, %q, want 500 and the path", resp.StatusCode, body)
	}
	if err := os.WriteFile(filepath.Join(dir, "ready"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if resp, _ := do(t, "GET", url+"/_/ready", nil); resp.StatusCode != 200 {
		t.Errorf("got status %d, want 200", resp.StatusCode)
	}
	h.Drain()
	if resp, _ := do(t, "GET", url+"/_/ready", nil); resp.StatusCode != 503 {
		t.Errorf("draining: got status %d, want 503", resp.StatusCode)
	}
}

// Mode static serves files, and starts nothing.
func TestStatic(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"index.html": "<html>home", "style.css": "body {}", "sub/page.html": "page"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := ParseConfig(getenv("mode=static", "static_path="+dir, "suppress_lock=true"))
	if err != nil {
		t.Fatal(err)
	}
	url, _, _ := serve(t, cfg)
	for _, tt := range []struct {
		method, path, kind, body string
		status                   int
	}{
		{"GET", "/", "text/html; charset=utf-8", "<html>home", 200},
		{"HEAD", "/", "text/html; charset=utf-8", "", 200},
		{"GET", "/style.css", "text/css; charset=utf-8", "body {}", 200},
		{"GET", "/sub/page.html", "text/html; charset=utf-8", "page", 200},
		{"GET", "/none", "text/plain; charset=utf-8", "404 page not found\n", 404},
		{"GET", "/../../etc/passwd", "text/plain; charset=utf-8", "404 page not found\n", 404},
		{"POST", "/", "text/plain; charset=utf-8", "there are files here, to GET\n", 405},
	} {
		resp, body := do(t, tt.method, url+tt.path, nil)
		if resp.StatusCode != tt.status || body != tt.body || resp.Header.Get("Content-Type") != tt.kind {
			t.Errorf("%s %s: got status %d, %q, %q, want %d, %q, %q", tt.method, tt.path, resp.StatusCode, resp.Header.Get("Content-Type"), body, tt.status, tt.kind, tt.body)
		}
	}
	if resp, _ := do(t, "GET", url+"/_/health", nil); resp.StatusCode != 200 {
		t.Errorf("health: got status %d, want 200", resp.StatusCode)
	}
}
