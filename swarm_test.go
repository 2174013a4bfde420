package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"faas/internal/scale"
)

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
		}, []string{`no network "functions"`, "docker network create --driver overlay --attachable --subnet 10.83.0.0/16 functions"}},
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
			d.claim(labelRoute, []string{"POST /orders/{id}", "GET /orders/{id}"})
			d.claim(labelIntent, []string{"OrderIntent", "CancelIntent"})
			d.claim(labelApplication, []string{"amzn1.ask.skill.1"})
			d.scale = scale.Limits{Kind: scale.RPS, Target: 3.5, Min: 2, Max: 7, Zero: true, ZeroDuration: 3 * time.Minute, Factor: defaultScaleFactor}
		}),
		function("everywhere", at(3, 0), func(d *definition) { d.scale.Fixed = true; d.replicas = 3 }),
		function("legacy", at(4, 0), func(d *definition) { d.replicas = 1 }),
		function("mislabelled", at(5, 0), func(d *definition) { d.replicas = 1 }),
	}
	if len(defs) != len(want) {
		t.Fatalf("got %d functions, want %d: %+v", len(defs), len(want), defs)
	}
	for i := range want {
		got := defs[i]
		if want[i].name == "mislabelled" {
			for _, label := range []string{"com.openfaas.function", "faas.function", "faas.timeout", "faas.max-inflight", "faas.port", "com.openfaas.scale.max"} {
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
	d.answer(update, refusal(404, "rpc error: code = NotFound desc = service 0aaaaaaaaaaaaaaaaaaaaaaaa not found"))
	if err := p.scale(t.Context(), definition{service: "catservice"}, func(int) int { return 1 }); !errors.Is(err, errNotFound) {
		t.Errorf("a service that goes as it is scaled: got %v, want %v", err, errNotFound)
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
		d.answer("GET /services", func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, `[{"ID":"0aaaaaaaaaaaaaaaaaaaaaaaa","Spec":{"Name":"catservice","Mode":{"Replicated":{"Replicas":%d}},`+
				`"TaskTemplate":{"Networks":[{"Target":"functions"}]}},"UpdateStatus":{"State":%q}}]`, c.replicas, c.state)
		})
		under := !strings.HasSuffix(c.state, "completed")
		if defs, err := p.list(t.Context()); err != nil || len(defs) != 1 || defs[0].rollout != under {
			t.Errorf("%s: got %v, %+v, want one function with rollout %v", c.state, err, defs, under)
		}
		if errors.Is(err, scale.ErrRollout) != c.untouched || (len(d.updates) == 0) != c.untouched {
			t.Errorf("%s with %d replicas: got %v and %d updates, want it left alone: %v", c.state, c.replicas, err, len(d.updates), c.untouched)
		}
	}
}

func TestSwarmAddresses(t *testing.T) {
	asked := make(chan string, 100)
	p := &swarmProvider{resolver: startDNS(t, func(name string) []net.IP {
		switch name {
		case "tasks.catservice.":
			asked <- name
			return []net.IP{{10, 0, 1, 9}, {10, 0, 1, 12}, {10, 0, 1, 9}}
		case "tasks.nothing.":
			return []net.IP{}
		}
		return nil
	})}
	look := func(d definition) ([]string, error) {
		limit := 20 * time.Second
		if d.service == "hangs" {
			limit = 300 * time.Millisecond
		}
		ctx, cancel := context.WithTimeout(t.Context(), limit)
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
	if got, err := look(definition{service: "catservice", port: 1, scale: scale.Limits{Fixed: true}}); err != nil || len(got) != 2 {
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
