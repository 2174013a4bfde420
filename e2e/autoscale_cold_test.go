package e2e

// From no replica: nobody is refused, and the gateway adds little to the time
// that Swarm itself takes for a start.

import (
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

// coldOverhead is what the gateway may add to Swarm's own time from the order
// of a replica to its first answer. A single caller has its answer by then.
// Many are let go by then: they start a process each, all at once, and when
// the first of those is done is not the gateway's doing.
const coldOverhead = 150 * time.Millisecond

const (
	coldRounds    = 5 // with one caller, and as many with many, each after one of Swarm itself
	burstCallers  = 200
	burstRequests = 2000
)

// Swarm's own time and that of a caller of the gateway are taken in turns, so
// that whatever else the machine does touches both. It only ever adds: so the
// shortest of each are compared, and the medians shown. Where Swarm's own times
// differ much among themselves, the machine is too busy for a verdict.
func TestScaleFromZero(t *testing.T) {
	l := useLab(t)
	g := startGateway(t, l.node(1))
	probe := startProber(t, l.node(1))
	const name = "cold"
	// Gone at once when it is told to, or each round would wait for it.
	createFunction(t, l, name, catImage, "--replicas", "0", "--env", "healthcheck_interval=0")
	g.waitWanted(t, name, 0)

	var ownSingle, single, ownBurst, burst []time.Duration
	rounds := newTable("From no replica to the first answer, in ms: counted from the order of the replica, or from the call",
		"way", "order to answer", "call to order", "call to answer", "held", "replicas ordered")
	loads := newLoadTable("The bursts at no replica")
	ms := func(d time.Duration) string { return fmt.Sprintf("%.0f", d.Seconds()*1e3) }
	// Each begins where nothing runs, and one replica did before.
	itself := func() time.Duration {
		toNone(t, g, name)
		answered := probe.firstAnswer(t, name)
		l.docker(t, "service", "scale", "--detach", name+"=1")
		at, ok := <-answered
		if !ok {
			t.Fatal("the prober got no answer")
		}
		took := at.Sub(ordered(t, l, name))
		rounds.row("Swarm itself", ms(took), "", "", "", 1)
		return took
	}
	one := func() {
		toNone(t, g, name)
		called := time.Now()
		if a := g.post(t, "/function/"+name, nil, []byte("hello")); a.status != http.StatusOK {
			t.Fatalf("got status %d, want 200: %s", a.status, firstLine(a.body))
		}
		end, at := time.Now(), ordered(t, l, name)
		single = append(single, end.Sub(called))
		rounds.row("one caller", ms(end.Sub(at)), ms(at.Sub(called)), ms(end.Sub(called)), "", 1)
	}
	many := func() {
		toNone(t, g, name)
		const held = "gateway_cold_start_seconds_sum"
		before := g.metric(t, held)
		report, first := burstOf(t, g, name)
		wait := time.Duration((g.metric(t, held) - before) * float64(time.Second))
		burst = append(burst, wait)
		rounds.row(fmt.Sprintf("%d callers", burstCallers), "", "", ms(first), ms(wait), g.wanted(t, name))
		loads.load(fmt.Sprintf("%d callers", burstCallers), report)
		if failed := report.failed(); len(failed) != 0 || len(report.results) != burstRequests {
			t.Errorf("got %d of %d right, want all of %d; the first that failed: %+v",
				len(report.results)-len(failed), len(report.results), burstRequests, failed[:min(1, len(failed))])
		}
	}
	for range coldRounds {
		ownSingle = append(ownSingle, itself())
		one()
	}
	for range coldRounds {
		ownBurst = append(ownBurst, itself())
		many()
		toNone(t, g, name)
		g.waitAnswer(t, name)
	}
	rounds.print(t)
	loads.print(t)

	ways := newTable("From the order to the first answer, from the call to the answer, and how long the many are held, in ms", "way", "shortest", "Swarm's shortest", "median", "Swarm's median")
	for _, way := range []struct {
		name       string
		times, own []time.Duration // of the same rounds
	}{{"one caller", single, ownSingle}, {fmt.Sprintf("%d callers", burstCallers), burst, ownBurst}} {
		least, floor := slices.Min(way.times), slices.Min(way.own)
		ways.row(way.name, ms(least), ms(floor), ms(median(way.times)), ms(median(way.own)))
		over := least - floor
		switch {
		case over <= coldOverhead:
		case median(way.own) > floor+coldOverhead:
			t.Logf("%s: no verdict on the cold start: Swarm's own times are %v apart", way.name, (median(way.own) - floor).Round(time.Millisecond))
		default:
			t.Errorf("%s: got a cold start %v longer than Swarm's own, want %v at most", way.name, over.Round(time.Millisecond), coldOverhead)
		}
	}
	ways.print(t)
}

// burstOf sends the burst, and returns with it when the first caller had its
// answer, since the burst began.
func burstOf(t *testing.T, g *gateway, function string) (loadReport, time.Duration) {
	t.Helper()
	var first atomic.Int64
	began := time.Now()
	report := startLoad(t, loadConfig{
		url: g.url + "/function/" + function, callers: burstCallers, count: burstRequests, duration: time.Minute, timeout: time.Minute,
		body: func(number int) []byte { return fmt.Append(nil, "request ", number) },
		check: func(_ int, sent, got []byte) error {
			first.CompareAndSwap(0, int64(time.Since(began)))
			return diff(sent, got)
		},
	}).wait()
	return report, time.Duration(first.Load())
}

// toNone takes every replica of a function away and waits until they are gone,
// for Swarm and for the gateway.
func toNone(t *testing.T, g *gateway, function string) {
	t.Helper()
	l := g.node.lab
	l.docker(t, "service", "scale", "--detach", function+"=0")
	waitReplicas(t, l, function, 0)
	g.waitWanted(t, function, 0)
	g.waitGauge(t, readyGauge, function, 0)
	waitNoContainer(t, l, function)
}

// ordered returns when Swarm took the latest change of a service.
func ordered(t testing.TB, l *lab, service string) time.Time {
	t.Helper()
	return l.serviceTime(t, "UpdatedAt", service)
}

func median(times []time.Duration) time.Duration {
	times = slices.Sorted(slices.Values(times))
	return times[len(times)/2]
}
