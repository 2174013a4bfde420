package main

// Many at once: schedules from several processes, floods, and what a long
// queue costs.

import (
	"fmt"
	"net/http"
	"net/http/httputil"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// listed is a stand-in that lists functions with labels, in front of the real
// gateway, which runs them.
func listed(t *testing.T, gateway string, labels map[string]map[string]string) *standIn {
	g := newStandIn(t)
	g.behind = httputil.NewSingleHostReverseProxy(mustURL(t, "http://"+gateway))
	for name, l := range labels {
		g.function(name, l, nil)
	}
	return g
}

// Three faas-async fire a schedule of every second, and one of them is killed
// meanwhile: each second runs, and none twice.
func TestScheduleFromThree(t *testing.T) {
	seconds := 15
	if soakSize(t, 1) > 1 {
		seconds = 60
	}
	var mu sync.Mutex
	runs := map[string]int{}
	rec := newStandIn(t)
	rec.behind = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		runs[r.Header.Get("X-Due")]++
	})
	_, gateway := startGateway(t, map[string]string{"tick": rec.URL})
	g := listed(t, gateway, map[string]map[string]string{"tick": {labelSchedule: "@every 1s"}})
	_, urls := startCluster(t)
	var all []*program
	var addresses []string
	for range 3 {
		p, address := startAsync(t, g.URL, "-nats", urls, "-stream-replicas", "3")
		all, addresses = append(all, p), append(addresses, address)
	}
	c := newClient(t, addresses...)
	ran := func(s string) bool { mu.Lock(); defer mu.Unlock(); return runs[s] > 0 }
	within(t, time.Minute, "the first run", func() bool { mu.Lock(); defer mu.Unlock(); return len(runs) > 0 })
	first := time.Now().UTC().Truncate(time.Second).Add(time.Second)
	due := func(i int) string { return first.Add(time.Duration(i) * time.Second).Format(time.RFC3339) }
	// A call that runs when its faas-async is killed runs again, as any does.
	// So the kill comes between two: what is shown is that no time is published
	// twice, and none is left out.
	for i := seconds / 3; ; i++ {
		id := callIDOf("schedule", "tick", strconv.FormatInt(first.Unix()+int64(i), 10))
		within(t, time.Minute, "a third of the runs", func() bool {
			st, ok := c.status(id)
			return ok && st.Status == stateDone
		})
		if time.Until(first.Add(time.Duration(i+1)*time.Second)) > 500*time.Millisecond {
			break // before the next one
		}
	}
	all[0].kill()
	within(t, 2*time.Minute, "the last run", func() bool { return ran(due(seconds - 1)) })
	// Whatever is due later has come after it, and a double by then, too.
	within(t, time.Minute, "two more", func() bool { return ran(due(seconds + 1)) })

	mu.Lock()
	defer mu.Unlock()
	n := 0
	for i := range seconds {
		n += runs[due(i)]
		if runs[due(i)] != 1 {
			t.Errorf("%s: got %d runs, want 1", due(i), runs[due(i)])
		}
	}
	t.Logf("%d runs in %d seconds", n, seconds)
}

// 10,000 calls of a slow function wait, and 10 of another are done within 2 s.
func TestFlood(t *testing.T) {
	n := min(soakSize(t, 1000), 10_000)
	slow, fast := startRecorder(t, time.Second), startRecorder(t, 0)
	_, gateway := startGateway(t, map[string]string{"slow": slow.address, "fast": fast.address})
	_, address := startAsync(t, "http://"+gateway, "-data", t.TempDir())
	c := newClient(t, address)
	callMany(t, c, "slow", n, 64)
	within(t, soon, "slow ones run", func() bool { return slow.total() > 0 })
	took := time.Hour
	for try := 0; try < 5 && took > 2*time.Second; try++ { // the disk may be busy
		start := time.Now()
		ids := callMany(t, c, "fast", 10, 1)
		within(t, soon, "the others are done", func() bool {
			return !slices.ContainsFunc(ids, func(id string) bool { return fast.of(id) == 0 })
		})
		took = min(took, time.Since(start))
	}
	left := n - slow.total()
	t.Logf("with %d calls of a slow function waiting, 10 of another took %s", left, took.Round(time.Millisecond))
	if left < n/2 {
		t.Errorf("only %d of %d slow calls were left: no flood", left, n)
	}
	if took > 2*time.Second {
		t.Errorf("got %s, want 2 s", took)
	}
}

// callMany makes n calls, so many at a time.
func callMany(t *testing.T, c *client, function string, n, atOnce int) []string {
	t.Helper()
	ids := make([]string, n)
	next := make(chan int)
	var wg sync.WaitGroup
	for range atOnce {
		wg.Go(func() {
			for i := range next {
				id, err := c.post(t.Context(), i, function, fmt.Appendf(nil, "call %d", i))
				if err != nil {
					t.Errorf("call %d: %v", i, err)
				}
				ids[i] = id
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	return ids
}

// 100,000 calls wait in less than 100 MiB, also after a restart.
func TestMemory(t *testing.T) {
	n := 20_000
	if soakSize(t, 1) > 1 {
		n = 100_000
	}
	const most = 100 << 20
	rec := startRecorder(t, 0)
	gatewayProgram, gateway := startGateway(t, map[string]string{"rec": rec.address})
	gatewayProgram.kill() // nothing runs
	p, address := startAsync(t, "http://"+gateway, "-data", t.TempDir())
	c := newClient(t, address)
	before := p.rss()
	start := time.Now()
	callMany(t, c, "rec", n, 64)
	took := time.Since(start)
	queued := p.rss()
	within(t, soon, "counted", func() bool {
		body := ask(t, "GET", c.urls[0]+"/metrics", "").body
		return strings.Contains(body, fmt.Sprintf("async_queued{function_name=\"rec\"} %d\n", n)) || strings.Contains(body, fmt.Sprintf("async_queued{function_name=\"rec\"} %g\n", float64(n)))
	})
	p.restart()
	healthy(t, address)
	after := p.rss()
	t.Logf("RSS: %d MiB idle, %d MiB with %d queued (accepted at %.0f per second), %d MiB after a restart", before>>20, queued>>20, n, float64(n)/took.Seconds(), after>>20)
	if max(queued, after) > most {
		t.Errorf("got %d and %d MiB, want at most 100", queued>>20, after>>20)
	}
}
