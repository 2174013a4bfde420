package main

// A gateway in this process, before functions that a test makes up.

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"faas/internal/alexa"
	"faas/internal/scale"
	"faas/internal/tcptest"
)

// A memoryProvider is a provider whose functions a test sets.
type memoryProvider struct {
	mu      sync.Mutex
	defs    []definition
	addrs   map[string][]string
	listErr error
	addrErr error
	scaled  func(d definition, wanted int) // called without the lock
	changes map[chan struct{}]bool         // one for each watcher
}

func newMemoryProvider() *memoryProvider {
	return &memoryProvider{addrs: map[string][]string{}, changes: map[chan struct{}]bool{}}
}

// set adds or replaces a function, with the defaults of a function in tests.
func (p *memoryProvider) set(name string, change func(*definition), addrs ...string) {
	d := definition{
		name: name, service: name, port: 8080, timeout: 10 * time.Second, replicas: len(addrs),
		scale: scale.Limits{Kind: scale.Capacity, Target: 10, Min: 1, Max: 1, Factor: defaultScaleFactor},
	}
	if change != nil {
		change(&d)
	}
	p.mu.Lock()
	p.defs = slices.DeleteFunc(p.defs, func(d definition) bool { return d.name == name })
	p.defs = append(p.defs, d)
	p.addrs[name] = addrs
	p.mu.Unlock()
	p.change()
}

func (p *memoryProvider) setAddrs(name string, addrs ...string) {
	p.mu.Lock()
	p.addrs[name] = addrs
	p.mu.Unlock()
}

func (p *memoryProvider) remove(name string) {
	p.mu.Lock()
	p.defs = slices.DeleteFunc(p.defs, func(d definition) bool { return d.name == name })
	p.mu.Unlock()
	p.change()
}

func (p *memoryProvider) change() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.changes {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

func (p *memoryProvider) list(context.Context) ([]definition, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.defs), p.listErr
}

func (p *memoryProvider) watch(ctx context.Context, changed func()) error {
	changes := make(chan struct{}, 1)
	p.mu.Lock()
	p.changes[changes] = true
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.changes, changes)
		p.mu.Unlock()
	}()
	changed()
	for {
		select {
		case <-changes:
			changed()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (p *memoryProvider) addresses(_ context.Context, d definition) ([]string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.addrs[d.name]), p.addrErr
}

func (p *memoryProvider) scale(_ context.Context, d definition, decide func(int) int) error {
	p.mu.Lock()
	i := slices.IndexFunc(p.defs, func(e definition) bool { return e.name == d.name })
	if i < 0 {
		p.mu.Unlock()
		return errNotFound
	}
	wanted := decide(p.defs[i].replicas)
	changed := wanted != p.defs[i].replicas
	p.defs[i].replicas = wanted
	scaled := p.scaled
	p.mu.Unlock()
	if changed && scaled != nil {
		scaled(d, wanted)
	}
	p.change()
	return nil
}

// startGateway serves p's functions until the test ends, and returns the URL.
func startGateway(t *testing.T, p provider, args ...string) string {
	t.Helper()
	return "http://" + startGatewaySignals(t, p, nil, args...)
}

func startGatewaySignals(t *testing.T, p provider, signals chan os.Signal, args ...string) (addr string) {
	t.Helper()
	return startGatewayVerifying(t, p, nil, signals, args...)
}

// startGatewayVerifying starts one that checks Alexa requests with v.
func startGatewayVerifying(t *testing.T, p provider, v *alexa.Verifier, signals chan os.Signal, args ...string) (addr string) {
	t.Helper()
	args = append([]string{"-listen", "127.0.0.1:0", "-drain", "0", "-shutdown-timeout", "5s"}, args...)
	c, err := parseConfig(args, func(string) string { return "" }, io.Discard)
	if err != nil {
		t.Fatalf("settings: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	listening := make(chan net.Addr, 1)
	ended := make(chan error, 1)
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	go func() {
		ended <- serve(ctx, &c, p, v, log, signals, func(a net.Addr) { listening <- a })
	}()
	select {
	case a := <-listening:
		t.Cleanup(func() {
			cancel()
			<-ended
		})
		return a.String()
	case err := <-ended:
		cancel()
		t.Fatalf("gateway did not start: %v", err)
	}
	return ""
}

// startReplica serves h on loopback until the test ends, and returns host:port.
func startReplica(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// echoReplica answers with what the function saw.
func echoReplica(w http.ResponseWriter, r *http.Request) {
	http.NewResponseController(w).EnableFullDuplex()
	w.Header().Set("Seen-Request", r.Method+" "+r.RequestURI+" "+r.Host)
	for k, v := range r.Header {
		for _, v := range v {
			w.Header().Add("Seen-"+k, v)
		}
	}
	io.Copy(w, r.Body)
}

// call makes a request and returns the answer, its body read.
func call(t *testing.T, method, url string, body string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: body: %v", method, url, err)
	}
	return resp, string(b)
}

func skillRequest(kind, intent, application string) string {
	return fmt.Sprintf(`{"version":"1.0","session":{"sessionId":"s-1","application":{"applicationId":%q}},`+
		`"request":{"type":%q,"requestId":"r-1","timestamp":"2026-01-02T03:04:05Z","intent":{"name":%q}}}`, application, kind, intent)
}

// awaitMetric waits until the gateway shows a line among its metrics, for a minute.
func awaitMetric(t *testing.T, base, line string) {
	t.Helper()
	metricWithin(t, time.Minute, base, line)
}

// awaitReady waits until the gateway at base has found the one replica of each function.
func awaitReady(t *testing.T, base string, functions ...string) {
	t.Helper()
	for _, f := range functions {
		awaitMetric(t, base, `gateway_service_count{function_name="`+f+`"} 1`)
	}
}

func metricWithin(t *testing.T, limit time.Duration, base, line string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for {
		if _, text := call(t, "GET", base+"/metrics", ""); strings.Contains(text, line+"\n") {
			return
		}
		if sleep(ctx, 10*time.Millisecond) != nil {
			t.Fatalf("metrics never had %s", line)
		}
	}
}

// closedAddr returns an address at which nothing listens, nor will until the
// test ends: a socket has it that does not listen.
func closedAddr(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	syscall.CloseOnExec(fd)
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	at, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint("127.0.0.1:", at.(*syscall.SockaddrInet4).Port)
}

// freeAddr returns an address at which nothing listens so far.
func freeAddr(t *testing.T) string { return tcptest.Free(t) }
