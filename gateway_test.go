package main

import (
	"bytes"
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
	"testing"
	"time"
)

// A memoryProvider is a provider whose functions a test sets.
type memoryProvider struct {
	mu      sync.Mutex
	defs    []definition
	addrs   map[string][]string
	listErr error
	addrErr error
	scaled  func(d definition, wanted int) // called without the lock
	changes chan struct{}
}

func newMemoryProvider() *memoryProvider {
	return &memoryProvider{addrs: map[string][]string{}, changes: make(chan struct{}, 1)}
}

// set adds or replaces a function, with the defaults of a function in tests.
func (p *memoryProvider) set(name string, change func(*definition), addrs ...string) {
	d := definition{
		name: name, service: name, port: 8080, timeout: 10 * time.Second, replicas: len(addrs),
		scale: scaleLimits{kind: scaleCapacity, target: 10, min: 1, max: 1, factor: defaultScaleFactor},
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
	select {
	case p.changes <- struct{}{}:
	default:
	}
}

func (p *memoryProvider) list(context.Context) ([]definition, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.defs), p.listErr
}

func (p *memoryProvider) watch(ctx context.Context, changed func()) error {
	changed()
	for {
		select {
		case <-p.changes:
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
func startGatewayVerifying(t *testing.T, p provider, v *alexaVerifier, signals chan os.Signal, args ...string) (addr string) {
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

func TestInvocationRoutes(t *testing.T) {
	p := newMemoryProvider()
	addr := startReplica(t, echoReplica)
	p.set("echo", nil, addr)
	p.set("HostnameIntent", func(d *definition) { d.applications = []string{"skill-1"} }, addr)
	p.set("orders", func(d *definition) { d.routes = []string{"POST /orders/{id}"} }, addr)
	base := startGateway(t, p)

	for _, c := range []struct {
		name, method, path, body string
		header                   []string
		status                   int
		seen, answer             string // a part of the answer
	}{
		{"by name", "POST", "/function/echo", "hello", nil, 200, "POST / ", "hello"},
		{"with a slash", "POST", "/function/echo/", "hello", nil, 200, "POST / ", "hello"},
		{"with a path and a query", "PUT", "/function/echo/a/b?x=1&y=%zz;", "", nil, 200, "PUT /a/b?x=1&y=%zz; ", ""},
		{"escapes are kept", "GET", "/function/echo/a%2Fb/%e2%82%ac//c/../d?", "", nil, 200, "GET /a%2Fb/%e2%82%ac//c/../d? ", ""},
		{"by header", "POST", "/", "hello", []string{"X-Function", "echo"}, 200, "POST / ", "hello"},
		{"by header, GET with a query", "GET", "/?q=1", "", []string{"X-Function", "echo"}, 200, "GET /?q=1 ", ""},
		{"by intent", "POST", "/", skillRequest("IntentRequest", "HostnameIntent", "skill-1"), nil, 200, "POST / ", skillRequest("IntentRequest", "HostnameIntent", "skill-1")},
		{"launch, by skill", "POST", "/", skillRequest("LaunchRequest", "", "skill-1"), nil, 200, "POST / ", "LaunchRequest"},
		{"launch of another skill", "POST", "/", skillRequest("LaunchRequest", "", "skill-2"), nil, 404, "", "no function for this skill"},
		{"intent without a function", "POST", "/", skillRequest("IntentRequest", "NopeIntent", "skill-1"), nil, 404, "", "no function for this intent"},
		{"intent that is no name", "POST", "/", skillRequest("IntentRequest", "../x", "skill-1"), nil, 404, "", "no function for this intent"},
		{"only looks like Alexa", "POST", "/", `{"request":{"type":"IntentRequest"}}`, nil, 400, "", "X-Function"},
		{"a route of its own", "POST", "/orders/7?x=1", "body", nil, 200, "POST /orders/7?x=1 ", "body"},
		{"another method on that route", "GET", "/orders/7", "", nil, 405, "", ""},
		{"OPTIONS", "OPTIONS", "/function/echo", "", nil, 200, "OPTIONS / ", ""},
		{"neither", "GET", "/", "", nil, 400, "", "X-Function"},
		{"no such function", "GET", "/function/nope", "", nil, 404, "", `function "nope" not found`},
		{"no such function, by header", "GET", "/", "", []string{"X-Function", "nope"}, 404, "", `function "nope" not found`},
		{"no such path", "GET", "/nope", "", nil, 404, "", ""},
		{"reserved", "GET", "/system/functions", "", nil, 404, "", ""},
		{"name with dots", "GET", "/function/..", "", nil, 404, "", ""},
		{"name with a slash", "GET", "/function/a%2fb", "", nil, 404, "", ""},
		{"name with a NUL", "GET", "/function/a%00", "", nil, 404, "", ""},
		{"long name", "GET", "/function/" + strings.Repeat("a", 300), "", nil, 404, "", ""},
		{"name by header with dots", "GET", "/", "", []string{"X-Function", "../echo"}, 404, "", ""},
		{"no name", "GET", "/function/", "", nil, 404, "", ""},
		{"long URL", "GET", "/function/echo?" + strings.Repeat("a", maxURLLen), "", nil, 414, "", ""},
		{"large head", "GET", "/function/echo", "", []string{"A", strings.Repeat("a", 2*maxHeaderLen)}, 431, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			resp, body := call(t, c.method, base+c.path, c.body, c.header...)
			if resp.StatusCode != c.status {
				t.Fatalf("got status %d, body %q, want %d", resp.StatusCode, body, c.status)
			}
			if got := resp.Header.Get("Seen-Request"); !strings.HasPrefix(got, c.seen) {
				t.Errorf("the function saw %q, want %q", got, c.seen)
			}
			if !strings.Contains(body, c.answer) {
				t.Errorf("got body %q, want %q in it", body, c.answer)
			}
		})
	}
}

func TestInvocationHeaders(t *testing.T) {
	p := newMemoryProvider()
	p.set("echo", func(d *definition) { d.timeout = 7 * time.Second; d.routes = []string{"/by/{id}"} }, startReplica(t, echoReplica))
	base := startGateway(t, p)

	resp, _ := call(t, "GET", base+"/function/echo", "", "X-Call-Id", "mine-1", "X-Forwarded-For", "6.6.6.6", "X-Timeout", "1h",
		"X-Route-Id", "forged", "X-Start-Time", "1", "Te", "trailers", "Connection", "X-Timeout")
	for header, want := range map[string]string{
		"X-Call-Id": "mine-1", "Seen-X-Call-Id": "mine-1",
		"Seen-X-Forwarded-For": "127.0.0.1", "Seen-X-Forwarded-Proto": "http", "Seen-X-Forwarded-Host": strings.TrimPrefix(base, "http://"),
		"Seen-X-Route-Id": "",
	} {
		if got := resp.Header.Values(header); strings.Join(got, ",") != want {
			t.Errorf("%s: got %q, want %q", header, got, want)
		}
	}
	left, err := time.ParseDuration(resp.Header.Get("Seen-X-Timeout"))
	if err != nil || left <= 5*time.Second || left > 7*time.Second {
		t.Errorf("X-Timeout: got %q, want just under 7s", resp.Header.Get("Seen-X-Timeout"))
	}
	if a, b := resp.Header.Get("X-Start-Time"), resp.Header.Get("Seen-X-Start-Time"); a == "1" || a != b || len(a) != 19 {
		t.Errorf("X-Start-Time: got %q, and the function %q, want the same Unix nanoseconds", a, b)
	}
	if resp.Header.Get("X-Duration-Seconds") == "" {
		t.Error("no X-Duration-Seconds")
	}
	resp, _ = call(t, "GET", base+"/by/42", "", "X_route_id", "forged")
	if got := resp.Header.Values("Seen-X-Route-Id"); len(got) != 1 || got[0] != "42" {
		t.Errorf("X-Route-Id: got %q, want 42 alone", got)
	}
	for _, bad := range []string{"", "with space", strings.Repeat("x", 129), "ü"} {
		resp, _ = call(t, "GET", base+"/function/echo", "", "X-Call-Id", bad)
		if got := resp.Header.Get("X-Call-Id"); len(got) != 36 || strings.Count(got, "-") != 4 {
			t.Errorf("X-Call-Id for %q: got %q, want a UUID", bad, got)
		}
	}
}

func TestInvocationOutcomes(t *testing.T) {
	release := make(chan struct{})
	p := newMemoryProvider()
	p.set("slow", func(d *definition) { d.timeout = 100 * time.Millisecond }, startReplica(t, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(func() { close(release) }) // before the replica waits for its handler
	p.set("none", func(d *definition) { d.scale.fixed = true })
	p.set("teapot", nil, startReplica(t, func(w http.ResponseWriter, r *http.Request) { http.Error(w, "short and stout", http.StatusTeapot) }))
	p.set("refused", nil, closedAddr(t))
	base := startGateway(t, p, "-queue-timeout", "100ms")
	awaitMetric(t, base, `gateway_service_count{function_name="refused"} 1`)
	for _, c := range []struct {
		function string
		status   int
		answer   string
		retry    bool
	}{
		{"slow", 504, `function "slow" did not answer within 100ms`, false},
		{"none", 503, `function "none": no replica became ready in time`, true},
		{"teapot", 418, "short and stout", false},
		{"refused", 502, `function "refused": no replica accepts connections`, false},
	} {
		t.Run(c.function, func(t *testing.T) {
			t.Parallel()
			resp, body := call(t, "POST", base+"/function/"+c.function, "x")
			if resp.StatusCode != c.status || strings.TrimSpace(body) != c.answer {
				t.Errorf("got %d %q, want %d %q", resp.StatusCode, body, c.status, c.answer)
			}
			if got := resp.Header.Get("Retry-After") != ""; got != c.retry {
				t.Errorf("Retry-After is there: %v, want %v", got, c.retry)
			}
			if strings.Contains(body, "127.0.0.1") {
				t.Errorf("the answer shows an address: %q", body)
			}
			if resp.Header.Get("X-Call-Id") == "" {
				t.Error("no X-Call-Id")
			}
		})
	}
}

// awaitMetric waits until the gateway shows a line among its metrics.
func awaitMetric(t *testing.T, base, line string) {
	t.Helper()
	for {
		if _, text := call(t, "GET", base+"/metrics", ""); strings.Contains(text, line+"\n") {
			return
		}
		if sleep(t.Context(), 10*time.Millisecond) != nil {
			t.Fatalf("metrics never had %s", line)
		}
	}
}

// closedAddr returns an address at which nothing listens.
func closedAddr(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func TestAnswerThatBreaksOffIsNoShortSuccess(t *testing.T) {
	p := newMemoryProvider()
	p.set("broken", nil, startReplica(t, func(w http.ResponseWriter, r *http.Request) {
		w.Write(bytes.Repeat([]byte("x"), 100<<10))
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}))
	base := startGateway(t, p)
	resp, err := http.Get(base + "/function/broken")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if n, err := io.Copy(io.Discard, resp.Body); err == nil {
		t.Errorf("got a whole answer of %d bytes, want an error", n)
	}
	_, text := call(t, "GET", base+"/metrics", "")
	if want := `gateway_function_invocation_total{code="502",function_name="broken"} 1`; !strings.Contains(text, want) {
		t.Errorf("metrics lack %s", want)
	}
}
