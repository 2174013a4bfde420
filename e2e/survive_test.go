package e2e

// What callers notice when machines go away: a load runs on while a node with
// a replica is killed or cut off, and while managers are.

import (
	"bytes"
	"fmt"
	"testing"
	"time"
)

func TestNodeLost(t *testing.T) {
	l := useLab(t)
	if err := l.waitManagers(t.Context()); err != nil {
		t.Fatal(err)
	}
	g := startGateway(t, l.node(1))
	lossTable := newLoadTable("A node with one of three replicas is lost at 100 requests a second")
	for _, tt := range []struct {
		name string
		lose func(testing.TB, *node)
		mend func(testing.TB, *node)
	}{
		{"killed", func(t testing.TB, n *node) { n.kill(t) }, func(t testing.TB, n *node) { n.start(t) }},
		{"cut off", func(t testing.TB, n *node) { n.cut(t) }, func(t testing.TB, n *node) { n.heal(t) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := l.waitManagers(t.Context()); err != nil {
				t.Fatal(err)
			}
			createFunction(t, l, "survivor", catImage, "--replicas", "3", "--replicas-max-per-node", "1",
				"--label", "com.openfaas.scale.min=3", "--label", "com.openfaas.scale.max=3")
			waitReplicas(t, l, "survivor", 3)
			g.waitAnswer(t, "survivor")

			run := startLoad(t, g.steadyLoad("survivor", time.Minute))
			time.Sleep(3 * time.Second) // of load before
			lost := time.Now()
			tt.lose(t, l.node(3))
			gone := time.Now()
			time.Sleep(25 * time.Second) // of load without it
			tt.mend(t, l.node(3))
			mended := time.Now()
			time.Sleep(5 * time.Second) // of load after
			report := run.end()

			never := report.began.Add(time.Hour)
			during, late, after := report.between(lost, mended), report.between(lost.Add(20*time.Second), mended), report.between(mended, never)
			lossTable.load(tt.name+": before", report.between(report.began, lost))
			lossTable.load(tt.name+": without it", during)
			lossTable.load(tt.name+": from 20 s on", late)
			lossTable.load(tt.name+": back again", after)
			// What was inside the replica goes with it.
			inside, outside := 0, 0
			for _, f := range report.failed() {
				due := report.began.Add(f.start)
				if due.Before(gone) && due.Add(f.took).After(lost) {
					inside++
					continue
				}
				outside++
				t.Logf("failed: %+v", f)
			}
			t.Logf("%d of %d requests failed that were under way while the node went, %d others", inside, len(report.results), outside)
			if outside*1000 >= len(report.results) {
				t.Errorf("got %d of %d failed that were not under way when the node went, want fewer than 1 in 1,000", outside, len(report.results))
			}
			if inside*100 >= len(report.results) {
				t.Errorf("got %d of %d failed that were under way when the node went, want fewer than 1 in 100", inside, len(report.results))
			}
			if failed := late.failed(); len(failed) != 0 {
				t.Errorf("got %d failed more than 20 s after the loss, want none: %+v", len(failed), failed[0])
			}
			if got, want := during.quantile(1), 3*time.Second; got > want {
				t.Errorf("got %v for the slowest, want at most %v", got, want)
			}
		})
	}
	lossTable.print(t)
}

// Invocations need no manager: that the leader goes, and then the quorum, is
// not noticed.
func TestManagersLost(t *testing.T) {
	l := useLab(t)
	if err := l.waitManagers(t.Context()); err != nil {
		t.Fatal(err)
	}
	leader, others := l.managers(t)
	home, other := others[0], others[1]
	g := startGateway(t, home)
	createFunction(t, l, "survivor", catImage, "--constraint", "node.hostname=="+home.name,
		"--label", "com.openfaas.scale.min=1", "--label", "com.openfaas.scale.max=1")
	waitReplicas(t, l, "survivor", 1)
	g.waitAnswer(t, "survivor")

	run := startLoad(t, g.steadyLoad("survivor", 2*time.Minute))
	phases := []struct {
		name  string
		begin func()
		lasts time.Duration
		began time.Time
	}{
		{name: "three managers", begin: func() {}, lasts: 3 * time.Second},
		{name: "leader killed", begin: func() { leader.kill(t) }, lasts: 15 * time.Second},
		{name: "no quorum", begin: func() { other.kill(t) }, lasts: 25 * time.Second},
		{name: "back again", begin: func() { leader.start(t); other.start(t) }, lasts: 10 * time.Second},
	}
	for i := range phases {
		phases[i].began = time.Now()
		phases[i].begin()
		time.Sleep(phases[i].lasts) // of load
	}
	report := run.end()
	loads := newLoadTable("Managers are lost at 100 requests a second, the function's node is not")
	for i, p := range phases {
		end := time.Now()
		if i+1 < len(phases) {
			end = phases[i+1].began
		}
		loads.load(p.name, report.between(p.began, end))
	}
	loads.print(t)
	if failed := report.failed(); len(failed) != 0 {
		t.Errorf("got %d of %d failed, want none: %s; the first: %+v", len(failed), len(report.results), report.outcomes(), failed[0])
	}
}

// steadyLoad is 100 requests a second with bodies of 1,000 bytes, no two alike
// in a row.
func (g *gateway) steadyLoad(function string, limit time.Duration) loadConfig {
	const rate = 100
	return loadConfig{
		url: g.url + "/function/" + function, rate: rate, callers: 4 * rate,
		count: rate * int(limit.Seconds()), duration: limit, timeout: readyTimeout,
		body: func(number int) []byte { return bytes.Repeat(fmt.Appendf(nil, "%09d\n", number), 100) },
	}
}
