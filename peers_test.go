package main

// Several gateways in this process, before the same functions.

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"faas/internal/alexa"
	"faas/internal/peers"
	"faas/internal/scale"
)

// startGateways starts n gateways that know of each other, and returns their URLs when
// each has heard of all.
func startGateways(t *testing.T, n int, p provider, verifier func() *alexa.Verifier, args ...string) []string {
	t.Helper()
	var listen, bases []string
	for range n {
		listen = append(listen, freeAddr(t))
	}
	for _, l := range listen {
		var v *alexa.Verifier
		if verifier != nil {
			v = verifier()
		}
		with := append([]string{"-peers", strings.Join(listen, ","), "-peer-listen", l}, args...)
		bases = append(bases, "http://"+startGatewayVerifying(t, p, v, nil, with...))
	}
	for _, b := range bases {
		awaitMetric(t, b, fmt.Sprint("gateway_peers ", n-1))
		awaitMetric(t, b, fmt.Sprint("gateway_peers_expected ", n-1))
	}
	return bases
}

// hold has so many calls of f in flight at base until the test ends or release is
// called, which waits for them.
func hold(t *testing.T, base, f string, calls int) (release func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range calls {
		wg.Go(func() {
			req, err := http.NewRequestWithContext(ctx, "GET", base+"/function/"+f, nil)
			if err != nil {
				t.Error(err)
				return
			}
			for {
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					return
				}
				resp.Body.Close()
				// Where a gateway has not been heard for a second, the others keep to
				// their shares of a limit.
				if resp.StatusCode != http.StatusTooManyRequests {
					t.Errorf("a call that was to be held: got %s", resp.Status)
					return
				}
				if sleep(ctx, 10*time.Millisecond) != nil {
					return
				}
			}
		})
	}
	release = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
	})
	t.Cleanup(release)
	return release
}

// A sleeper's replica answers when its caller has gone.
func sleeper(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// A call that comes between the reading of the clock and that of the load does not spoil
// what other gateways are told.
func TestACallAfterTheClockIsTold(t *testing.T) {
	const now = 10 * time.Millisecond
	f := &function{name: "f"}
	f.admission.load.Add(now+5*time.Millisecond, 1, 1)
	f.admission.load.Add(now+5*time.Millisecond, -1, 0)
	here := peers.NewBook(1, func(now time.Duration, _ bool) iter.Seq2[string, peers.Load] {
		return func(yield func(string, peers.Load) bool) { yield(f.name, f.told(now, false)) }
	})
	there := peers.NewBook(2, func(time.Duration, bool) iter.Seq2[string, peers.Load] {
		return func(func(string, peers.Load) bool) {}
	})
	if err := there.Hear("gateway", here.Answer(peers.Ask{}, now), now, now); err != nil {
		t.Fatalf("what this gateway says of a call that has just ended: %v", err)
	}
	if l := there.Sum(f.name).Others(now); l.Idle != 0 {
		t.Errorf("the other gateway takes the function to be idle for %v, want 0", l.Idle)
	}
}

func scaled(d *definition) {
	d.scale = scale.Limits{Kind: scale.Capacity, Target: 10, Min: 1, Max: 20, Factor: defaultScaleFactor}
	d.timeout = time.Minute
}

// The sum counts, however calls are spread over gateways.
func TestGatewaysScaleByTheSum(t *testing.T) {
	for _, tt := range []struct {
		calls    [3]int
		replicas int32
	}{
		{[3]int{10, 10, 10}, 3},
		{[3]int{28, 1, 1}, 3},
		{[3]int{0, 0, 30}, 3},
		{[3]int{60, 20, 1}, 9},
	} {
		t.Run(fmt.Sprint(tt.calls), func(t *testing.T) {
			t.Parallel()
			p := newMemoryProvider()
			reached := make(chan struct{})
			var most atomic.Int32
			p.scaled = func(_ definition, wanted int) {
				if old := most.Swap(int32(wanted)); old > int32(wanted) {
					t.Errorf("scaled from %d to %d under load", old, wanted)
				}
				if int32(wanted) == tt.replicas {
					close(reached)
				}
			}
			p.set("sleeper", scaled, startReplica(t, sleeper))
			bases := startGateways(t, 3, p, nil)
			total := 0
			for i, n := range tt.calls {
				hold(t, bases[i], "sleeper", n)
				total += n
			}
			for _, b := range bases {
				awaitMetric(t, b, fmt.Sprintf(`gateway_scale_load{function_name="sleeper"} %d`, total))
			}
			select {
			case <-reached:
			case <-time.After(time.Minute):
				t.Fatalf("got %d replicas, want %d", most.Load(), tt.replicas)
			}
		})
	}
}
