package e2e

// Functions that cannot start: their callers are told why and do not wait, no
// replicas pile up, and once it is mended everybody goes on.

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	// knownAfter is when a gateway must know that a function cannot start:
	// 10 s without a ready replica, and a slow machine's time for two tries.
	knownAfter = 25 * time.Second
	// atOnce is what an answer may take that waits for nothing.
	atOnce = time.Second
	// recovered is when a function must answer after its first replica is ready.
	recovered = 2 * time.Second
)

// broken is a way for a function to be unable to start.
type broken struct {
	name   string
	image  string
	create []string // arguments of "docker service create"
	spoil  []string // and of "docker service update", for one that works first
	mend   []string
	reason string // that callers are told
}

func testCannotStart(t *testing.T, l *lab, g *gateway) {
	cases := []broken{
		{"fromthestart", catImage, []string{"--env", "fprocess=/nosuch"}, nil,
			[]string{"--env-add", "fprocess=cat"}, "its process ends with exit code 2"},
		{"byanupdate", catImage, nil, []string{"--env-add", "fprocess=/nosuch"},
			[]string{"--env-add", "fprocess=cat"}, "its process ends with exit code 2"},
		{"noimage", "registry.invalid/secret/nosuch:1", nil, nil,
			[]string{"--image", catImage}, "No such image"},
		{"noroom", catImage, []string{"--constraint", "node.labels.nosuch==1"}, nil,
			[]string{"--constraint-rm", "node.labels.nosuch==1"}, "no suitable node: scheduling constraints not satisfied"},
	}
	update := func(name string, args ...string) {
		t.Helper()
		update := []string{"service", "update", "--detach", "--quiet", "--no-resolve-image"}
		l.docker(t, append(append(update, args...), name)...)
	}
	for _, c := range cases {
		createFunction(t, l, c.name, c.image, c.create...)
		if c.spoil != nil {
			g.waitAnswer(t, c.name)
			update(c.name, c.spoil...)
			// Until then the replica before it serves on.
			if err := pollFor(t, func() bool {
				return strings.Contains(l.docker(t, "service", "ps", "--format", "{{.Error}}", c.name), "exit")
			}); err != nil {
				t.Fatalf("%s does not fail: %v", c.name, err)
			}
		}
	}
	for _, c := range cases {
		g.waitWanted(t, c.name, 1) // the gateway knows it
	}
	var first, later []*loadRun
	load := func(c broken, config loadConfig) *loadRun {
		config.url, config.duration, config.timeout = g.url+"/function/"+c.name, 2*time.Minute, time.Minute
		config.body = func(int) []byte { return nil }
		return startLoad(t, config)
	}
	const callers, slack = 40, 5 * time.Second
	late := map[string]bool{} // Swarm was, so that callers waited in vain
	for _, c := range cases {
		first = append(first, load(c, loadConfig{callers: callers, count: callers}))
	}
	loads := newLoadTable("Functions that cannot start, and then can")
	for i, c := range cases {
		report := first[i].wait()
		loads.load(c.name+", those who wait", report)
		got := report.quantile(1)
		switch second := secondFailure(t, l, c.name); {
		case got <= knownAfter:
		case second.After(report.began.Add(knownAfter-slack)) && got <= second.Sub(report.began)+slack:
			late[c.name] = true
			t.Logf("%s: no verdict on when it is known: Swarm's second try failed %v after the first call", c.name, second.Sub(report.began).Round(time.Millisecond))
		default:
			t.Errorf("%s: got the slowest after %v, want all within %v", c.name, got.Round(time.Millisecond), knownAfter)
		}
		wantTold(t, c, report)
		later = append(later, load(c, loadConfig{callers: 64, rate: 5, count: 1000}))
	}
	// Longer than the time after which the load used to order more.
	sleepUntil(t.Context(), time.Now().Add(4*time.Second))
	for _, c := range cases {
		if changes, most := g.scalings(t, c.name), g.wanted(t, c.name); changes != 0 || most != 1 {
			t.Errorf("%s: got %d changes by the gateway and %d replicas, want none and 1", c.name, changes, most)
		}
		if got, _ := g.gauge(t, "gateway_function_trouble", c.name); got != 1 {
			t.Errorf("%s: got gateway_function_trouble %d, want 1", c.name, got)
		}
		update(c.name, c.mend...)
	}
	mended := newTable("From the first running replica to the first answer", "case", "after")
	for i, c := range cases {
		var running time.Time
		if err := pollFor(t, func() bool {
			running = runningSince(t, l, c.name)
			return !running.IsZero() && time.Since(running) > 2*recovered
		}); err != nil {
			t.Fatalf("%s does not run for long: %v", c.name, err)
		}
		report := later[i].end()
		loads.load(c.name+", later", report)
		broken, working := report, loadReport{began: report.began}
		for n, r := range report.results {
			if r.outcome == outcomeOK {
				broken.results, working.results = report.results[:n], report.results[n:]
				break
			}
		}
		if len(working.results) == 0 {
			t.Fatalf("%s: got no answer after it was mended: %s", c.name, report.outcomes())
		}
		wantTold(t, c, broken)
		if got := broken.quantile(0.9); got > atOnce {
			t.Errorf("%s: got %v for 90 %% of those who came while it was known, want %v", c.name, got, atOnce)
		}
		answered := report.began.Add(working.results[0].start + working.results[0].took)
		mended.row(c.name, answered.Sub(running).Round(time.Millisecond))
		if failed := working.between(running.Add(recovered), running.Add(time.Hour)).failed(); answered.After(running.Add(recovered)) || len(failed) > 0 {
			t.Errorf("%s: got the first answer %v after its replica ran, and %d failed later than %v, want it sooner and none", c.name, answered.Sub(running), len(failed), recovered)
		}
		for line, want := range map[string]int{"function cannot start": 1, "function can start again": 1, "invocation failed": 0} {
			if late[c.name] && line == "invocation failed" {
				continue
			}
			if got := g.logLines(line, "function="+c.name); len(got) != want {
				t.Errorf("%s: got %d lines with %q in the log, want %d: %q", c.name, len(got), line, want, got)
			}
		}
		if got, _ := g.gauge(t, "gateway_function_trouble", c.name); got != 0 {
			t.Errorf("%s: got gateway_function_trouble %d, want 0", c.name, got)
		}
	}
	loads.print(t)
	mended.print(t)
}

// wantTold checks that each answer is a 503 with the reason and nothing else.
func wantTold(t *testing.T, c broken, report loadReport) {
	t.Helper()
	want := fmt.Sprintf("function %q: no replica became ready in time: %s", c.name, c.reason)
	for _, r := range report.results {
		if r.outcome != "503" || r.detail != want {
			t.Errorf("%s: got %s %q, want 503 %q", c.name, r.outcome, r.detail, want)
			return
		}
	}
}

// secondFailure returns when the second task of a service failed; zero if fewer have.
func secondFailure(t testing.TB, l *lab, service string) time.Time {
	t.Helper()
	var failures []time.Time
	for id := range strings.FieldsSeq(l.docker(t, "service", "ps", "--quiet", "--no-trunc", service)) {
		// Swarm forgets old tasks.
		out, _ := l.node(1).tryDocker(t.Context(), "inspect", "--type", "task", "--format", `{{.Status.State}} {{.Status.Timestamp.Format "`+time.RFC3339Nano+`"}}`, id)
		if at, ok := strings.CutPrefix(out, "failed "); ok {
			failures = append(failures, parseTime(t, at))
		}
	}
	if len(failures) < 2 {
		return time.Time{}
	}
	slices.SortFunc(failures, time.Time.Compare)
	return failures[1]
}

// runningSince returns when the one running task of a service began to run;
// zero if there is none.
func runningSince(t testing.TB, l *lab, service string) time.Time {
	t.Helper()
	for id := range strings.FieldsSeq(l.docker(t, "service", "ps", "--quiet", "--no-trunc", "--filter", "desired-state=running", service)) {
		out := l.docker(t, "inspect", "--type", "task", "--format", `{{.Status.State}} {{.Status.Timestamp.Format "`+time.RFC3339Nano+`"}}`, id)
		if at, ok := strings.CutPrefix(out, "running "); ok {
			return parseTime(t, at)
		}
	}
	return time.Time{}
}

// A rollout that pauses by a failure is in the way of scaling until somebody
// ends it. That is said once, and so is that it is over.
func testPausedRollout(t *testing.T, l *lab, g *gateway) {
	const name = "paused"
	createFunction(t, l, name, catImage, "--replicas", "2", "--env", sleeper,
		"--label", "com.openfaas.scale.target=5", "--label", "com.openfaas.scale.min=2", "--label", "com.openfaas.scale.max=4")
	waitReplicas(t, l, name, 2)
	g.waitAnswer(t, name)
	update := func(process, delay string) {
		t.Helper()
		l.docker(t, "service", "update", "--detach", "--quiet", "--no-resolve-image", "--env-add", process, "--update-delay", delay, name)
	}
	update("fprocess=/nosuch", "1m") // the other replica is not to follow before the first has failed
	state := func() string {
		return l.docker(t, "service", "inspect", "--format", "{{.UpdateStatus.State}}", name)
	}
	if err := pollFor(t, func() bool { return state() == "paused" }); err != nil {
		t.Fatalf("the rollout is %s, want it paused: %v", state(), err)
	}
	load := sleeping(t, g, name, 20)
	const line = "function not scaled"
	if len(g.waitLines(t, line, "function="+name)) == 0 {
		t.Fatal("the log does not say that the function is not scaled")
	}
	// It was repeated after a half, one, two and four seconds.
	sleepUntil(t.Context(), time.Now().Add(6*time.Second))
	if got := g.logLines(line, "function="+name); len(got) != 1 {
		t.Errorf("got %d lines %q in the log while the load lasts, want 1: %q", len(got), line, got)
	}
	if got := g.wanted(t, name); got != 2 {
		t.Errorf("got %d replicas while the rollout is paused, want 2", got)
	}
	update(sleeper, "0s")
	g.waitWanted(t, name, 4)
	load.end()
	for _, line := range []string{line, "function can be scaled again"} {
		if got := g.logLines(line, "function="+name); len(got) != 1 {
			t.Errorf("got %d lines %q in the log, want 1: %q", len(got), line, got)
		}
	}
}

// A network with too few addresses: Swarm says nothing, the gateway does.
func testNoAddresses(t *testing.T, l *lab, _ *gateway) {
	const network = "small"
	l.docker(t, "network", "create", "--driver", "overlay", "--attachable", "--subnet", "10.78.0.0/28", network)
	t.Cleanup(func() { l.removeNetwork(t, network) })
	g := startGatewayOn(t, l.node(2), network)
	createFunctionOn(t, l, network, "filler", catImage, "--replicas", "20", "--label", "com.openfaas.scale.factor=0")
	createFunctionOn(t, l, network, "late", catImage)
	g.waitWanted(t, "late", 1)
	began := time.Now()
	a := g.post(t, "/function/late", nil, nil)
	const want = `function "late": no replica became ready in time: it gets no address: its network has most likely none left`
	if got := firstLine(a.body); a.status != http.StatusServiceUnavailable || got != want {
		t.Errorf("got %d %q, want 503 %q", a.status, got, want)
	}
	if took := time.Since(began); took > knownAfter {
		t.Errorf("got the answer after %v, want it within %v", took, knownAfter)
	}
	if got := g.waitLines(t, "function cannot start", "function=late", network); len(got) != 1 {
		t.Errorf("got %d lines in the log that name the network, want 1: %q", len(got), got)
	}
	l.docker(t, "service", "rm", "filler")
	g.waitAnswer(t, "late")
}
