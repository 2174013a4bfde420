package main

// Looking up where replicas are.

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestAddressesAreStaleRatherThanNone(t *testing.T) {
	p := newMemoryProvider()
	p.set("f", nil, "10.0.0.1:8080", "10.0.0.2:8080")
	r, _ := newTestRegistry(p, accepts)
	var left []string
	r.closeIdle = func(addr string) { left = append(left, addr) }
	mustLoad(t, r)
	f := r.function("f")
	r.lookUp(t.Context(), f)

	p.addrErr = errors.New("no answer")
	p.setAddrs("f")
	r.lookUp(t.Context(), f)
	if got := addrsOf(f); len(got) != 2 {
		t.Fatalf("the look-up failed: got %v, want the two that were known", got)
	}
	f.balancer.failed(f.balancer.replicas()[0], time.Now())
	r.lookUp(t.Context(), f)
	if got := addrsOf(f); len(got) != 2 {
		t.Fatalf("one of two could not be reached: got %v, want both", got)
	}
	f.balancer.failed(f.balancer.replicas()[1], time.Now())
	r.lookUp(t.Context(), f)
	if got := addrsOf(f); len(got) != 0 {
		t.Errorf("neither could be reached: got %v, want none", got)
	}
	slices.Sort(left)
	if want := []string{"10.0.0.1:8080", "10.0.0.2:8080"}; !slices.Equal(left, want) {
		t.Errorf("idle connections closed: got %v, want %v", left, want)
	}

	p.addrErr = nil
	p.setAddrs("f", "10.0.0.3:8080")
	r.lookUp(t.Context(), f)
	if got := addrsOf(f); !slices.Equal(got, []string{"10.0.0.3:8080"}) {
		t.Errorf("got %v, want the new one", got)
	}
}

// A task is known before its process listens, and a node may be unreachable:
// who waits goes on as soon as one address accepts, and not before.
func TestCallersWaitForTheFirstAddressThatAccepts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var open atomic.Bool
		p := newMemoryProvider()
		p.set("f", nil)
		r, _ := newTestRegistry(p, func(ctx context.Context, _, addr string) (net.Conn, error) {
			switch {
			case addr == "hangs:1":
				<-ctx.Done()
				return nil, ctx.Err()
			case addr == "accepts:1" && open.Load():
				return accepts(ctx, "", addr)
			}
			return nil, syscall.ECONNREFUSED
		})
		stop := runRegistry(t, r)
		defer stop()
		synctest.Wait()
		f := r.function("f")
		released := make(chan error, 3)
		for range cap(released) {
			go func() { released <- f.admission.wait(t.Context(), 10, func(bool) { r.refresh(f) }) }()
		}
		time.Sleep(time.Second)
		p.setAddrs("f", "accepts:1", "hangs:1", "refuses:1")
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if len(released) > 0 {
			t.Fatal("callers went on although no address accepts")
		}
		open.Store(true)
		opened := time.Now()
		for range cap(released) {
			if err := <-released; err != nil {
				t.Error(err)
			}
		}
		if got := time.Since(opened); got > dialTimeout+2*pollPause {
			t.Errorf("callers waited %v after the address began to accept", got)
		}
		if got := addrsOf(f); !slices.Equal(got, []string{"accepts:1"}) {
			t.Errorf("got replicas %v, want the one that accepts", got)
		}
		time.Sleep(time.Second)
		if !strings.Contains(exposed(r.metrics), `gateway_cold_start_seconds_count{function_name="f"} 1`) {
			t.Error("the cold start was not counted once")
		}
	})
}

func TestWhoWaitsForARemovedFunctionIsToldSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newMemoryProvider()
		p.set("f", nil)
		r, _ := newTestRegistry(p, accepts)
		stop := runRegistry(t, r)
		defer stop()
		synctest.Wait()
		f := r.function("f")
		u := &upstream{refresh: r.refresh, wake: func(string) {}, queue: 10, queueTimeout: time.Hour}
		began := time.Now()
		before := make(chan error, 1)
		go func() { before <- u.await(t.Context(), f) }()
		time.Sleep(time.Second)
		p.remove("f")
		if err := <-before; err != nil {
			t.Errorf("released with %v, want none", err)
		}
		if err := u.await(t.Context(), f); !errors.Is(err, errNotFound) {
			t.Errorf("the next try: got %v, want %v", err, errNotFound)
		}
		// Somebody who looked before it was removed and stands in line after
		// it is not forgotten there.
		if err := f.admission.wait(t.Context(), 10, func(bool) { r.refresh(f) }); err != nil {
			t.Errorf("who came late: %v", err)
		}
		if got := time.Since(began); got > 2*time.Second {
			t.Errorf("it took %v, want no wait", got)
		}
		if text := exposed(r.metrics); strings.Contains(text, `function_name="f"`) {
			t.Error("metrics of the removed function are still there")
		}
	})
}

// Look-ups of names without a task hang. They must not keep the others from
// being looked up, whether somebody waits for them or not.
func TestHangingLookUpsStarveNobody(t *testing.T) {
	for _, waiting := range []bool{false, true} {
		t.Run(fmt.Sprint("waiting=", waiting), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &hookedProvider{memoryProvider: newMemoryProvider()}
				p.lookUp = func(ctx context.Context, d definition) ([]string, error) {
					if strings.HasPrefix(d.name, "hangs") {
						<-ctx.Done()
						return nil, ctx.Err()
					}
					return p.memoryProvider.addresses(ctx, d)
				}
				const hanging = 3 * maxLookups
				for i := range hanging {
					p.set(fmt.Sprint("hangs", i), nil)
				}
				p.set("good", nil)
				r, _ := newTestRegistry(p, accepts)
				stop := runRegistry(t, r)
				defer stop()
				time.Sleep(5 * time.Second)
				var wg sync.WaitGroup
				ctx, cancel := context.WithCancel(t.Context())
				for i := range hanging {
					f := r.function(fmt.Sprint("hangs", i))
					if waiting {
						wg.Go(func() { f.admission.wait(ctx, 1, func(bool) { r.refresh(f) }) })
					} else {
						r.refresh(f)
					}
				}
				synctest.Wait()
				p.setAddrs("good", "10.0.0.1:8080")
				good := r.function("good")
				began := time.Now()
				if err := good.admission.wait(t.Context(), 1, func(bool) { r.refresh(good) }); err != nil {
					t.Fatal(err)
				}
				if got := time.Since(began); got > 4*lookupTimeout {
					t.Errorf("the good one waited %v, want %v at most", got, 4*lookupTimeout)
				}
				cancel()
				wg.Wait()
			})
		})
	}
}

func TestManyFunctions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newMemoryProvider()
		const n = 500
		for i := range n {
			p.set(fmt.Sprint("f", i), func(d *definition) { d.created = time.Unix(int64(i), 0) }, fmt.Sprintf("10.0.%d.%d:8080", i/250, i%250))
		}
		r, _ := newTestRegistry(p, accepts)
		stop := runRegistry(t, r)
		defer stop()
		time.Sleep(time.Second)
		for i, f := range r.functions() {
			if want := fmt.Sprint("f", i); f.name != want {
				t.Fatalf("function %d by age: got %s, want %s", i, f.name, want)
			}
			if f.balancer.ready() != 1 {
				t.Errorf("%s: got %d replicas, want 1", f.name, f.balancer.ready())
			}
		}
		if got := len(r.functions()); got != n {
			t.Errorf("got %d functions, want %d", got, n)
		}
		if r.function("f500") != nil || r.function("") != nil {
			t.Error("a name that is none was found")
		}
	})
}

// An ejected replica is tried by the registry, not by a caller.
func TestAnEjectedReplicaIsProbed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var up atomic.Bool
		dials := 0
		p := newMemoryProvider()
		p.set("f", nil, "a:1", "b:1")
		r, _ := newTestRegistry(p, func(ctx context.Context, network, addr string) (net.Conn, error) {
			dials++
			if !up.Load() {
				return nil, syscall.ECONNREFUSED
			}
			return accepts(ctx, network, addr)
		})
		mustLoad(t, r)
		f := r.function("f")
		r.lookUp(t.Context(), f)
		f.balancer.failed(f.balancer.replicas()[0], time.Now())
		r.lookUp(t.Context(), f)
		if dials != 0 {
			t.Errorf("got %d dials before its time", dials)
		}
		time.Sleep(ejectFirst)
		r.lookUp(t.Context(), f)
		if dials != 1 || f.balancer.ready() != 1 {
			t.Errorf("got %d dials and %d ready, want one dial that failed", dials, f.balancer.ready())
		}
		up.Store(true)
		time.Sleep(2 * ejectFirst)
		r.lookUp(t.Context(), f)
		if f.balancer.ready() != 2 {
			t.Errorf("got %d ready, want both", f.balancer.ready())
		}
	})
}
