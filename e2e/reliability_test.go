package e2e

// What callers notice of rollouts, deaths and outages: a steady load of POSTs
// with bodies goes on while something happens to the Swarm, and every request
// is accounted for. docs/reliability.md has the table that comes out.

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net/http"
	"testing"
	"time"
)

const (
	// trouble is the function under load. It takes ownTime, so that some
	// requests are inside each replica whenever something happens to it.
	trouble = "trouble"
	ownTime = 50 * time.Millisecond

	mostRate = 100 // requests per second

	// waitLimit is how long a request may wait beyond the function's own time.
	waitLimit = 3 * time.Second
	// healLimit is when nothing may fail any more after the loss of a node.
	healLimit = 20 * time.Second
)

// A case of the reliability tests: what happened, when, and to what load.
type incident struct {
	struck time.Time // when it had happened; requests due later were not under way
	report loadReport
}

func (i incident) failedFrom(d time.Duration) int {
	return len(i.report.between(i.struck.Add(d), i.struck.Add(time.Hour)).failed())
}

// calmSlowest is the slowest of the requests before the incident.
func (i incident) calmSlowest() time.Duration {
	// What was due a moment before may have been inside.
	return i.report.between(i.report.began, i.struck.Add(-time.Second)).quantile(1)
}

func TestReliability(t *testing.T) {
	l := useLab(t)
	if err := l.waitManagers(t.Context()); err != nil {
		t.Fatal(err)
	}
	sum := newTable("What callers notice, at 100 POSTs per second or half of what the machine can do",
		"case", "requests", "failed", "under way then", "failed later", "after 20 s", "p50", "p99", "slowest", "before", "outcomes")
	defer sum.print(t)
	add := func(name string, i incident) {
		ms := func(d time.Duration) string { return fmt.Sprintf("%.0f ms", d.Seconds()*1e3) }
		failed, later := len(i.report.failed()), i.failedFrom(0)
		sum.row(name, len(i.report.results), failed, failed-later, later, i.failedFrom(healLimit),
			ms(i.report.quantile(0.5)), ms(i.report.quantile(0.99)), ms(i.report.quantile(1)), ms(i.calmSlowest()), i.report.outcomes())
		failures := i.report.failed()
		for _, res := range failures[:min(10, len(failures))] {
			t.Logf("%s: %v after the incident: %s after %v: %s", name, i.report.began.Add(res.start).Sub(i.struck).Round(time.Millisecond),
				res.outcome, res.took.Round(time.Millisecond), res.detail)
		}
	}

	for _, order := range []string{"start-first", "stop-first"} {
		t.Run("rolling update "+order, func(t *testing.T) {
			g := startGateway(t, l.node(1))
			g.createTrouble(t, 3, "--update-order", order)
			load := g.startTrouble(t, 200)
			struck := time.Now()
			l.docker(t, "service", "update", "--detach", "--quiet", "--force", "--no-resolve-image", trouble)
			waitUpdated(t, l, trouble)
			load.last(t, 5*time.Second)
			i := incident{struck, load.end()}
			add("rolling update of 3, "+order, i)
			i.wantNoneFailed(t)
		})
	}

	t.Run("scale from 3 to 1", func(t *testing.T) {
		g := startGateway(t, l.node(1))
		g.createTrouble(t, 3)
		load := g.startTrouble(t, 200)
		struck := time.Now()
		l.docker(t, "service", "scale", "--detach", trouble+"=1")
		waitReplicas(t, l, trouble, 1)
		load.last(t, 10*time.Second)
		i := incident{struck, load.end()}
		add("scaled from 3 to 1", i)
		i.wantNoneFailed(t)
	})

	t.Run("replica killed", func(t *testing.T) {
		g := startGateway(t, l.node(1))
		g.createTrouble(t, 3)
		load := g.startTrouble(t, 200)
		n := l.node(2)
		// By its ID: a container of the service of that name before may be left.
		service := l.docker(t, "service", "inspect", "--format", "{{.ID}}", trouble)
		id := n.docker(t, "ps", "--quiet", "--filter", "label=com.docker.swarm.service.id="+service)
		n.docker(t, "kill", id)
		// When its process was gone, by the clock that the load goes by too.
		struck, err := time.Parse(time.RFC3339Nano, n.docker(t, "inspect", "--format", "{{.State.FinishedAt}}", id))
		if err != nil {
			t.Fatal(err)
		}
		load.last(t, 15*time.Second)
		i := incident{struck, load.end()}
		add("docker kill of 1 of 3 replicas", i)
		if got := i.failedFrom(0); got != 0 {
			t.Errorf("got %d failed of those not inside the replica, want 0", got)
		}
	})

	t.Run("node killed", func(t *testing.T) {
		g := startGateway(t, l.node(1))
		g.createTrouble(t, 3)
		load := g.startTrouble(t, 500)
		n := l.node(3)
		n.kill(t)
		struck := time.Now()
		load.last(t, 55*time.Second)
		i := incident{struck, load.end()}
		add("node with 1 of 3 replicas killed", i)
		n.start(t)
		i.wantLostNode(t)
	})

	for _, bodies := range []struct {
		name string
		make func(number int) []byte
	}{{"", troubleBody}, {", bodies of 64 KiB", largeBody}} {
		t.Run("node cut off"+bodies.name, func(t *testing.T) {
			g := startGateway(t, l.node(1))
			g.createTrouble(t, 3)
			load := g.startLoad(t, bodies.make, 500)
			l.node(3).cut(t)
			struck := time.Now()
			load.last(t, 55*time.Second)
			i := incident{struck, load.end()}
			add("node with 1 of 3 replicas cut off"+bodies.name, i)
			i.wantLostNode(t)
		})
	}

	t.Run("leader killed", func(t *testing.T) {
		// The replicas are where the gateway is: the loss of a node is
		// another case.
		if err := l.waitManagers(t.Context()); err != nil {
			t.Fatal(err)
		}
		leader, others := l.managers(t)
		n := others[0]
		g := startGateway(t, n)
		g.createTrouble(t, 3, "--constraint", "node.hostname=="+n.name)
		load := g.startTrouble(t, 200)
		struck := time.Now()
		leader.kill(t)
		load.last(t, 30*time.Second)
		i := incident{struck, load.end()}
		add("leader of 3 managers killed", i)
		i.wantNoneFailed(t)
		leader.start(t)
	})

	t.Run("quorum lost", func(t *testing.T) {
		if err := l.waitManagers(t.Context()); err != nil {
			t.Fatal(err)
		}
		g := startGateway(t, l.node(1))
		g.createTrouble(t, 3, "--constraint", "node.hostname=="+l.node(1).name)
		load := g.startTrouble(t, 200)
		struck := time.Now()
		l.node(2).kill(t)
		l.node(3).kill(t)
		load.last(t, 45*time.Second)
		if a, err := g.call(t.Context(), http.MethodGet, "/healthz", nil, nil); err != nil || a.status != http.StatusOK {
			t.Errorf("got status %d, error %v for /healthz without a quorum, want 200", a.status, err)
		}
		i := incident{struck, load.end()}
		add("quorum of the managers lost", i)
		i.wantNoneFailed(t)
		l.node(2).start(t)
		l.node(3).start(t)
	})

	t.Run("gateway stopped", func(t *testing.T) {
		const drain = 5 * time.Second
		g := startGateway(t, l.node(1), "-drain", drain.String())
		g.createTrouble(t, 3)
		// These are longer than the drain, and begin before it.
		createFunction(t, l, "long", catImage, "--env", `fprocess=sh -c "sleep 8; exec cat"`, "--label", "com.openfaas.scale.max=1")
		waitReplicas(t, l, "long", 1)
		g.waitAnswer(t, "long")
		load := g.startTrouble(t, 200)
		started := g.metric(t, "gateway_function_invocation_started", `function_name="long"`)
		long := startLoad(t, loadConfig{
			url: g.url + "/function/long", callers: 10, count: 10, duration: time.Minute, timeout: time.Minute, body: troubleBody,
		})
		ctx, cancel := context.WithTimeout(t.Context(), readyTimeout)
		defer cancel()
		if err := poll(ctx, 20*time.Millisecond, func() bool {
			return g.metric(t, "gateway_function_invocation_started", `function_name="long"`) == started+10
		}); err != nil {
			t.Fatal(err)
		}
		signalled := time.Now()
		g.node.docker(t, "kill", "--signal", "TERM", "gateway")
		load.last(t, 2*time.Second)
		if a, err := g.call(ctx, http.MethodGet, "/healthz", nil, nil); err != nil || a.status != http.StatusServiceUnavailable {
			t.Errorf("got status %d, error %v for /healthz while draining, want 503", a.status, err)
		}
		if got := g.node.docker(t, "wait", "gateway"); got != "0" {
			t.Errorf("got exit status %s of the gateway, want 0", got)
		}
		all := load.end()
		served := incident{signalled, all.between(all.began, signalled.Add(drain))}
		add("gateway stopped, until -drain is over", served)
		if served.fast(t) {
			served.wantNoneFailed(t)
		}
		after := all.between(signalled.Add(drain), signalled.Add(time.Hour))
		add("gateway stopped, later", incident{signalled.Add(drain), after})
		for _, res := range after.failed() {
			if res.outcome != "refused" && served.fast(t) {
				t.Errorf("got outcome %q after the drain, want an answer or a refused connection: %s", res.outcome, res.detail)
				break
			}
		}
		if len(after.failed()) == 0 {
			t.Error("got no refusal after the drain, want some")
		}
		i := incident{signalled, long.wait()}
		add("gateway stopped, 8 s long requests in flight", i)
		i.wantNoneFailed(t)
	})
}

// createTrouble makes the function under load, and waits until the gateway
// knows all its replicas.
func (g *gateway) createTrouble(t *testing.T, replicas int, args ...string) {
	t.Helper()
	createFunction(t, g.node.lab, trouble, catImage, append([]string{
		"--replicas", fmt.Sprint(replicas), "--env", fmt.Sprintf(`fprocess=sh -c "sleep %v; exec cat"`, ownTime.Seconds()),
		"--label", fmt.Sprintf("com.openfaas.scale.min=%d", replicas), "--label", fmt.Sprintf("com.openfaas.scale.max=%d", replicas),
	}, args...)...)
	waitReplicas(t, g.node.lab, trouble, replicas)
	g.waitAnswer(t, trouble)
	ctx, cancel := context.WithTimeout(t.Context(), readyTimeout)
	defer cancel()
	if err := poll(ctx, 100*time.Millisecond, func() bool {
		return g.metric(t, "gateway_service_count", fmt.Sprintf("function_name=%q", trouble)) == float64(replicas)
	}); err != nil {
		t.Fatalf("the gateway does not know %d replicas: %v", replicas, err)
	}
}

// startTrouble starts the usual load and returns when the first n requests
// have been answered.
func (g *gateway) startTrouble(t *testing.T, n int) *loadRun {
	t.Helper()
	return g.startLoad(t, troubleBody, n)
}

func (g *gateway) startLoad(t *testing.T, body func(number int) []byte, n int) *loadRun {
	t.Helper()
	load := startLoad(t, loadConfig{
		url: g.url + "/function/" + trouble, rate: g.steadyRate(t, trouble, body), callers: 512,
		count: 60000, duration: 5 * time.Minute, timeout: time.Minute, body: body,
	})
	load.reach(t, n)
	return load
}

// steadyRate returns how many requests per second the function is called with in
// a steady load: at most half of what this machine can do. Past that its
// requests wait for the machine, longer and longer, and say nothing of what
// happens to the Swarm.
func (g *gateway) steadyRate(t *testing.T, function string, body func(number int) []byte) int {
	t.Helper()
	const seconds = 3
	report := startLoad(t, loadConfig{
		url: g.url + "/function/" + function, callers: 16, count: 10 * mostRate * seconds, duration: seconds * time.Second,
		timeout: time.Minute, body: body, check: func(int, []byte, []byte) error { return nil },
	}).wait()
	can := (len(report.results) - len(report.failed())) / seconds
	rate := max(min(mostRate, can/2), 1)
	t.Logf("%s: the machine answers %d requests per second; called with %d", function, can, rate)
	return rate
}

// troubleBody makes a body that no other request has: 1,000 bytes, or 12,000
// for every tenth.
func troubleBody(number int) []byte {
	size := 1000
	if number%10 == 9 {
		size = 12000
	}
	return numbered(number, size)
}

// largeBody makes a body that the gateway neither holds nor sends twice.
func largeBody(number int) []byte { return numbered(number, 64<<10) }

func numbered(number, size int) []byte {
	return bytes.Repeat(binary.BigEndian.AppendUint64(nil, uint64(number)), size/8)
}

// wantNoneFailed is for what nobody may notice.
func (i incident) wantNoneFailed(t *testing.T) {
	t.Helper()
	if failed := i.report.failed(); len(failed) != 0 {
		t.Errorf("got %d of %d failed, want 0; the first: %+v", len(failed), len(i.report.results), failed[0])
	}
}

// fast reports whether the machine had the time for the load. Where it had
// not, how long requests wait says nothing about the gateway.
func (i incident) fast(t *testing.T) bool {
	t.Helper()
	if most := i.report.quantile(0.95); most > 4*ownTime {
		t.Logf("got %v for 95 %% of the requests: too slow a machine to judge by waits", most)
		return false
	}
	return true
}

// wantFewFailed is for what the requests inside a replica may notice.
func (i incident) wantFewFailed(t *testing.T) {
	t.Helper()
	if !i.fast(t) {
		return // the slower it is, the more requests are inside
	}
	if failed, all := len(i.report.failed()), len(i.report.results); failed*1000 >= all {
		t.Errorf("got %d of %d failed, want fewer than 1 in 1,000", failed, all)
	}
}

// wantLostNode is for the loss of a node: what was inside it may fail.
func (i incident) wantLostNode(t *testing.T) {
	t.Helper()
	i.wantFewFailed(t)
	if got := i.failedFrom(healLimit); got != 0 {
		t.Errorf("got %d failed more than %v later, want 0", got, healLimit)
	}
	if got, own := i.report.quantile(1), i.calmSlowest(); got > own+waitLimit && i.fast(t) {
		t.Errorf("got %v for the slowest, want at most %v beyond the %v that it took before", got, waitLimit, own)
	}
}

// waitUpdated waits until a rolling update is complete.
func waitUpdated(t *testing.T, l *lab, service string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var state string
	err := poll(ctx, time.Second, func() bool {
		state = l.docker(t, "service", "inspect", "--format", "{{if .UpdateStatus}}{{.UpdateStatus.State}}{{end}}", service)
		return state == "completed"
	})
	if err != nil {
		t.Fatalf("the update of %s has not ended: %v: it is %q", service, err, state)
	}
}
