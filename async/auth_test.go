package main

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func writeLogin(t *testing.T, dir, user, password string) {
	t.Helper()
	for name, text := range map[string]string{"basic-auth-user": user, "basic-auth-password": password} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLogin(t *testing.T) {
	a := newAuth(t.TempDir(), newMetrics(), slog.New(slog.NewTextHandler(io.Discard, nil)))
	reached := false
	h := a.guard(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	try := func(name string, want int, change func(*http.Request)) {
		t.Helper()
		r := httptest.NewRequest("POST", "http://localhost:8081/system/async/dead/run", nil)
		r.RemoteAddr, reached = "127.0.0.1:1234", false
		change(r)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != want || reached != (want == 200) {
			t.Errorf("%s: got %d, reached %v, want %d", name, w.Code, reached, want)
		}
		if want == 401 && w.Header().Get("WWW-Authenticate") != `Basic realm="Restricted"` {
			t.Errorf("%s: got %v", name, w.Header())
		}
	}
	none := func(*http.Request) {}
	from := func(addr string) func(*http.Request) { return func(r *http.Request) { r.RemoteAddr = addr } }
	host := func(host string) func(*http.Request) { return func(r *http.Request) { r.Host = host } }
	login := func(user, password string) func(*http.Request) {
		return func(r *http.Request) { r.SetBasicAuth(user, password) }
	}
	// Without credentials: this machine alone, under its own names.
	try("loopback", 200, none)
	try("loopback, IPv6", 200, from("[::1]:1"))
	try("elsewhere", 403, from("10.0.0.1:1"))
	try("a name that leads here", 403, host("evil.example"))
	try("an address as name", 200, host("127.0.0.1:8081"))
	try("IPv6 as name", 200, host("[::1]:8081"))
	try("a page's request", 403, func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") })
	// With: the login alone decides, and a changed file counts at once.
	writeLogin(t, a.dir, "admin", "secret")
	try("no login", 401, none)
	try("right", 200, login("admin", "secret"))
	try("right, from elsewhere", 200, func(r *http.Request) { from("10.0.0.1:1")(r); login("admin", "secret")(r) })
	try("wrong password", 401, login("admin", "secre"))
	try("wrong user", 401, login("root", "secret"))
	try("a token", 401, func(r *http.Request) { r.Header.Set("Authorization", "Bearer ") })
	writeLogin(t, a.dir, "admin", "new")
	try("old password", 401, login("admin", "secret"))
	try("new password", 200, login("admin", "new"))
	try("a page's request with a login", 403, func(r *http.Request) {
		login("admin", "new")(r)
		r.Header.Set("Origin", "https://evil.example")
	})
}

// Each failure costs its address more time, a success ends that.
func TestPenalty(t *testing.T) {
	a := newAuth(t.TempDir(), newMetrics(), slog.New(slog.NewTextHandler(io.Discard, nil)))
	one, two := remoteAddr(&http.Request{RemoteAddr: "10.0.0.1:1"}), remoteAddr(&http.Request{RemoteAddr: "[2001:db8::1]:1"})
	for _, want := range []time.Duration{100, 200, 400, 800, 1600, 3200, 5000, 5000} {
		if got := a.penalty(one); got != want*time.Millisecond {
			t.Errorf("got %s, want %s", got, want*time.Millisecond)
		}
	}
	if got := a.penalty(two); got != firstPenalty {
		t.Errorf("another address: got %s", got)
	}
	a.forgive(one)
	if got := a.penalty(one); got != firstPenalty {
		t.Errorf("after a success: got %s", got)
	}
}

// The gateway's list is asked for with the login.
func TestLoginAtGateway(t *testing.T) {
	g := newStandIn(t)
	c := testConfig(t, g.URL)
	writeLogin(t, c.authDir, "admin", "secret")
	startService(t, c)
	within(t, soon, "asked", func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return len(g.logins) > 0 && g.logins[len(g.logins)-1] == "admin:secret"
	})
}
