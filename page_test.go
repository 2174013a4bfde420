package main

// The page as the gateway serves it, and what of it reaches faas-async.

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// send sends one request, follows no redirect, and returns the answer.
func send(t *testing.T, req *http.Request) (status int, body string) {
	t.Helper()
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// The files need no login: they hold nothing that is not public. What they show
// does.
func TestPage(t *testing.T) {
	base, _ := startAPI(t)
	for path, want := range map[string]int{"/ui/": 200, "/ui/main.js": 200, "/ui": 308, "/ui/x": 404, "/ui/..%2fsystem/functions": 404, "/ui/../system/functions": 404, "/system/overview": 401} {
		req, err := http.NewRequestWithContext(t.Context(), "GET", base+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if status, _ := send(t, req); status != want {
			t.Errorf("%s: got %d, want %d", path, status, want)
		}
	}
}

// The page learns what the API would say without asking it.
func TestPageAccess(t *testing.T) {
	with, without := credentialFiles(t, "admin", "secret"), t.TempDir()
	for _, c := range []struct {
		dir, provider, host, want string
	}{
		{with, "local", "", `{"state":"login"}`},
		{with, "swarm", "", `{"state":"login"}`},
		{without, "local", "", `{"state":"open"}`},
		{without, "local", "faas.example.com", `{"state":"closed","text":"without credentials only this machine`},
		{without, "swarm", "", `{"state":"closed","text":"the API is closed`},
	} {
		base := startGateway(t, newMemoryProvider(), "-auth-dir", c.dir, "-provider", c.provider)
		for path, want := range map[string]string{"/ui/access": c.want, "/system/info": ""} {
			req, err := http.NewRequestWithContext(t.Context(), "GET", base+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = c.host
			status, body := send(t, req)
			if path == "/ui/access" && (status != 200 || !strings.HasPrefix(body, want)) {
				t.Errorf("%+v: got %d %s", c, status, body)
			}
			state := map[int]string{200: "open", 401: "login", 403: "closed"}[status]
			if path == "/system/info" && !strings.Contains(c.want, state) {
				t.Errorf("%+v: the API answers %d", c, status)
			}
		}
	}
}

func TestPageURL(t *testing.T) {
	for at, want := range map[string]string{
		"[::]:8080": "http://localhost:8080/ui/", "0.0.0.0:81": "http://localhost:81/ui/", "127.0.0.1:8080": "http://127.0.0.1:8080/ui/",
		"[::1]:8080": "http://[::1]:8080/ui/", "192.0.2.7:8080": "http://192.0.2.7:8080/ui/", "[2001:db8::1]:80": "http://[2001:db8::1]:80/ui/",
	} {
		addr, err := net.ResolveTCPAddr("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		if got := pageURL(addr); got != want {
			t.Errorf("%s: got %s, want %s", at, got, want)
		}
	}
}

// /system/async/ is passed on for who has a login, and for nobody else. The other
// end knows the gateway's own login alone.
func TestAsyncCallsArePassedOn(t *testing.T) {
	var asked atomic.Int64
	queue := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if user, password, _ := r.BasicAuth(); user != "admin" || password != "secret" {
			w.WriteHeader(401)
			return
		}
		io.WriteString(w, r.Method+" "+r.URL.RequestURI())
	}))
	t.Cleanup(queue.Close)
	dir := credentialFiles(t, "admin", "secret")
	for name, text := range map[string]string{"basic-auth-reader-user": "guest", "basic-auth-reader-password": "look"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	base := startGateway(t, newMemoryProvider(), "-auth-dir", dir, "-async", queue.URL)
	for _, c := range []struct {
		user, password, method, path string
		status                       int
		want                         string
	}{
		{"admin", "secret", "GET", "/system/async/dead?limit=1", 200, "GET /system/async/dead?limit=1"},
		{"admin", "secret", "POST", "/system/async/dead/7/run", 200, "POST /system/async/dead/7/run"},
		{"admin", "secret", "DELETE", "/system/async/dead?all=true", 200, "DELETE /system/async/dead?all=true"},
		{"guest", "look", "GET", "/system/async/queue", 200, "GET /system/async/queue"},
		{"guest", "look", "POST", "/system/async/dead/7/run", 403, "may look"},
		{"guest", "secret", "GET", "/system/async/queue", 401, "invalid credentials"},
		{"admin", "look", "GET", "/system/async/queue", 401, "invalid credentials"},
		{"admin", "secret", "PUT", "/system/async/queue", 405, ""},
	} {
		before := asked.Load()
		req, err := http.NewRequestWithContext(t.Context(), c.method, base+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth(c.user, c.password)
		if status, body := send(t, req); status != c.status || !strings.Contains(body, c.want) {
			t.Errorf("%s %s as %s: got %d %q, want %d with %q", c.method, c.path, c.user, status, body, c.status, c.want)
		}
		if passed := asked.Load() > before; passed != (c.status == 200) {
			t.Errorf("%s %s as %s: passed on: %v", c.method, c.path, c.user, passed)
		}
	}
	none, _ := startAPI(t)
	if status, body := apiRequest(t, none, "GET", "/system/async/queue", ""); status != 501 {
		t.Errorf("without -async: got %d %s, want 501", status, body)
	}
}

// A body that is sent to the page is not waited for.
func TestPageWithBody(t *testing.T) {
	base, _ := startAPI(t)
	body, never := io.Pipe()
	defer never.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "POST", base+"/ui/", body)
	if err != nil {
		t.Fatal(err)
	}
	if status, _ := send(t, req); status != 405 {
		t.Errorf("got %d, want 405", status)
	}
}
