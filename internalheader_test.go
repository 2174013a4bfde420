package main

import (
	"io"
	"net/http"
	"testing"
	"time"
)

// What the gateway answers in a function's place is marked, where trying again
// may help: OpenFaaS's queue-workers go by that. The function's own answers are
// not, whatever their status.
func TestInternalHeader(t *testing.T) {
	p := newMemoryProvider()
	p.set("dead", nil, closedAddr(t))
	p.set("none", func(d *definition) { d.replicas = 1 })
	p.set("failing", nil, startReplica(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusBadGateway) }))
	release := make(chan struct{})
	defer close(release)
	p.set("late", func(d *definition) { d.timeout = time.Second }, startReplica(t, func(http.ResponseWriter, *http.Request) { <-release }))
	base := startGateway(t, p)
	impatient := startGateway(t, p, "-queue-timeout", "100ms")
	awaitReady(t, base, "dead", "failing", "late")
	for _, c := range []struct {
		base, function, want string
		status               int
	}{
		{base, "dead", "gateway", 502},
		{impatient, "none", "gateway", 503},
		{base, "late", "gateway", 504},
		{base, "failing", "", 502},
		{base, "unknown", "", 404},
	} {
		resp, err := http.Post(c.base+"/function/"+c.function, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if got := resp.Header.Get("X-OpenFaaS-Internal"); resp.StatusCode != c.status || got != c.want {
			t.Errorf("%s: got %d, X-OpenFaaS-Internal %q, want %d, %q", c.function, resp.StatusCode, got, c.status, c.want)
		}
	}
}
