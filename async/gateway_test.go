package main

// The real gateway in front and behind: it passes calls on, lists the functions
// with their labels, and runs them.

import (
	"net/http"
	"strings"
	"sync"
	"testing"
)

// Retries, schedules and topics come from labels that the gateway lists, to whoever
// has the login; calls come through the gateway. It takes every label that is read
// here: it has its own list of their names.
func TestRealGateway(t *testing.T) {
	var mu sync.Mutex
	due, tries, got := map[string]int{}, 0, ""
	rec := newStandIn(t)
	rec.behind = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if at := r.Header.Get("X-Due"); at != "" {
			due[at]++
			return
		}
		tries++
		got = r.Method + " " + r.RequestURI + " " + r.Header.Get("X-Forwarded-For") + " " + r.Header.Get("X-Call-Id")
		w.WriteHeader(http.StatusTeapot)
	})
	login := t.TempDir()
	writeLogin(t, login, "admin", "secret")
	async := freePort(t)
	_, gateway := startGateway(t, map[string]string{"f": rec.URL},
		"-auth-dir", login, "-async", "http://"+async, "-trusted-proxies", "127.0.0.1",
		"-label", "f:"+labelSchedule+"=@every 1s", "-label", "f:"+labelGrace+"=1m", "-label", "f:"+labelTopic+"=orders", "-label", "f:schedule=@hourly",
		"-label", "f:"+labelAttempts+"=2", "-label", "f:"+labelCodes+"=418", "-label", "f:"+labelMinWait+"=10ms", "-label", "f:"+labelMaxWait+"=20ms")

	if a := ask(t, "POST", "http://"+gateway+"/async-function/f", "x"); a.code != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
		t.Errorf("before faas-async runs: got %d, want 503 that says when", a.code)
	}
	startProgram(t, "faas-async", build(t, "faas-async", "."), nil, "-listen", async, "-gateway", "http://"+gateway,
		"-nats-listen", "none", "-auth-dir", login, "-poll", "1s", "-drain", "0s", "-min-free", "1MiB", "-data", t.TempDir())
	healthy(t, async)
	within(t, soon, "a scheduled run", func() bool { mu.Lock(); defer mu.Unlock(); return len(due) > 1 })

	a := ask(t, "POST", "http://"+gateway+"/async-function/f.openfaas-fn/a%2Fb?x=1", "x", "X-Call-Id", "mine-1", "X-Forwarded-For", "192.0.2.7")
	if a.code != http.StatusAccepted || a.header.Get("X-Call-Id") != "mine-1" {
		t.Fatalf("got %d with the call ID %q, want 202 with mine-1", a.code, a.header.Get("X-Call-Id"))
	}
	within(t, soon, "the call is given up", func() bool {
		return strings.Contains(ask(t, "GET", "http://"+gateway+"/async-function/mine-1", "").body, `"status":"dead"`)
	})
	mu.Lock()
	defer mu.Unlock()
	if tries != 2 {
		t.Errorf("got %d tries, want the label's 2", tries)
	}
	if want := "POST /a%2Fb?x=1 192.0.2.7, "; !strings.HasPrefix(got, want) || !strings.HasSuffix(got, " mine-1") {
		t.Errorf("the function got %q, want it to begin with %q and end with the call ID", got, want)
	}
}
