package e2e

// Loads that come in at three gateways in parts, and what becomes of them when gateways
// die, are cut off or are updated.

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// longSleeper is the process of a function that takes long, so that many calls in flight
// take little processor time.
const longSleeper = "fprocess=sleep 2"

// Each load has the replicas that its sum needs, soon, and until it ends. A function
// that one gateway alone uses keeps its replica as long as it is used.
func testPeersLoad(t *testing.T, l *lab, gs gateways) {
	// The goal for up is 3 s, where the machine does nothing else: the table has the time.
	const up, hold, down = 10 * time.Second, 20 * time.Second, 90 * time.Second
	shapes := []struct {
		name   string
		parts  []int
		wanted int
	}{
		{"even", []int{10, 10, 10}, 3},
		{"lopsided", []int{28, 1, 1}, 3},
		{"steep", []int{60, 20, 1}, 9},
	}
	const zero, idle = "keptbyone", 5 * time.Second
	createFunction(t, l, zero, catImage, "--env", longSleeper, "--env", "healthcheck_interval=0",
		"--label", "com.openfaas.scale.zero=true", "--label", "com.openfaas.scale.zero-duration="+idle.String())
	for _, s := range shapes {
		createFunction(t, l, s.name, catImage, "--env", longSleeper, "--label", "com.openfaas.scale.target=10")
	}
	for _, g := range gs {
		for _, s := range shapes {
			g.waitAnswer(t, s.name)
		}
	}
	gs[2].waitAnswer(t, zero)
	kept := sleeping(t, gs[2], zero, 1)

	changes := newTable("Loads in parts at three gateways, target 10", "requests in flight", "replicas wanted", "after")
	var runs []*loadRun
	for _, s := range shapes {
		began := time.Now()
		for i, callers := range s.parts {
			runs = append(runs, sleeping(t, gs[i], s.name, callers))
		}
		took := gs[0].waitWanted(t, s.name, s.wanted).Sub(began)
		changes.row(fmt.Sprint(s.parts), s.wanted, fmt.Sprintf("%.1f s", took.Seconds()))
		if took > up {
			t.Errorf("%v: got %d replicas ordered after %v, want it within %v", s.parts, s.wanted, took.Round(time.Millisecond), up)
		}
		// Containers that start take the processors from the next load's callers.
		if err := pollFor(t, func() bool {
			ready, _ := gs[0].gauge(t, readyGauge, s.name)
			return ready >= s.wanted
		}); err != nil {
			t.Fatalf("%s: not ready: %v", s.name, err)
		}
	}
	most := make([]int, len(shapes))
	for until := time.Now().Add(hold); time.Now().Before(until); sleepUntil(t.Context(), time.Now().Add(250*time.Millisecond)) {
		for i, s := range shapes {
			got := gs[1].wanted(t, s.name)
			if got < s.wanted {
				t.Fatalf("%v: got %d replicas while the load lasts, want %d", s.parts, got, s.wanted)
			}
			most[i] = max(most[i], got)
		}
		if got := gs[0].wanted(t, zero); got != 1 {
			t.Fatalf("got %d replicas of the function that one gateway uses, want 1", got)
		}
	}

	for i, s := range shapes {
		// A caller may have its next request under way before the last one has ended here.
		changes.row(fmt.Sprintf("%v, at most, while it lasts", s.parts), most[i], "")
		if most[i] > s.wanted+1 {
			t.Errorf("%v: got up to %d replicas, want no more than one above %d", s.parts, most[i], s.wanted)
		}
	}

	ended := time.Now()
	loads := newLoadTable("Requests of two seconds, in parts")
	end := func(name string, r *loadRun) {
		report := r.end()
		loads.load(name, report)
		if failed := report.failed(); len(failed) != 0 {
			t.Errorf("%s: got %d requests that failed, want none; the first: %+v", name, len(failed), failed[0])
		}
	}
	for _, r := range runs {
		r.stop()
	}
	for i, r := range runs {
		s := shapes[i/len(gs)]
		end(fmt.Sprintf("%s at gateway %d", s.name, i%len(gs)+1), r)
	}
	for _, s := range shapes {
		took := gs[0].waitWanted(t, s.name, 1).Sub(ended)
		changes.row(fmt.Sprintf("none, after %v", s.parts), 1, fmt.Sprintf("%.1f s", took.Seconds()))
		if took > down {
			t.Errorf("%v: got 1 replica %v after the load, want it within %v", s.parts, took.Round(time.Millisecond), down)
		}
	}
	end("one caller at gateway 3", kept)
	gs[0].waitWanted(t, zero, 0)
	waitNoContainer(t, l, zero)
	// Whichever has a caller wakes it.
	_, others := gs.acting(t)
	if a := others[0].post(t, "/function/"+zero, nil, nil); a.status != http.StatusOK {
		t.Errorf("got status %d from a function that a gateway wakes that does not act, want 200: %s", a.status, firstLine(a.body))
	}
	changes.print(t)
	loads.print(t)
}

// The load goes on rising when the gateway that acts is killed: another one orders what
// it needs, and callers of the others notice nothing.
func testActingKilled(t *testing.T, l *lab, gs gateways) {
	const name, within = "rising", 10 * time.Second // the goal is 3 s, where the machine does nothing else
	createFunction(t, l, name, catImage, "--env", longSleeper, "--label", "com.openfaas.scale.target=10")
	for _, g := range gs {
		g.waitAnswer(t, name)
	}
	acting, others := gs.acting(t)
	runs := []*loadRun{sleeping(t, others[0], name, 8)}
	sleepUntil(t.Context(), time.Now().Add(2*time.Second))
	if got := others[1].wanted(t, name); got != 1 {
		t.Fatalf("got %d replicas for 8 requests, want 1", got)
	}
	acting.node.docker(t, "kill", "--signal", "KILL", acting.container(t))
	killed := time.Now()
	for _, g := range others {
		runs = append(runs, sleeping(t, g, name, 15))
	}
	took := others[0].waitWanted(t, name, 4).Sub(killed)
	if took > within {
		t.Errorf("got 4 replicas ordered %v after the acting gateway was killed, want it within %v", took.Round(time.Millisecond), within)
	}
	gs.waitHeard(t) // the third again, too
	again := time.Since(killed)
	for i, r := range runs {
		report := r.end()
		if failed := report.failed(); len(failed) != 0 {
			t.Errorf("load %d: got %d of %d requests that failed, want none; the first: %+v", i, len(failed), len(report.results), failed[0])
		}
	}
	for _, g := range others {
		since := g.node.logs("logs", "--since", killed.Format(time.RFC3339Nano), g.container(t))
		if got := strings.Count(since, "acting gateway changed"); got != 1 {
			t.Errorf("%s: the log says %d times that another gateway acts, want 1: %s", g.node.name, got, since)
		}
	}
	table := newTable("The acting gateway killed, 8 requests in flight and 30 more at once", "4 replicas ordered after", "three gateways again after")
	table.row(took.Round(100*time.Millisecond), again.Round(100*time.Millisecond))
	table.print(t)
}

// A gateway is cut off together with callers of its own: on neither side the number of
// replicas is changed by more than a step, and when the gateways hear each other again
// it is soon the right one.
func testPeerCutOff(t *testing.T, l *lab, gs gateways) {
	const name, right, lasts, settled = "parted", 3, 40 * time.Second, 5 * time.Second
	createFunction(t, l, name, catImage, "--env", longSleeper, "--label", "com.openfaas.scale.target=10")
	for _, g := range gs {
		g.waitAnswer(t, name)
	}
	for _, g := range gs[:2] {
		sleeping(t, g, name, 10)
	}
	callFromNode(t, l.node(3), "/function/"+name, 10)
	gs[0].waitWanted(t, name, right)
	gs[0].waitGauge(t, readyGauge, name, right)

	l.node(3).cut(t)
	began, steps, last := time.Now(), 0, right
	table := newTable("One of three gateways cut off, with a third of the load", "", "replicas wanted", "after")
	look := func(until time.Time, done func() bool) {
		t.Helper()
		for time.Now().Before(until) && !done() {
			got := gs[0].wanted(t, name)
			if got != last {
				steps++
				table.row("wanted", got, time.Since(began).Round(100*time.Millisecond))
				last = got
			}
			if got < right-1 || got > right+1 {
				t.Fatalf("got %d replicas while a gateway is cut off, want no more than a step from %d", got, right)
			}
			sleepUntil(t.Context(), time.Now().Add(50*time.Millisecond))
		}
	}
	look(began.Add(lasts), func() bool { return false })
	if steps > 1 {
		t.Errorf("got %d changes while a gateway was cut off, want one step at most", steps)
	}
	l.node(3).repair(t, "heal")
	healed := time.Now()
	heard := func() bool {
		for _, g := range gs {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			a, err := g.call(ctx, http.MethodGet, "/metrics", nil, nil)
			cancel()
			if err != nil || !strings.Contains(string(a.body), fmt.Sprintf("gateway_peers %d\n", len(gs)-1)) {
				return false
			}
		}
		return true
	}
	look(healed.Add(readyTimeout), heard)
	if !heard() {
		t.Fatal("the gateways do not hear each other again")
	}
	whole := time.Now()
	table.row("all are heard again", "", whole.Sub(began).Round(100*time.Millisecond))
	table.row("after it had healed", "", whole.Sub(healed).Round(100*time.Millisecond))
	look(whole.Add(readyTimeout), func() bool { return last == right })
	took := time.Since(whole)
	table.row("the right number again, after all are heard", last, took.Round(100*time.Millisecond))
	if last != right || took > settled {
		t.Errorf("got %d replicas %v after the gateways hear each other, want %d within %v", last, took.Round(100*time.Millisecond), right, settled)
	}
	table.print(t)
}

// callFromNode has so many callers on the node itself call a path of the node's gateway,
// again and again, until the end of the test.
func callFromNode(t *testing.T, n *node, path string, callers int) {
	t.Helper()
	script := fmt.Sprintf(`for i in $(seq %d); do while :; do curl -s -m 60 -o /dev/null -X POST http://%s:8080%s || sleep 0.1; done & done; wait`, callers, n.addr, path)
	cmd := exec.Command("nsenter", fmt.Sprintf("--net=/run/netns/%s-%d", n.lab.name, n.id), "busybox", "sh", "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); err != nil {
			t.Errorf("end the callers on %s: %v", n.name, err)
		}
		cmd.Wait()
	})
}

// The gateways are replaced one by one under a load that comes through a balancer which
// asks for /healthz: no call fails, and replicas stay as they are.
func testPeersUpdated(t *testing.T, l *lab, gs gateways) {
	// A third of the rate less, or twice the rate, would change the number.
	const name, replicas, rate = "steady", 2, 200
	// A server that stays up, or starting processes would take all of the machine.
	const primesImage = "faas/primes"
	if err := errors.Join(l.build(t.Context(), primesImage, "sample-functions/primes/Dockerfile", "sample-functions/primes"), l.spread(t.Context(), primesImage)); err != nil {
		t.Fatal(err)
	}
	createFunction(t, l, name, primesImage, "--replicas", fmt.Sprint(replicas),
		"--label", "com.openfaas.scale.type=rps", "--label", "com.openfaas.scale.target=150")
	for _, g := range gs {
		if err := pollFor(t, func() bool {
			a, err := g.call(t.Context(), http.MethodGet, "/function/"+name+"/1", nil, nil)
			return err == nil && a.status == http.StatusOK
		}); err != nil {
			t.Fatalf("%s: %v", g.node.name, err)
		}
	}
	front := startBalancer(t, gs)
	load := startLoad(t, loadConfig{
		method: http.MethodGet, url: front + "/function/" + name + "/100", rate: rate, callers: 100, count: 100_000, duration: 3 * time.Minute, timeout: 30 * time.Second,
		body: func(int) []byte { return nil },
		check: func(_ int, _, got []byte) error {
			if string(got) != "541\n" {
				return fmt.Errorf("got %q, want the 100th prime", got)
			}
			return nil
		},
	})
	load.last(t, 2*time.Second)
	began := time.Now()
	l.docker(t, "service", "update", "--detach", "--quiet", "--force", "--no-resolve-image", peersService)
	waitUpdated(t, l, peersService)
	gs.waitHeard(t)
	took := time.Since(began)
	load.last(t, 2*time.Second)
	report := load.end()
	loads := newLoadTable(fmt.Sprintf("Three gateways replaced in %v behind a balancer", took.Round(time.Second)))
	loads.load("200 a second", report)
	loads.print(t)
	if failed := report.failed(); len(failed) != 0 {
		t.Errorf("got %d requests that failed, want none; the first: %+v", len(failed), failed[0])
	}
	waitReplicas(t, l, name, replicas)
	tasks := l.docker(t, "service", "ps", "--quiet", name)
	if got := strings.Count(tasks, "\n") + 1; got != replicas {
		t.Errorf("got %d tasks of the function since its start, want the %d of before", got, replicas)
	}
}

// startBalancer runs what stands in front of gateways: each call goes to the next one
// that has answered 200 for /healthz, which it asks twice a second. It tries nothing
// twice. It returns the balancer's URL.
func startBalancer(t *testing.T, gs gateways) string {
	t.Helper()
	type target struct {
		proxy   *httputil.ReverseProxy
		healthy atomic.Bool
	}
	var targets []*target
	transport := &http.Transport{MaxIdleConnsPerHost: 256, IdleConnTimeout: 10 * time.Second, DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	for _, g := range gs {
		u, err := url.Parse(g.url)
		if err != nil {
			t.Fatal(err)
		}
		tg := &target{proxy: &httputil.ReverseProxy{
			Transport: transport,
			Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(u) },
			ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
				http.Error(w, g.node.name+": "+err.Error(), http.StatusBadGateway)
			},
		}}
		tg.healthy.Store(true)
		targets = append(targets, tg)
		done := make(chan struct{})
		ctx := t.Context()
		go func() {
			defer close(done)
			for next := time.Now(); sleepUntil(ctx, next); next = next.Add(500 * time.Millisecond) {
				ask, cancel := context.WithTimeout(ctx, 2*time.Second)
				a, err := g.call(ask, http.MethodGet, "/healthz", nil, nil)
				cancel()
				tg.healthy.Store(err == nil && a.status == http.StatusOK)
			}
		}()
		t.Cleanup(func() { <-done })
	}
	var next atomic.Uint32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for range targets {
			if tg := targets[int(next.Add(1))%len(targets)]; tg.healthy.Load() {
				tg.proxy.ServeHTTP(w, r)
				return
			}
		}
		http.Error(w, "no gateway is healthy", http.StatusServiceUnavailable)
	}))
	t.Cleanup(server.Close)
	return server.URL
}
