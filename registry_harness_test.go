package main

// A registry of a provider that a test makes up, and what it logs and counts.

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"faas/internal/transport"
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
func newTestRegistry(p provider, dial transport.DialFunc) (*registry, *logBuffer) {
	logged := new(logBuffer)
	r := newRegistry(new(config), p, slog.New(slog.NewTextHandler(logged, &slog.HandlerOptions{Level: slog.LevelDebug})))
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
