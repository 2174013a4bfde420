package scale

// A provider in memory, and an autoscaler that runs on it.

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"
)

// scaleWorld is a provider in memory with the functions that it runs. Its
// registry is never behind.
type scaleWorld struct {
	start time.Time

	mu       sync.Mutex
	replicas map[string]int
	order    []*worldFunction
	calls    []worldCall
	running  int
	most     int // calls at once, ever

	// during runs inside of each call, without the lock, before replicas
	// are read; an error fails the call.
	during func(ctx context.Context, name string) error
}

type worldCall struct {
	name string
	at   time.Duration
}

type worldFunction struct {
	world *scaleWorld
	d     State
	load  Load // guarded by world.mu
}

func newScaleWorld() *scaleWorld {
	return &scaleWorld{start: time.Now(), replicas: make(map[string]int)}
}

func (w *scaleWorld) now() time.Duration { return time.Since(w.start) }

func (w *scaleWorld) add(name string, limits Limits, replicas int) *worldFunction {
	w.mu.Lock()
	defer w.mu.Unlock()
	f := &worldFunction{world: w, d: State{Name: name, Service: name, Created: time.Now(), Limits: limits}}
	w.order = append(w.order, f)
	w.replicas[name] = replicas
	return f
}

func (w *scaleWorld) remove(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.replicas, name)
	var rest []*worldFunction
	for _, f := range w.order {
		if f.d.Name != name {
			rest = append(rest, f)
		}
	}
	w.order = rest
}

func (w *scaleWorld) functions() []Function {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []Function
	for _, f := range w.order {
		all = append(all, f)
	}
	return all
}

func (w *scaleWorld) Scale(ctx context.Context, d State, decide func(current int) int) error {
	w.mu.Lock()
	w.calls = append(w.calls, worldCall{d.Name, w.now()})
	w.running++
	w.most = max(w.most, w.running)
	during := w.during
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		w.running--
		w.mu.Unlock()
	}()
	if during != nil {
		if err := during(ctx, d.Name); err != nil {
			return fmt.Errorf("scale %s: %w", d.Name, err)
		}
	}
	current, ok := w.get(d.Name)
	if !ok {
		return fmt.Errorf("scale %s: %w", d.Name, ErrNotFound)
	}
	w.set(d.Name, decide(current))
	return nil
}

func (w *scaleWorld) get(name string) (int, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, ok := w.replicas[name]
	return n, ok
}

func (w *scaleWorld) set(name string, replicas int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.replicas[name] = replicas
}

// rollOut has the list show a rollout, or no longer.
func (w *scaleWorld) rollOut(name string, under bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.order {
		if f.d.Name == name {
			f.d.Rollout = under
		}
	}
}

func (w *scaleWorld) fail(during func(ctx context.Context, name string) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.during = during
}

func (w *scaleWorld) callsOf(name string) []time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	var at []time.Duration
	for _, c := range w.calls {
		if c.name == name {
			at = append(at, c.at)
		}
	}
	return at
}

func (f *worldFunction) State() State {
	f.world.mu.Lock()
	defer f.world.mu.Unlock()
	d := f.d
	d.Replicas = f.world.replicas[d.Name]
	return d
}

func (f *worldFunction) Ready() int {
	n, _ := f.world.get(f.d.Name)
	return n
}

func (f *worldFunction) Totals(now time.Duration) Totals {
	f.world.mu.Lock()
	defer f.world.mu.Unlock()
	return f.load.Totals(now)
}

// call has so many more requests in flight.
func (f *worldFunction) call(delta int) {
	f.world.mu.Lock()
	defer f.world.mu.Unlock()
	f.load.Add(f.world.now(), delta, max(delta, 0))
}

// scaling is an autoscaler that runs on a world.
type scaling struct {
	*Autoscaler
	stop    func() // ends it and waits
	mu      sync.Mutex
	changes []string
	log     bytes.Buffer
}

func startScaling(t *testing.T, w *scaleWorld) *scaling {
	t.Helper()
	s := &scaling{}
	logger := slog.New(slog.NewTextHandler(&lockedWriter{mu: &s.mu, b: &s.log}, nil))
	changed := func(name string, from, to int, reason string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.changes = append(s.changes, fmt.Sprintf("%s %d->%d %s", name, from, to, reason))
	}
	s.Autoscaler = New(w.functions, w, Options{Now: w.now, Random: func() float64 { return 0.5 }, Changed: changed, Log: logger})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: got %v, want nil", err)
		}
	})
	t.Cleanup(s.stop)
	return s
}

type lockedWriter struct {
	mu *sync.Mutex
	b  *bytes.Buffer
}

func (w *lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (s *scaling) seen() (changes []string, log string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append(changes, s.changes...), s.log.String()
}

func (w *scaleWorld) expect(t *testing.T, name string, want int) {
	t.Helper()
	if got, _ := w.get(name); got != want {
		t.Errorf("%v: %s has %d replicas, want %d", w.now(), name, got, want)
	}
}
