package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

// A fakeDocker answers as the Docker API does, with what testdata/docker holds.
type fakeDocker struct {
	t *testing.T

	mu       sync.Mutex
	answers  map[string]http.HandlerFunc // by method and path without the version
	requests []string
	updates  []serviceUpdate
}

// A serviceUpdate is what a POST to /services/ID/update said.
type serviceUpdate struct {
	version, registryAuthFrom, auth string
	replicas                        uint64
	image                           string
}

// startDocker serves a fake API until the test ends, and makes the Docker
// client of this process use it.
func startDocker(t *testing.T) *fakeDocker {
	t.Helper()
	d := &fakeDocker{t: t, answers: map[string]http.HandlerFunc{}}
	s := httptest.NewServer(d)
	t.Cleanup(s.Close)
	t.Setenv("DOCKER_HOST", "tcp://"+s.Listener.Addr().String())
	t.Setenv("DOCKER_TLS_VERIFY", "")
	t.Setenv("DOCKER_CERT_PATH", "")
	t.Setenv("DOCKER_API_VERSION", "")
	d.answer("GET /info", file(t, "info.json"))
	d.answer("GET /networks/functions", file(t, "network.json"))
	d.answer("GET /services", file(t, "services.json"))
	return d
}

// file answers with a file of testdata/docker.
func file(t *testing.T, name string) http.HandlerFunc {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "docker", name))
	if err != nil {
		t.Fatal(err)
	}
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Write(b)
	}
}

// refusal answers with an error as Docker words it.
func refusal(status int, message string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(map[string]string{"message": message})
	}
}

func (d *fakeDocker) answer(what string, h http.HandlerFunc) {
	d.mu.Lock()
	d.answers[what] = h
	d.mu.Unlock()
}

func (d *fakeDocker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Api-Version", "1.41")
	w.Header().Set("Ostype", "linux")
	path := r.URL.Path
	if strings.HasPrefix(path, "/v1.") {
		path = path[strings.Index(path[1:], "/")+1:]
	}
	if path == "/_ping" {
		io.WriteString(w, "OK")
		return
	}
	d.mu.Lock()
	d.requests = append(d.requests, r.Method+" "+path+"?"+r.URL.RawQuery)
	h := d.answers[r.Method+" "+path]
	d.mu.Unlock()
	if h == nil {
		refusal(http.StatusNotFound, "page not found")(w, r)
		return
	}
	h(w, r)
}

// updated answers a service update with fail, if there is one, and keeps it.
func (d *fakeDocker) updated(fail func(n int) string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var spec struct {
			Mode struct {
				Replicated struct{ Replicas *uint64 }
			}
			TaskTemplate struct {
				ContainerSpec struct{ Image string }
			}
		}
		if err := json.NewDecoder(r.Body).Decode(&spec); err != nil {
			d.t.Errorf("update: %v", err)
		}
		q := r.URL.Query()
		u := serviceUpdate{q.Get("version"), q.Get("registryAuthFrom"), r.Header.Get("X-Registry-Auth"), 0, spec.TaskTemplate.ContainerSpec.Image}
		if spec.Mode.Replicated.Replicas != nil {
			u.replicas = *spec.Mode.Replicated.Replicas
		}
		d.mu.Lock()
		d.updates = append(d.updates, u)
		n := len(d.updates)
		d.mu.Unlock()
		if message := fail(n); message != "" {
			refusal(http.StatusInternalServerError, message)(w, r)
			return
		}
		io.WriteString(w, `{"Warnings":null}`)
	}
}

var swarmDefaults = definition{port: 8080, timeout: time.Minute, maxInflight: 5,
	scale: scaleLimits{kind: scaleCapacity, target: 10, min: 1, max: 20, zeroDuration: defaultZeroDuration, factor: defaultScaleFactor}}

func connect(t *testing.T) *swarmProvider {
	t.Helper()
	p, err := newSwarm(t.Context(), "functions", swarmDefaults)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.docker.Close() })
	return p
}

// An operator who starts the gateway in the wrong place is told what to do.
func TestSwarmSaysWhyItCannotStart(t *testing.T) {
	for _, c := range []struct {
		name  string
		set   func(t *testing.T, d *fakeDocker)
		wants []string
	}{
		{"no API", func(t *testing.T, d *fakeDocker) { t.Setenv("DOCKER_HOST", "tcp://"+closedAddr(t)) },
			[]string{"no Docker API at tcp://127.0.0.1:", "/var/run/docker.sock"}},
		{"no socket", func(t *testing.T, d *fakeDocker) { t.Setenv("DOCKER_HOST", "unix://"+t.TempDir()+"/docker.sock") },
			[]string{"no Docker API at unix://", "mount the socket"}},
		{"the API fails", func(t *testing.T, d *fakeDocker) { d.answer("GET /info", refusal(500, "disk is on fire")) },
			[]string{"disk is on fire"}},
		{"not a Swarm", func(t *testing.T, d *fakeDocker) {
			d.answer("GET /info", func(w http.ResponseWriter, r *http.Request) {
				io.WriteString(w, `{"Swarm":{"LocalNodeState":"inactive","ControlAvailable":false}}`)
			})
		}, []string{"not a Swarm manager", `"inactive"`, "docker swarm init"}},
		{"a worker", func(t *testing.T, d *fakeDocker) {
			d.answer("GET /info", func(w http.ResponseWriter, r *http.Request) {
				io.WriteString(w, `{"Swarm":{"LocalNodeState":"active","ControlAvailable":false}}`)
			})
		}, []string{"not a Swarm manager", "start the gateway on a manager"}},
		{"no network", func(t *testing.T, d *fakeDocker) {
			d.answer("GET /networks/functions", refusal(404, "network functions not found"))
		}, []string{`no network "functions"`, "docker network create --driver overlay --attachable functions"}},
		{"a bridge", func(t *testing.T, d *fakeDocker) {
			d.answer("GET /networks/functions", func(w http.ResponseWriter, r *http.Request) {
				io.WriteString(w, `{"Name":"functions","Id":"1","Driver":"bridge","Scope":"local"}`)
			})
		}, []string{"bridge", "not an overlay", "-network"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.set(t, startDocker(t))
			_, err := newSwarm(t.Context(), "functions", swarmDefaults)
			if err == nil {
				t.Fatal("got no error")
			}
			for _, want := range c.wants {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %q, want %q in it", err, want)
				}
			}
			var stderr strings.Builder
			if got := run(t.Context(), []string{"-provider=swarm"}, env(), io.Discard, &stderr, nil); got != exitFailure {
				t.Errorf("got exit status %d, want %d", got, exitFailure)
			}
			if n := strings.Count(stderr.String(), "\n"); n != 1 || !strings.Contains(stderr.String(), "gateway ended") {
				t.Errorf("got %d lines, want one:\n%s", n, &stderr)
			}
		})
	}
}

func TestSwarmServicesBecomeFunctions(t *testing.T) {
	startDocker(t)
	p := connect(t)
	defs, err := p.list(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	at := func(second int, fraction time.Duration) time.Time {
		return time.Date(2026, 3, 1, 10, 0, second, int(fraction), time.UTC)
	}
	function := func(name string, created time.Time, change func(d *definition)) definition {
		d := swarmDefaults
		d.name, d.service, d.created = name, name, created
		change(&d)
		return d
	}
	want := []definition{
		function("catservice", at(1, 500*time.Millisecond), func(d *definition) { d.replicas = 3 }),
		function("orders", at(2, 0), func(d *definition) {
			d.service, d.timeout, d.maxInflight, d.port = "shop_orders", 90*time.Second, 12, 9000
			d.routes = []string{"POST /orders/{id}", "GET /orders/{id}"}
			d.intents, d.applications = []string{"OrderIntent", "CancelIntent"}, []string{"amzn1.ask.skill.1"}
			d.scale = scaleLimits{kind: scaleRPS, target: 3.5, min: 2, max: 7, zero: true, zeroDuration: 3 * time.Minute, factor: defaultScaleFactor}
		}),
		function("everywhere", at(3, 0), func(d *definition) { d.scale.fixed = true; d.replicas = 3 }),
		function("legacy", at(4, 0), func(d *definition) { d.replicas = 1 }),
		function("mislabelled", at(5, 0), func(d *definition) { d.replicas = 1 }),
	}
	if len(defs) != len(want) {
		t.Fatalf("got %d functions, want %d: %+v", len(defs), len(want), defs)
	}
	for i := range want {
		got := defs[i]
		if want[i].name == "mislabelled" {
			for _, label := range []string{labelName, labelFunction, labelTimeout, labelMaxInflight, labelPort, "com.openfaas.scale.max"} {
				if n := strings.Count(strings.Join(got.problems, "\n"), "label "+label); n != 1 {
					t.Errorf("label %s is reported %d times, want once, in %q", label, n, got.problems)
				}
			}
			got.problems = nil
		}
		if !reflect.DeepEqual(got, want[i]) {
			t.Errorf("got  %+v\nwant %+v", got, want[i])
		}
	}
	d := p.defaults
	if !reflect.DeepEqual(d, swarmDefaults) {
		t.Errorf("the defaults became %+v", d)
	}
}

func TestSwarmListFails(t *testing.T) {
	d := startDocker(t)
	p := connect(t)
	d.answer("GET /services", refusal(503, "rpc error: code = Unknown desc = The swarm does not have a leader."))
	if _, err := p.list(t.Context()); err == nil || !strings.Contains(err.Error(), "list services") || !strings.Contains(err.Error(), "leader") {
		t.Errorf("got %v, want an error that says what was tried and what Docker said", err)
	}
	d.answer("GET /services", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := p.list(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("an API that hangs: got %v, want %v", err, context.DeadlineExceeded)
	}
}

func TestSwarmWatchFollowsServiceEvents(t *testing.T) {
	d := startDocker(t)
	p := connect(t)
	send := make(chan string)
	d.answer("GET /events", func(w http.ResponseWriter, r *http.Request) {
		if got := r.URL.Query().Get("filters"); !strings.Contains(got, "service") {
			t.Errorf("got filters %q, want services", got)
		}
		control := http.NewResponseController(w)
		control.Flush()
		for line := range send {
			io.WriteString(w, line+"\n")
			control.Flush()
		}
	})
	changed := make(chan struct{}, 10)
	ended := make(chan error, 1)
	go func() { ended <- p.watch(t.Context(), func() { changed <- struct{}{} }) }()
	<-changed // it has subscribed
	for _, action := range []string{"create", "update", "remove"} {
		send <- fmt.Sprintf(`{"Type":"service","Action":%q,"Actor":{"ID":"0aaa","Attributes":{"name":"catservice"}},"scope":"swarm","time":1772359200}`, action)
		<-changed
	}
	close(send) // the API goes away
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "watch services") {
		t.Errorf("got %v, want an error that says what broke", err)
	}

	d.answer("GET /events", refusal(500, "no"))
	if err := p.watch(t.Context(), func() {}); err == nil {
		t.Error("a subscription that is refused: got no error")
	}
	d.answer("GET /events", func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	if err := p.watch(ctx, cancel); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}

// service answers as GET /services/ID does, with replicas that may change.
func service(replicas func() (version, n int)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		version, n := replicas()
		fmt.Fprintf(w, `{"ID":"0aaaaaaaaaaaaaaaaaaaaaaaa","Version":{"Index":%d},"Spec":{"Name":"catservice","Labels":{"keep":"me"},`+
			`"TaskTemplate":{"ContainerSpec":{"Image":"catservice:1"}},"Mode":{"Replicated":{"Replicas":%d}}}}`, version, n)
	}
}

func TestSwarmScale(t *testing.T) {
	const outOfSequence = "rpc error: code = Unknown desc = update out of sequence"
	d := startDocker(t)
	p := connect(t)
	version, replicas := 20, 2
	d.answer("GET /services/catservice", service(func() (int, int) { return version, replicas }))
	update := "POST /services/0aaaaaaaaaaaaaaaaaaaaaaaa/update"
	d.answer(update, d.updated(func(n int) string {
		if n < 3 { // others change it in between
			version++
			replicas++
			return outOfSequence
		}
		return ""
	}))
	var seen []int
	err := p.scale(t.Context(), definition{service: "catservice"}, func(current int) int {
		seen = append(seen, current)
		return 9
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := []int{2, 3, 4}; !reflect.DeepEqual(seen, want) {
		t.Errorf("decided for %v replicas, want %v: read again each time", seen, want)
	}
	want := serviceUpdate{version: "22", registryAuthFrom: "spec", replicas: 9, image: "catservice:1"}
	if got := d.updates[len(d.updates)-1]; got != want {
		t.Errorf("update: got %+v, want %+v", got, want)
	}

	d.updates = nil
	if err := p.scale(t.Context(), definition{service: "catservice"}, func(current int) int { return current }); err != nil || len(d.updates) > 0 {
		t.Errorf("as many as there are: got %v and %d updates, want none", err, len(d.updates))
	}
	if err := p.scale(t.Context(), definition{service: "catservice"}, func(int) int { return 0 }); err != nil || d.updates[0].replicas != 0 {
		t.Errorf("to none: got %v and %+v", err, d.updates)
	}

	d.updates = nil
	d.answer(update, d.updated(func(int) string { return outOfSequence }))
	if err := p.scale(t.Context(), definition{service: "catservice"}, func(int) int { return 1 }); err == nil || len(d.updates) != scaleAttempts {
		t.Errorf("always out of sequence: got %v after %d attempts, want an error after %d", err, len(d.updates), scaleAttempts)
	}
	d.updates = nil
	d.answer(update, d.updated(func(int) string { return "no space left" }))
	if err := p.scale(t.Context(), definition{service: "catservice"}, func(int) int { return 1 }); err == nil || len(d.updates) != 1 ||
		!strings.Contains(err.Error(), "no space left") || !strings.Contains(err.Error(), "catservice") {
		t.Errorf("another error: got %v after %d attempts, want it at once, with the service's name", err, len(d.updates))
	}
	if err := p.scale(t.Context(), definition{service: "removed"}, func(int) int { return 1 }); !errors.Is(err, errNotFound) {
		t.Errorf("a service that is gone: got %v, want %v", err, errNotFound)
	}
	d.answer("GET /services/everywhere", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `{"ID":"1","Spec":{"Name":"everywhere","Mode":{"Global":{}}}}`)
	})
	if err := p.scale(t.Context(), definition{service: "everywhere"}, func(int) int { return 1 }); err == nil || !strings.Contains(err.Error(), "not a replicated service") {
		t.Errorf("a global service: got %v, want an error that says so", err)
	}
	d.answer("GET /services/catservice", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := p.scale(ctx, definition{service: "catservice"}, func(int) int { return 1 }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("an API that hangs: got %v, want %v", err, context.DeadlineExceeded)
	}
}

// A change of replicas would make Swarm go on with a paused rollout, and would
// make the version that is being rolled out the one to roll back to.
func TestSwarmLeavesARolloutAlone(t *testing.T) {
	d := startDocker(t)
	p := connect(t)
	for _, c := range []struct {
		state     string
		replicas  int
		untouched bool
	}{
		{"updating", 2, true}, {"paused", 2, true}, {"rollback_started", 2, true}, {"rollback_paused", 2, true},
		{"completed", 2, false}, {"rollback_completed", 2, false}, {"paused", 0, false},
	} {
		d.answer("GET /services/catservice", func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, `{"ID":"0aaaaaaaaaaaaaaaaaaaaaaaa","Version":{"Index":7},"Spec":{"Name":"catservice",`+
				`"Mode":{"Replicated":{"Replicas":%d}}},"UpdateStatus":{"State":%q}}`, c.replicas, c.state)
		})
		d.answer("POST /services/0aaaaaaaaaaaaaaaaaaaaaaaa/update", d.updated(func(int) string { return "" }))
		d.updates = nil
		err := p.scale(t.Context(), definition{service: "catservice"}, func(int) int { return 5 })
		if errors.Is(err, errRollout) != c.untouched || (len(d.updates) == 0) != c.untouched {
			t.Errorf("%s with %d replicas: got %v and %d updates, want it left alone: %v", c.state, c.replicas, err, len(d.updates), c.untouched)
		}
	}
}

// startDNS answers queries for A records by answer, until the test ends; nil
// is no answer at all.
func startDNS(t *testing.T, answer func(name string) []net.IP) *net.Resolver {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 512)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			q := b[:n]
			name, end := "", 12
			for q[end] != 0 {
				name += string(q[end+1:end+1+int(q[end])]) + "."
				end += 1 + int(q[end])
			}
			end += 5 // the root label, type, class
			ips := answer(name)
			if ips == nil {
				continue
			}
			r := append([]byte{q[0], q[1], 0x81, 0x80, 0, 1, 0, byte(len(ips)), 0, 0, 0, 0}, q[12:end]...)
			if len(ips) == 0 {
				r[3] |= 3 // NXDOMAIN
			}
			for _, ip := range ips {
				r = append(r, 0xc0, 12, 0, 1, 0, 1, 0, 0, 2, 88, 0, 4)
				r = append(r, ip.To4()...)
			}
			pc.WriteTo(r, from)
		}
	}()
	t.Cleanup(func() {
		pc.Close()
		<-done
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", pc.LocalAddr().String())
	}}
}

func TestSwarmAddresses(t *testing.T) {
	asked := make(chan string, 100)
	p := &swarmProvider{resolver: startDNS(t, func(name string) []net.IP {
		asked <- name
		switch name {
		case "tasks.catservice.":
			return []net.IP{{10, 0, 1, 9}, {10, 0, 1, 12}, {10, 0, 1, 9}}
		case "tasks.nothing.":
			return []net.IP{}
		}
		return nil
	})}
	look := func(d definition) ([]string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		return p.addresses(ctx, d)
	}
	got, err := look(definition{service: "catservice", port: 9000, replicas: 2})
	if want := []string{"10.0.1.12:9000", "10.0.1.9:9000"}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if got, err := look(definition{service: "nothing", port: 1, replicas: 2}); err != nil || len(got) != 0 {
		t.Errorf("a name that DNS does not have: got %v, %v, want none", got, err)
	}
	if got, err := look(definition{service: "hangs", port: 1, replicas: 1}); err == nil || !strings.Contains(err.Error(), "tasks.hangs") {
		t.Errorf("no answer: got %v, %v, want an error with the name", got, err)
	}
	for len(asked) > 0 {
		<-asked
	}
	if got, err := look(definition{service: "catservice", port: 1}); err != nil || len(got) != 0 || len(asked) > 0 {
		t.Errorf("no replica wanted: got %v, %v and %d queries, want nothing asked", got, err, len(asked))
	}
	if got, err := look(definition{service: "catservice", port: 1, scale: scaleLimits{fixed: true}}); err != nil || len(got) != 2 {
		t.Errorf("a global service: got %v, %v, want its tasks", got, err)
	}
}

// The whole gateway on the fake API: it comes up, and goes on without the API.
func TestSwarmGatewayOutlivesTheAPI(t *testing.T) {
	d := startDocker(t)
	p := connect(t)
	d.answer("GET /events", func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	p.resolver = startDNS(t, func(string) []net.IP { return nil })
	base := startGateway(t, p)
	for _, what := range []string{"GET /events", "GET /services", "GET /info"} {
		d.answer(what, refusal(500, "gone"))
	}
	if resp, _ := call(t, "GET", base+"/function/nope", ""); resp.StatusCode != 404 {
		t.Errorf("got %d, want 404", resp.StatusCode)
	}
	if resp, _ := call(t, "GET", base+"/healthz", ""); resp.StatusCode != 200 {
		t.Errorf("/healthz: got %d, want 200", resp.StatusCode)
	}
	if _, text := call(t, "GET", base+"/metrics", ""); !strings.Contains(text, `gateway_service_target_count{function_name="catservice"} 3`) {
		t.Error("the wanted replicas of catservice are not exposed")
	}
}
