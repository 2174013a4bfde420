package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestASnapshotNeverChangesAndStateSurvivesIt(t *testing.T) {
	p := newMemoryProvider()
	p.set("a", nil, "10.0.0.1:8080", "10.0.0.2:8080")
	p.set("b", nil, "10.0.0.3:8080")
	r, _ := newTestRegistry(p, accepts)
	mustLoad(t, r)
	first := r.current.Load()
	a := r.function("a")
	r.lookUp(t.Context(), a)
	busy := a.balancer.pick(nil, time.Now())
	a.balancer.failed(a.balancer.replicas()[0], time.Now())
	a.admission.enter(time.Now(), 0)

	p.set("a", func(d *definition) { d.timeout = time.Minute; d.claim(labelRoute, []string{"/a"}) }, "10.0.0.2:8080", "10.0.0.1:8080", "10.0.0.4:8080")
	p.remove("b")
	p.set("c", nil)
	mustLoad(t, r)

	if got := slices.Sorted(maps.Keys(first.functions)); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("the first snapshot became %v", got)
	}
	if first.defs[0].timeout != 10*time.Second {
		t.Errorf("a definition of the first snapshot became %v", first.defs[0].timeout)
	}
	second := r.current.Load()
	if got := slices.Sorted(maps.Keys(second.functions)); !slices.Equal(got, []string{"a", "c"}) {
		t.Errorf("got %v, want a and c", got)
	}
	if r.function("a") != a {
		t.Fatal("the function lost its state")
	}
	if got := a.definition().timeout; got != time.Minute {
		t.Errorf("timeout: got %v, want the new 1m", got)
	}
	r.lookUp(t.Context(), a)
	if got := a.balancer.ready(); got != 2 {
		t.Errorf("got %d replicas ready, want 2 of 3: one is still ejected", got)
	}
	if !slices.Contains(a.balancer.replicas(), busy) || busy.inflight.Load() != 1 {
		t.Error("what was in flight is forgotten")
	}
	if inflight, _ := a.admission.counts(); inflight != 1 {
		t.Errorf("got %d in flight, want 1", inflight)
	}
}

func TestOfTwoFunctionsOfOneNameTheOlderKeepsIt(t *testing.T) {
	p := newMemoryProvider()
	old := time.Unix(1000, 0)
	p.set("younger", func(d *definition) { d.name = "shared"; d.created = old.Add(time.Hour) })
	p.set("older", func(d *definition) { d.name = "shared"; d.created = old })
	r, logged := newTestRegistry(p, accepts)
	for range 3 {
		mustLoad(t, r)
	}
	if got := r.function("shared").definition().service; got != "older" {
		t.Errorf("got service %s, want the older", got)
	}
	if got := logged.count("level=WARN", "service younger", "older"); got != 1 {
		t.Errorf("reported %d times, want once", got)
	}
	if !strings.Contains(exposed(r.metrics), "gateway_route_conflicts 1\n") {
		t.Error("the metric does not count it")
	}
	p.defs = slices.DeleteFunc(p.defs, func(d definition) bool { return d.service == "older" })
	mustLoad(t, r)
	if got := r.function("shared").definition().service; got != "younger" {
		t.Errorf("got service %s, want younger now that older is gone", got)
	}
	if !strings.Contains(exposed(r.metrics), "gateway_route_conflicts 0\n") {
		t.Error("the metric counts what is gone")
	}
}

func TestLabelProblemsAreLoggedAndCountedOnce(t *testing.T) {
	p := newMemoryProvider()
	p.set("f", func(d *definition) { d.problems = []string{"label x is bad", "label y is bad"} })
	r, logged := newTestRegistry(p, accepts)
	for range 3 {
		mustLoad(t, r)
	}
	if got := logged.count("level=WARN", "service f: label"); got != 2 {
		t.Errorf("logged %d times, want each of 2 once", got)
	}
	text := exposed(r.metrics)
	if !strings.Contains(text, "gateway_label_errors_total 2\n") {
		t.Error("gateway_label_errors_total is not 2")
	}
	if !strings.Contains(text, "gateway_route_conflicts 0\n") {
		t.Error("a label that does not parse counts as a conflict")
	}
	p.set("f", func(d *definition) { d.problems = []string{"label z is bad"} })
	mustLoad(t, r)
	if text := exposed(r.metrics); !strings.Contains(text, "gateway_label_errors_total 3\n") {
		t.Error("a new problem is not counted")
	}
}

// What a label asks for in vain is a conflict only where another function has
// it. Patterns that no function could have used to be counted as conflicts.
func TestUnusableRoutesAndIntentsAreLabelErrors(t *testing.T) {
	old := time.Unix(1000, 0)
	many := make([]string, maxRoutes+1)
	for i := range many {
		many[i] = fmt.Sprintf("/many/%d", i)
	}
	tests := []struct {
		name      string
		labels    func(*definition)
		conflicts int
		errors    int
	}{
		{"held by an older function", func(d *definition) {
			d.claim(labelRoute, []string{"/orders"})
			d.claim(labelIntent, []string{"OrderIntent"})
		}, 2, 0},
		{"not valid", func(d *definition) {
			d.claim(labelRoute, []string{"orders", "/{id}/{id}"})
			d.claim(labelIntent, []string{"a\x00b"})
		}, 0, 3},
		{"reserved", func(d *definition) { d.claim(labelRoute, []string{"/metrics"}) }, 0, 1},
		{"too many", func(d *definition) { d.claim(labelRoute, many) }, 0, 1},
		{"too long", func(d *definition) { d.claim(labelRoute, []string{"/" + strings.Repeat("x", maxRouteLabel)}) }, 0, 1},
		{"asked for twice", func(d *definition) { d.claim(labelRoute, []string{"/new", "/new"}) }, 0, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newMemoryProvider()
			p.set("orders", func(d *definition) {
				d.created = old
				d.claim(labelRoute, []string{"/orders"})
				d.claim(labelIntent, []string{"OrderIntent"})
			})
			p.set("f", func(d *definition) { d.created = old.Add(time.Hour); tt.labels(d) })
			r, logged := newTestRegistry(p, accepts)
			for range 3 {
				mustLoad(t, r)
			}
			text := exposed(r.metrics)
			for _, want := range []string{
				fmt.Sprintf("gateway_route_conflicts %d\n", tt.conflicts),
				fmt.Sprintf("gateway_label_errors_total %d\n", tt.errors),
			} {
				if !strings.Contains(text, want) {
					t.Errorf("got no %q", want)
				}
			}
			if got, want := logged.count("level=WARN", "service f: "), tt.conflicts+tt.errors; got != want {
				t.Errorf("logged %d times, want each of %d once", got, want)
			}
		})
	}
}

func TestWithoutTheProviderTheLastSnapshotServesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &hookedProvider{memoryProvider: newMemoryProvider()}
		p.set("f", nil, "10.0.0.1:8080")
		up := make(chan struct{})
		close(up)
		var down atomic.Bool
		p.follow = func(ctx context.Context, changed func()) error {
			changed()
			for {
				if down.Load() {
					return errors.New("the API is gone")
				}
				if err := sleep(ctx, time.Second); err != nil {
					return err
				}
			}
		}
		r, logged := newTestRegistry(p, accepts)
		mustLoad(t, r)
		stop := runRegistry(t, r)
		defer stop()
		synctest.Wait()

		setDown := func(err error) {
			down.Store(err != nil)
			p.mu.Lock()
			p.listErr = err
			p.mu.Unlock()
		}
		setDown(errors.New("the API is gone"))
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if f := r.function("f"); f == nil || !slices.Equal(addrsOf(f), []string{"10.0.0.1:8080"}) {
			t.Fatal("the function is gone with the provider")
		}
		c, err := parseConfig(nil, func(string) string { return "" }, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		newGateway(&c, r, new(upstream), r.metrics, r.log).ServeHTTP(w, httptest.NewRequest("GET", "/healthz", nil))
		if w.Code != http.StatusOK {
			t.Errorf("/healthz: got %d, want 200", w.Code)
		}
		if !strings.Contains(exposed(r.metrics), "gateway_provider_up 0\n") {
			t.Error("gateway_provider_up is not 0")
		}
		if got := logged.count("level=WARN"); got != 1 {
			t.Errorf("the outage was logged %d times, want once", got)
		}

		p.set("g", nil, "10.0.0.2:8080")
		setDown(nil)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if r.function("g") == nil {
			t.Error("what is new 30 s after the outage is not known")
		}
		if got := logged.count("level=INFO", "answers again", "outage="); got != 1 {
			t.Errorf("the end of the outage was logged %d times, want once, with how long it was", got)
		}
		if !strings.Contains(exposed(r.metrics), "gateway_provider_up 1\n") {
			t.Error("gateway_provider_up is not 1")
		}
	})
}

func TestWatchReconnectsWithBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var began []time.Time
		p := &hookedProvider{memoryProvider: newMemoryProvider()}
		p.follow = func(context.Context, func()) error {
			began = append(began, time.Now())
			return errors.New("refused")
		}
		r, _ := newTestRegistry(p, accepts)
		stop := runRegistry(t, r)
		time.Sleep(time.Minute)
		stop()
		if len(began) < 7 || len(began) > 20 {
			t.Fatalf("got %d subscriptions in a minute, want about 12", len(began))
		}
		for i := 1; i < len(began); i++ {
			gap := began[i].Sub(began[i-1])
			if gap < 250*time.Millisecond || gap > 10*time.Second {
				t.Errorf("gap %d: got %v, want 250ms to 10s", i, gap)
			}
			if i > 1 && gap < began[i-1].Sub(began[i-2]) && gap < 10*time.Second {
				t.Errorf("gap %d: got %v, less than the one before", i, gap)
			}
		}
	})
}

func TestAnEventIsFollowedByAListAndEventsMayBeLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newMemoryProvider()
		r, _ := newTestRegistry(p, accepts)
		stop := runRegistry(t, r)
		defer stop()
		synctest.Wait()
		p.set("f", nil)
		synctest.Wait()
		if r.function("f") == nil {
			t.Error("the change is not known at once")
		}
		p.mu.Lock() // a change without an event
		p.defs = append(p.defs, definition{name: "silent", service: "silent"})
		p.mu.Unlock()
		time.Sleep(resyncInterval)
		synctest.Wait()
		if r.function("silent") == nil {
			t.Errorf("a change without an event is not known after %v", resyncInterval)
		}
	})
}

func TestBackoff(t *testing.T) {
	b := backoff{first: 100 * time.Millisecond, most: time.Second}
	last := time.Duration(0)
	for range 20 {
		d := b.next()
		if d < last && d != b.most || d < b.first || d > b.most || last > 0 && d > 2*last {
			t.Fatalf("got %v after %v, want 1.5 to 2 times as much, from %v to %v", d, last, b.first, b.most)
		}
		last = d
	}
	if last != b.most {
		t.Errorf("got %v in the end, want %v", last, b.most)
	}
	b.reset()
	if d := b.next(); d != b.first {
		t.Errorf("after reset: got %v, want %v", d, b.first)
	}
}
