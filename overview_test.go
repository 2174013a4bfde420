package main

// The overview: what it says of each state of a function, and what the page may do.

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func readOverview(t *testing.T, base, query string) (o overview, named map[string]functionOverview) {
	t.Helper()
	status, body := apiRequest(t, base, "GET", "/system/overview"+query, "")
	if status != 200 {
		t.Fatalf("got %d %s", status, body)
	}
	if err := json.Unmarshal([]byte(body), &o); err != nil {
		t.Fatalf("got %s: %v", body, err)
	}
	named = map[string]functionOverview{}
	for _, f := range o.Functions {
		named[f.Name] = f
	}
	return o, named
}

// awaitOverview asks until f is as wanted.
func awaitOverview(t *testing.T, base, name string, wanted func(functionOverview) bool) functionOverview {
	t.Helper()
	var f functionOverview
	for range 400 {
		_, named := readOverview(t, base, "")
		if f = named[name]; wanted(f) {
			return f
		}
		if sleep(t.Context(), 25*time.Millisecond) != nil {
			break
		}
	}
	t.Fatalf("got %+v of %s, which is not what was waited for", f, name)
	return f
}

func TestOverviewStates(t *testing.T) {
	p := newManagedProvider()
	p.set("well", nil, startReplica(t, echoReplica))
	p.set("bad", nil, startReplica(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }))
	p.set("down", func(d *definition) { d.replicas = 1 })
	p.set("asleep", func(d *definition) { d.scale.Zero, d.scale.Max = true, 5 })
	p.set("stopped", nil)
	p.set("claims", func(d *definition) {
		d.created = time.Unix(1, 0)
		d.claim(labelRoute, []string{"POST /orders"})
		d.problems = []string{"label faas.port: not a port"}
	}, startReplica(t, echoReplica))
	p.set("late", func(d *definition) {
		d.created = time.Unix(2, 0)
		d.claim(labelRoute, []string{"POST /orders"})
	}, startReplica(t, echoReplica))
	base := startGateway(t, p, "-auth-dir", credentialFiles(t, "admin", "secret"))
	for i, c := range []struct{ name, state string }{
		{"well", stateReady}, {"down", stateStarting}, {"asleep", stateAsleep}, {"stopped", stateStopped}, {"claims", stateReady},
	} {
		f := awaitOverview(t, base, c.name, func(f functionOverview) bool { return f.State == c.state })
		if f.Calls != 0 || f.Curve != nil {
			t.Errorf("%d, %s: got %+v, want no calls", i, c.name, f)
		}
	}
	// The reason comes once somebody has looked.
	awaitOverview(t, base, "down", func(f functionOverview) bool { return f.Reason == "exit code 1" })
	_, named := readOverview(t, base, "")
	if f := named["claims"]; fmt.Sprint(f.Ways) != "map[faas.route:[POST /orders]]" || fmt.Sprint(f.Problems) != "[label faas.port: not a port]" {
		t.Errorf("got ways %v and problems %q", f.Ways, f.Problems)
	}
	if f := named["late"]; len(f.Problems) != 1 || !strings.Contains(f.Problems[0], "service claims is older and has it") {
		t.Errorf("got problems %q, want the route that another function has", f.Problems)
	}
	if f := named["well"]; f.Reason != "" || f.Ready != 1 || f.Wanted != 1 {
		t.Errorf("got %+v, want one of one replica and no reason", f)
	}

	for range 5 {
		for _, name := range []string{"well", "bad"} {
			resp, err := http.Post(base+"/function/"+name, "", strings.NewReader("x"))
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
		}
	}
	f := awaitOverview(t, base, "bad", func(f functionOverview) bool { return f.Calls > 0 })
	if f.Failures != f.Calls || f.P50 <= 0 || f.P99 < f.P50 {
		t.Errorf("got %+v, want nothing but failures", f)
	}
	f = awaitOverview(t, base, "well", func(f functionOverview) bool { return f.Calls > 0 })
	if f.Failures != 0 {
		t.Errorf("got %+v, want no failures", f)
	}
}

// A replica that keeps crashing is there for a moment each time; the function is
// failing all the same, until the provider says otherwise.
func TestOverviewOfCrashes(t *testing.T) {
	p := &troubledProvider{memoryProvider: newMemoryProvider()}
	p.say(&trouble{reason: "its process ends with exit code 1", failing: true})
	p.set("crashes", func(d *definition) { d.replicas = 1 })
	base := startGateway(t, p, "-auth-dir", credentialFiles(t, "admin", "secret"))
	awaitOverview(t, base, "crashes", func(f functionOverview) bool { return f.State == stateFailing })
	p.setAddrs("crashes", startReplica(t, echoReplica))
	f := awaitOverview(t, base, "crashes", func(f functionOverview) bool { return f.Ready == 1 })
	if f.State != stateFailing || f.Reason != "its process ends with exit code 1" {
		t.Errorf("with a replica for a moment: got %+v, want it failing", f)
	}
	p.say(nil)
	awaitOverview(t, base, "crashes", func(f functionOverview) bool { return f.State == stateReady && f.Reason == "" })
}

func TestOverviewOfOne(t *testing.T) {
	base, _ := startAPI(t)
	apiRequest(t, base, "POST", "/system/functions", `{"service":"f","image":"i"}`)
	if o, _ := readOverview(t, base, "?name=f.openfaas-fn"); len(o.Functions) != 1 || o.Functions[0].Name != "f" {
		t.Errorf("got %+v, want f alone", o.Functions)
	}
	if status, body := apiRequest(t, base, "GET", "/system/overview?name=none", ""); status != 404 {
		t.Errorf("got %d %s, want 404", status, body)
	}
}

// What the page hides is what the gateway cannot do, or the login may not.
func TestOverviewAbilities(t *testing.T) {
	dir := credentialFiles(t, "admin", "secret")
	managed := newManagedProvider()
	o, _ := readOverview(t, startGateway(t, managed, "-auth-dir", dir), "")
	if want := (abilities{Write: true, Deploy: true, Secrets: true, Logs: true}); o.Can != want || o.Provider != "local" || o.Network != "" {
		t.Errorf("got %+v of %q, network %q, want %+v", o.Can, o.Provider, o.Network, want)
	}
	o, _ = readOverview(t, startGateway(t, newMemoryProvider(), "-auth-dir", dir, "-async", "http://127.0.0.1:1"), "")
	if want := (abilities{Write: true, Async: true}); o.Can != want {
		t.Errorf("got %+v, want %+v", o.Can, want)
	}

	for name, text := range map[string]string{"basic-auth-reader-user": "guest", "basic-auth-reader-password": "look"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	base := startGateway(t, managed, "-auth-dir", dir)
	asked := managed.asked
	for _, e := range new(api).endpoints() {
		method, path, found := strings.Cut(e.pattern, " ")
		if !found || method == "GET" {
			continue
		}
		path = strings.NewReplacer("{name}", "f", "{rest...}", "x").Replace(path)
		if status, body := readerRequest(t, base, method, path); status != 403 || !strings.Contains(body, "may look, and change nothing") {
			t.Errorf("%s %s as a reader: got %d %s, want 403", method, path, status, body)
		}
	}
	if managed.asked != asked {
		t.Errorf("the provider was asked %d times, want never", managed.asked-asked)
	}
	status, body := readerRequest(t, base, "GET", "/system/overview")
	if status != 200 || !strings.Contains(body, `"can":{"write":false,"deploy":true`) {
		t.Errorf("got %d %s, want an overview without write", status, body)
	}
}

func readerRequest(t *testing.T, base, method, path string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, base+path, strings.NewReader(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("guest", "look")
	return send(t, req)
}

// What a page with 500 functions asks for every other second.
func BenchmarkOverview(b *testing.B) {
	p := newMemoryProvider()
	for i := range 500 {
		p.set(fmt.Sprintf("function-%03d", i), nil, "127.0.0.1:1")
	}
	r, _ := newTestRegistry(p, accepts)
	if err := r.load(b.Context()); err != nil {
		b.Fatal(err)
	}
	for i, f := range r.functions() {
		f.history.Store(new(history))
		for tick := range 200 {
			for range i % 7 {
				f.metrics.tally.ended(200, time.Duration(tick)*time.Millisecond)
			}
			f.history.Load().sample(tick, &f.metrics.tally)
		}
	}
	a := &api{provider: p, registry: r}
	req := httptest.NewRequest("GET", "/system/overview", nil)
	for b.Loop() {
		w := httptest.NewRecorder()
		if err := a.overview(w, req, &apiCall{}); err != nil || w.Body.Len() < 50_000 {
			b.Fatalf("got %v, %d bytes", err, w.Body.Len())
		}
	}
}
