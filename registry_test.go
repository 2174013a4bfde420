package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// A logBuffer holds what was logged.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// count returns how many lines have all of the parts.
func (l *logBuffer) count(parts ...string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for line := range strings.Lines(l.b.String()) {
		if !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(line, part) }) {
			n++
		}
	}
	return n
}

// A hookedProvider is a memoryProvider of which a test replaces a part.
type hookedProvider struct {
	*memoryProvider
	lookUp func(ctx context.Context, d definition) ([]string, error)
	follow func(ctx context.Context, changed func()) error
}

func (p *hookedProvider) addresses(ctx context.Context, d definition) ([]string, error) {
	if p.lookUp != nil {
		return p.lookUp(ctx, d)
	}
	return p.memoryProvider.addresses(ctx, d)
}

func (p *hookedProvider) watch(ctx context.Context, changed func()) error {
	if p.follow != nil {
		return p.follow(ctx, changed)
	}
	return p.memoryProvider.watch(ctx, changed)
}

// accepts is a dial that always works, at once.
func accepts(context.Context, string, string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	theirs.Close()
	return ours, nil
}

// newTestRegistry wires a registry as serve does.
func newTestRegistry(p provider, dial dialFunc) (*registry, *logBuffer) {
	logged := new(logBuffer)
	r := newRegistry(p, slog.New(slog.NewTextHandler(logged, &slog.HandlerOptions{Level: slog.LevelDebug})))
	r.metrics = newMetrics(r.functions)
	r.dial = dial
	r.closeIdle = func(string) {}
	return r, logged
}

// mustLoad lists once; the test fails if that does.
func mustLoad(t *testing.T, r *registry) {
	t.Helper()
	if err := r.load(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// runRegistry runs the registry until stop is called.
func runRegistry(t *testing.T, r *registry) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.run(ctx)
	}()
	return func() {
		cancel()
		<-ended
	}
}

func addrsOf(f *function) []string {
	var addrs []string
	for _, r := range f.balancer.replicas() {
		addrs = append(addrs, r.addr)
	}
	slices.Sort(addrs)
	return addrs
}

// exposed returns the text form of the metrics.
func exposed(m *metrics) string {
	w := httptest.NewRecorder()
	m.handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w.Body.String()
}

func TestASnapshotNeverChangesAndStateSurvivesIt(t *testing.T) {
	p := newMemoryProvider()
	p.set("a", nil, "10.0.0.1:8080", "10.0.0.2:8080")
	p.set("b", nil, "10.0.0.3:8080")
	r, _ := newTestRegistry(p, accepts)
	mustLoad(t, r)
	first := r.current.Load()
	a := r.function("a")
	r.lookUp(t.Context(), a)
	busy := a.balancer.pick(nil)
	a.balancer.failed(a.balancer.replicas()[0], time.Now())
	a.admission.enter(time.Now(), 0)

	p.set("a", func(d *definition) { d.timeout = time.Minute; d.routes = []string{"/a"} }, "10.0.0.2:8080", "10.0.0.1:8080", "10.0.0.4:8080")
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
		{"held by an older function", func(d *definition) { d.routes, d.intents = []string{"/orders"}, []string{"OrderIntent"} }, 2, 0},
		{"not valid", func(d *definition) { d.routes, d.intents = []string{"orders", "/{id}/{id}"}, []string{"a\x00b"} }, 0, 3},
		{"reserved", func(d *definition) { d.routes = []string{"/metrics"} }, 0, 1},
		{"too many", func(d *definition) { d.routes = many }, 0, 1},
		{"too long", func(d *definition) { d.routes = []string{"/" + strings.Repeat("x", maxRouteLabel)} }, 0, 1},
		{"asked for twice", func(d *definition) { d.routes = []string{"/new", "/new"} }, 0, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newMemoryProvider()
			p.set("orders", func(d *definition) {
				d.created, d.routes, d.intents = old, []string{"/orders"}, []string{"OrderIntent"}
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
			if f.ready() != 1 {
				t.Errorf("%s: got %d replicas, want 1", f.name, f.ready())
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
		if dials != 1 || f.ready() != 1 {
			t.Errorf("got %d dials and %d ready, want one dial that failed", dials, f.ready())
		}
		up.Store(true)
		time.Sleep(2 * ejectFirst)
		r.lookUp(t.Context(), f)
		if f.ready() != 2 {
			t.Errorf("got %d ready, want both", f.ready())
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
