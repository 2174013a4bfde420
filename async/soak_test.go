package main

// What was accepted runs, whoever is killed meanwhile.

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Calls are accepted at full speed while faas-async is killed ten times and
// the gateway twice: each that got a 202 runs at least once and ends done or
// dead.
func TestKilled(t *testing.T) {
	n := soakSize(t, 2000)
	rec := startRecorder(t, 0)
	gateway, gatewayAddress := startGateway(t, map[string]string{"rec": rec.address})
	async, address := startAsync(t, "http://"+gatewayAddress, "-data", t.TempDir())
	kills := map[int][]*program{}
	for i := range 10 {
		kills[n*(i+1)/11] = []*program{async}
	}
	for i := range 2 {
		at := n * (2*i + 1) / 4
		kills[at] = append(kills[at], gateway)
	}
	soak(t, n, rec, newClient(t, address), kills)
}

// The same with three NATS servers and two faas-async: one of the servers is
// killed and stays away for a while, so is one faas-async.
func TestKilledInCluster(t *testing.T) {
	n := soakSize(t, 2000)
	rec := startRecorder(t, 0)
	gateway, gatewayAddress := startGateway(t, map[string]string{"rec": rec.address})
	servers, urls := startCluster(t)
	one, first := startAsync(t, "http://"+gatewayAddress, "-nats", urls, "-stream-replicas", "3")
	_, second := startAsync(t, "http://"+gatewayAddress, "-nats", urls, "-stream-replicas", "3")
	kills := map[int][]*program{}
	for i := range 10 {
		kills[n*(i+1)/11] = []*program{one}
	}
	for i := range 2 {
		at := n * (2*i + 1) / 4
		kills[at] = append(kills[at], gateway)
	}
	kills[n*2/5] = append(kills[n*2/5], servers[1])
	soak(t, n, rec, newClient(t, first, second), kills)
}

// soak makes n calls, kills programs at the numbers of accepted calls in
// kills, each time starting them again, and checks what became of the calls.
func soak(t *testing.T, n int, rec *recorder, c *client, kills map[int][]*program) {
	var accepted atomic.Int64
	var mu sync.Mutex
	var ids []string
	var killing, calling sync.WaitGroup
	next := make(chan int)
	start := time.Now()
	for range 32 {
		calling.Go(func() {
			for i := range next {
				id, err := c.post(t.Context(), i, "rec", fmt.Appendf(nil, "call %d", i))
				if err != nil {
					t.Errorf("call %d: %v", i, err)
					continue
				}
				mu.Lock()
				ids = append(ids, id)
				mu.Unlock()
				for _, p := range kills[int(accepted.Add(1))] {
					killing.Go(p.restart)
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	calling.Wait()
	killing.Wait()
	took := time.Since(start)

	states := map[string]int{}
	deadline := time.Now().Add(2*time.Minute + time.Duration(n)*5*time.Millisecond)
	for _, id := range ids {
		for {
			st, ok := c.status(id)
			if ok && (st.Status == stateDone || st.Status == stateDead) {
				states[st.Status]++
				break
			}
			if time.Now().After(deadline) {
				t.Errorf("call %s: got %+v (answered: %v) with %d runs, want it done or dead", id, st, ok, rec.of(id))
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	missing, again := 0, 0
	for _, id := range ids {
		switch runs := rec.of(id); {
		case runs == 0:
			missing++
		case runs > 1:
			again++
		}
	}
	if missing > 0 || len(ids) != n || states[stateDone]+states[stateDead] != n {
		t.Errorf("of %d calls with a 202 %d never ran; states %v", len(ids), missing, states)
	}
	t.Logf("%d calls accepted in %s (%.0f per second, %d kills among them), all over %s after that; done %d, dead %d, run more than once %d (%.2f %%), run without a 202 %d",
		n, took.Round(time.Millisecond), float64(n)/took.Seconds(), killed(kills), time.Since(start.Add(took)).Round(time.Millisecond),
		states[stateDone], states[stateDead], again, 100*float64(again)/float64(n), rec.total()-len(ids))
}

func killed(kills map[int][]*program) (n int) {
	for _, k := range kills {
		n += len(k)
	}
	return n
}
