package e2e

// As many replicas as the load needs, on a real Swarm: up within seconds, down
// when it is over, to none and back, and what people do by hand stays.

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The gauges of the gateway that the tests of scaling look at.
const (
	wantedGauge = "gateway_service_target_count"
	readyGauge  = "gateway_service_count"
)

// The windows of the autoscaler are long, so the tests run side by side.
func TestAutoscale(t *testing.T) {
	l := useLab(t)
	g := startGateway(t, l.node(1))
	for _, tt := range []struct {
		name string
		test func(*testing.T, *lab, *gateway)
	}{
		{"step", testStep},
		{"to none and back", testToNone},
		{"by hand", testByHand},
		{"bad labels", testBadLabels},
		{"removed while scaling", testRemovedWhileScaling},
		{"cannot start", testCannotStart},
		{"paused rollout", testPausedRollout},
		{"no addresses", testNoAddresses},
		{"full cluster", testFullCluster},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.test(t, l, g)
		})
	}
}

// Two functions, each by its own load: one gets a step from none to 40
// requests in flight, the other a steady 15, which go on.
func testStep(t *testing.T, l *lab, g *gateway) {
	const up, down = 3 * time.Second, time.Minute
	for _, name := range []string{"step", "steady15"} {
		createFunction(t, l, name, catImage, "--env", sleeper, "--label", "com.openfaas.scale.target=10")
		waitReplicas(t, l, name, 1)
		g.waitAnswer(t, name)
	}
	changes := newTable("Two functions, target 10", "function", "requests in flight", "replicas wanted", "after")
	row := func(function string, load, wanted int, from, at time.Time) time.Duration {
		took := at.Sub(from)
		changes.row(function, load, wanted, fmt.Sprintf("%.1f s", took.Seconds()))
		return took
	}
	other := sleeping(t, g, "steady15", 15)
	load := sleeping(t, g, "step", 40)
	if took := row("step", 40, 4, load.began, g.waitWanted(t, "step", 4)); took > up {
		t.Errorf("got 4 replicas ordered %v after the step, want it within %v", took.Round(time.Millisecond), up)
	}
	row("steady15", 15, 2, other.began, g.waitWanted(t, "steady15", 2))
	row("step, all ready", 40, 4, load.began, g.waitGauge(t, readyGauge, "step", 4))
	// Until now the number has gone up alone.
	if got := g.wanted(t, "step"); got != 4 {
		t.Errorf("got %d replicas ordered for 40 requests, want 4", got)
	}

	report, ended := load.end(), time.Now()
	for last := 4; last > 1; {
		got := g.wanted(t, "step")
		if got != last {
			row("step", 0, got, ended, time.Now())
			last = got
		}
		if other := g.wanted(t, "steady15"); other != 2 {
			t.Fatalf("got %d replicas for the function whose load goes on, want 2", other)
		}
		if time.Since(ended) > down {
			t.Fatalf("got %d replicas %v after the end of the load, want 1", got, down)
		}
		sleepUntil(t.Context(), time.Now().Add(100*time.Millisecond))
	}
	loads := newLoadTable("Requests that take half a second, while replicas come and go")
	for name, r := range map[string]loadReport{"step": report, "steady15": other.end()} {
		loads.load(name, r)
		if failed := r.failed(); len(failed) != 0 {
			t.Errorf("%s: got %d requests that failed, want none; the first: %+v", name, len(failed), failed[0])
		}
	}
	changes.print(t)
	loads.print(t)
}

func testToNone(t *testing.T, l *lab, g *gateway) {
	const name, idle = "tonone", 5 * time.Second
	createFunction(t, l, name, catImage, "--env", "healthcheck_interval=0",
		"--label", "com.openfaas.scale.zero=true", "--label", "com.openfaas.scale.zero-duration=5s")
	g.waitAnswer(t, name)
	times := newTable("To no replica with zero-duration=5s, and back", "round", "ordered after", "gone after", "next call answered after")
	for round := range 2 {
		if a := g.post(t, "/function/"+name, nil, []byte("hello")); a.status != http.StatusOK {
			t.Fatalf("got status %d, want 200: %s", a.status, firstLine(a.body))
		}
		last := time.Now()
		ordered := g.waitWanted(t, name, 0).Sub(last)
		waitNoContainer(t, l, name)
		gone := time.Since(last)
		if ordered < idle || ordered > 2*idle {
			t.Errorf("got no replica ordered %v after the last request, want it between %v and %v", ordered, idle, 2*idle)
		}
		called := time.Now()
		a := g.post(t, "/function/"+name, nil, []byte("again"))
		if a.status != http.StatusOK || string(a.body) != "again" {
			t.Fatalf("got status %d and %q from the next call, want 200 and what was sent", a.status, firstLine(a.body))
		}
		times.row(round+1, ordered.Round(100*time.Millisecond), gone.Round(100*time.Millisecond), time.Since(called).Round(10*time.Millisecond))
	}
	times.print(t)
}

// Replicas ordered by hand are left alone, although there is no load.
func testByHand(t *testing.T, l *lab, g *gateway) {
	const name, replicas = "byhand", 3
	createFunction(t, l, name, catImage)
	g.waitAnswer(t, name)
	l.docker(t, "service", "scale", "--detach", name+"="+strconv.Itoa(replicas))
	g.waitWanted(t, name, replicas)
	g.waitGauge(t, readyGauge, name, replicas)
	// Longer than the windows that a step down waits for.
	for until := time.Now().Add(45 * time.Second); time.Now().Before(until); {
		if got := g.wanted(t, name); got != replicas {
			t.Fatalf("got %d replicas, want the %d ordered by hand", got, replicas)
		}
		if a := g.post(t, "/function/"+name, nil, nil); a.status != http.StatusOK {
			t.Fatalf("got status %d, want 200: %s", a.status, firstLine(a.body))
		}
		sleepUntil(t.Context(), time.Now().Add(time.Second))
	}
	if got := g.scalings(t, name); got != 0 {
		t.Errorf("got %d changes by the gateway, want none", got)
	}
	if lines := g.logLines("function scaled by hand", "function="+name); len(lines) != 1 {
		t.Errorf("got %d lines about it in the log, want 1: %q", len(lines), lines)
	}
}

// Each label that cannot be used is reported once, and its default holds.
func testBadLabels(t *testing.T, l *lab, g *gateway) {
	const name = "badlabels"
	before := g.metric(t, "gateway_label_errors_total")
	labels := map[string]string{
		"com.openfaas.scale.min":           "7", // above the maximum
		"com.openfaas.scale.max":           "3",
		"com.openfaas.scale.target":        "0",
		"com.openfaas.scale.type":          "cpu",
		"com.openfaas.scale.zero":          "perhaps",
		"com.openfaas.scale.zero-duration": "-5s",
		"com.openfaas.scale.factor":        "many",
	}
	var args []string
	for label, value := range labels {
		args = append(args, "--label", label+"="+value)
	}
	createFunction(t, l, name, catImage, args...)
	g.waitAnswer(t, name)
	// Changed for another reason: nothing is reported a second time.
	l.docker(t, "service", "update", "--detach", "--no-resolve-image", "--label-add", "com.example.other=1", name)
	l.docker(t, "service", "scale", "--detach", name+"=2")
	g.waitWanted(t, name, 2)

	reported := newTable("Labels that cannot be used", "what the log says")
	lines := g.logLines("label rejected", "service "+name+":")
	for _, line := range lines {
		_, problem, _ := strings.Cut(line, "problem=")
		reported.row(problem)
	}
	reported.print(t)
	const wrong = 6 // minimum and maximum are one
	if len(lines) != wrong {
		t.Errorf("got %d lines in the log, want %d", len(lines), wrong)
	}
	if got := g.metric(t, "gateway_label_errors_total") - before; got != wrong {
		t.Errorf("got %v counted, want %d", got, wrong)
	}
	if got := g.scalings(t, name); got != 0 {
		t.Errorf("got %d changes by the gateway, want none: by default 1 to 20 replicas are right", got)
	}
}

// A service that is removed while its replicas are on the way ends like any
// other: its callers are answered, and nothing of it is left.
func testRemovedWhileScaling(t *testing.T, l *lab, g *gateway) {
	const name = "removed"
	createFunction(t, l, name, catImage, "--env", sleeper, "--label", "com.openfaas.scale.target=2")
	g.waitAnswer(t, name)
	load := sleeping(t, g, name, 30)
	if err := pollFor(t, func() bool { return g.wanted(t, name) > 1 }); err != nil {
		t.Fatalf("the load orders no replica: %v", err)
	}
	l.docker(t, "service", "rm", name)
	g.waitStatus(t, "/function/"+name, http.StatusNotFound)
	report := load.end()
	for _, r := range report.failed() {
		// Who was inside a replica that Swarm killed sees that it broke.
		if r.outcome != "404" && r.outcome != "502" {
			t.Errorf("got %q (%s), want 200, 404 or 502", r.outcome, r.detail)
			break
		}
	}
	loads := newLoadTable("A service removed while it was scaled")
	loads.load("sleep 0.5", report)
	loads.print(t)
	if _, ok := g.gauge(t, wantedGauge, name); ok {
		t.Error("the metrics still have the function")
	}
	if lines := g.logLines("level=WARN", "function="+name); len(lines) != 0 {
		t.Errorf("got warnings about a function that was removed, want none: %q", lines)
	}
}

// A cluster that has no room for what the load asks for: those replicas that
// it has room for answer everybody, and what is pending goes when the load does.
func testFullCluster(t *testing.T, l *lab, g *gateway) {
	const name, room = "full", nodeCount
	memory, err := strconv.ParseInt(l.docker(t, "info", "--format", "{{.MemTotal}}"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	// More than half of a node: each has room for one.
	createFunction(t, l, name, catImage, "--env", sleeper, "--reserve-memory", strconv.FormatInt(memory*6/10, 10), "--label", "com.openfaas.scale.target=5")
	g.waitAnswer(t, name)
	load := sleeping(t, g, name, 30)
	g.waitWanted(t, name, 6)
	g.waitGauge(t, readyGauge, name, room)
	pending := l.docker(t, "service", "ps", "--filter", "desired-state=running", "--format", "{{.CurrentState}}", name)
	if got, want := strings.Count(pending, "Pending"), 6-room; got != want {
		t.Errorf("got %d tasks that wait for room, want %d: %q", got, want, pending)
	}
	report := load.end()
	loads := newLoadTable("A cluster with room for 3 of the 6 replicas that the load asks for")
	loads.load("sleep 0.5", report)
	loads.print(t)
	if failed := report.failed(); len(failed) != 0 {
		t.Errorf("got %d requests that failed, want none; the first: %+v", len(failed), failed[0])
	}
	g.waitWanted(t, name, 1)
	if changes := g.scalings(t, name); changes > 8 {
		t.Errorf("got %d changes by the gateway, want at most 8: up to 6 and down by halves", changes)
	}
}

// gauge returns the sample of one function, and whether there is one.
func (g *gateway) gauge(t testing.TB, gauge, function string) (value int, ok bool) {
	t.Helper()
	a, err := g.call(t.Context(), http.MethodGet, "/metrics", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(a.body), fmt.Sprintf("\n%s{function_name=%q} ", gauge, function))
	if !ok {
		return 0, false
	}
	text, _, _ := strings.Cut(rest, "\n")
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || v != math.Trunc(v) {
		t.Fatalf("got %s of %s %q, want a whole number", gauge, function, text)
	}
	return int(v), true
}

// wanted returns how many replicas of a function are ordered, as the gateway
// sees it.
func (g *gateway) wanted(t testing.TB, function string) int {
	t.Helper()
	n, _ := g.gauge(t, wantedGauge, function)
	return n
}

// waitGauge waits until the gateway shows a number for a function, and returns
// when it did.
func (g *gateway) waitGauge(t testing.TB, gauge, function string, want int) time.Time {
	t.Helper()
	var got int
	var ok bool
	if err := pollFor(t, func() bool {
		got, ok = g.gauge(t, gauge, function)
		return ok && got == want
	}); err != nil {
		t.Fatalf("%s: got %s %d (known: %v), want %d: %v", function, gauge, got, ok, want, err)
	}
	return time.Now()
}

func (g *gateway) waitWanted(t testing.TB, function string, want int) time.Time {
	t.Helper()
	return g.waitGauge(t, wantedGauge, function, want)
}

// scalings returns how often the gateway has changed a function's replicas.
func (g *gateway) scalings(t testing.TB, function string) int {
	t.Helper()
	return int(g.metric(t, "gateway_scale_decisions_total", fmt.Sprintf("function_name=%q", function)))
}

// waitNoContainer waits until no engine has a container of the service: a task
// that ends is none any more for Swarm.
func waitNoContainer(t testing.TB, l *lab, service string) {
	t.Helper()
	if err := l.noContainer(t.Context(), service); err != nil {
		t.Fatal(err)
	}
}

// noContainer waits until no node has a container of a service, for a minute each.
func (l *lab) noContainer(ctx context.Context, service string) error {
	for _, n := range l.nodes {
		ctx, cancel := context.WithTimeout(ctx, readyTimeout)
		defer cancel()
		if err := poll(ctx, 50*time.Millisecond, func() bool {
			out, err := n.tryDocker(ctx, "ps", "--quiet", "--filter", "label=com.docker.swarm.service.name="+service)
			return err == nil && out == ""
		}); err != nil {
			return fmt.Errorf("containers of %s are left on %s: %w", service, n.name, err)
		}
	}
	return nil
}

// pollFor asks done again and again until it is true, for readyTimeout at most.
func pollFor(t testing.TB, done func() bool) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), readyTimeout)
	defer cancel()
	return poll(ctx, 50*time.Millisecond, done)
}

// waitLines is logLines for what is written at about the time of what the test has just
// seen: it waits for a first line.
func (g *gateway) waitLines(t testing.TB, texts ...string) []string {
	t.Helper()
	pollFor(t, func() bool { return len(g.logLines(texts...)) > 0 })
	return g.logLines(texts...)
}

// logLines returns the lines of the gateway's log that hold all of the texts.
func (g *gateway) logLines(texts ...string) []string {
	var lines []string
line:
	for line := range strings.Lines(g.node.logs("logs", "gateway")) {
		for _, text := range texts {
			if !strings.Contains(line, text) {
				continue line
			}
		}
		lines = append(lines, strings.TrimSpace(line))
	}
	return lines
}

// sleeping is a load of so many callers on a function that sleeps and answers
// nothing, until it is ended.
func sleeping(t testing.TB, g *gateway, function string, callers int) *loadRun {
	t.Helper()
	return startLoad(t, loadConfig{
		url: g.url + "/function/" + function, callers: callers, count: 100_000, duration: 5 * time.Minute, timeout: time.Minute,
		body: func(int) []byte { return nil },
	})
}

// sleeper is the process of a function that takes half a second and next to no
// processor time.
const sleeper = "fprocess=sleep 0.5"
