package main

// The autoscaler on the local provider: the loop of the Swarm, with replicas
// that are listeners of this process and real processes behind them.

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"faas/internal/scale"
)

// A scaledLocal tells how many replicas each change left.
type scaledLocal struct {
	*localProvider
	replicas chan int
}

func (p *scaledLocal) scale(ctx context.Context, d definition, decide func(current int) int) error {
	before := 0
	err := p.localProvider.scale(ctx, d, func(current int) int {
		before = current
		return decide(current)
	})
	if addrs, _ := p.addresses(ctx, d); err == nil && len(addrs) != before {
		p.replicas <- len(addrs)
	}
	return err
}

func TestLocalReplicasFollowTheLoad(t *testing.T) {
	t.Parallel() // it mostly waits for the windows
	c, err := parseConfig([]string{"-function", "nap=sleep 0.1"}, os.Getenv, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	limits := scale.Limits{Kind: scale.Capacity, Target: 2, Min: 1, Max: 5, Zero: true, ZeroDuration: time.Second, Factor: defaultScaleFactor}
	defaults := definition{port: 8080, timeout: 10 * time.Second, scale: limits}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	local := newLocal(c.functions, defaults, log)
	t.Cleanup(local.close)
	if err := local.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	p := &scaledLocal{local, make(chan int, 100)}
	url := startGateway(t, p) + "/function/nap"

	const limit = 30 * time.Second // of a machine that does much else
	reached := func(want int) {
		t.Helper()
		late := time.After(limit)
		for {
			select {
			case n := <-p.replicas:
				if n == want {
					return
				}
				if n > limits.Max {
					t.Fatalf("got %d replicas, want %d at most", n, limits.Max)
				}
			case <-late:
				t.Fatalf("not %d replicas after %v", want, limit)
			}
		}
	}
	call := func() {
		resp, err := http.Post(url, "text/plain", nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer resp.Body.Close()
		if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("got status %d, %v, want 200: %s", resp.StatusCode, err, body)
		}
	}

	loaded, end := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	t.Cleanup(callers.Wait)
	t.Cleanup(end)
	for range 20 { // twice what the most replicas take
		callers.Go(func() {
			for loaded.Err() == nil && !t.Failed() {
				call()
			}
		})
	}
	reached(limits.Max)
	end()
	callers.Wait()
	reached(0)
	// A replica that was just stopped may answer the first calls.
	once, end := context.WithCancel(t.Context())
	t.Cleanup(end)
	callers.Go(func() {
		for once.Err() == nil && !t.Failed() {
			call()
		}
	})
	reached(1)
	end()
}
