package main

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A call reaches the gateway as it came: method, path byte for byte, query,
// host, headers and body, with its call ID.
func TestCallArrivesAsItCame(t *testing.T) {
	g, got := newStandIn(t), &keep{}
	g.function("fn", nil, got.ServeHTTP)
	s := startBoth(t, g)
	body := "\x00\xff\r\n\r\nHTTP/1.1 200 OK\r\n\r\n" + strings.Repeat("x", 100_000)
	for _, tt := range []struct {
		name, method, path, uri string
	}{
		{"bare", "POST", "fn", "/function/fn/"},
		{"namespace", "POST", "fn.openfaas-fn", "/function/fn.openfaas-fn/"},
		{"path and query", "PUT", "fn/a/b?x=1&y=%20", "/function/fn/a/b?x=1&y=%20"},
		{"escapes", "PATCH", "fn//a%2Fb/../%c3%bc;p?", "/function/fn//a%2Fb/../%c3%bc;p?"},
		{"query alone", "POST", "fn?q", "/function/fn/?q"},
		{"any method", "PURGE", "fn/", "/function/fn/"},
		{"a get of a function", "GET", "fn", "/function/fn/"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := len(got.all())
			r := rawRequest(t, s.address.String(), tt.method+" /async-function/"+tt.path+" HTTP/1.1\r\nHost: orders.example\r\n"+
				"X-Call-Id: id "+"\r\nX-Two: 1\r\nX-Two: 2\r\nX-Latin: caf\xe9\r\nContent-Type: a/b\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n"+
				"X-Timeout: 5s\r\nUser-Agent: mine\r\nIdempotency-Key: "+tt.name+"\r\nContent-Length: "+fmt.Sprint(len(body))+"\r\n\r\n"+body)
			if r.StatusCode != http.StatusAccepted {
				t.Fatalf("got %d, want 202", r.StatusCode)
			}
			within(t, soon, "run", func() bool { return len(got.all()) > before })
			call := got.all()[before]
			if call.method != tt.method || call.uri != tt.uri || call.host != "orders.example" || call.body != body {
				t.Errorf("got %s %s of %s with %d bytes, want %s %s of orders.example with %d", call.method, call.uri, call.host, len(call.body), tt.method, tt.uri, len(body))
			}
			want := http.Header{
				"X-Call-Id": {"id"}, "X-Two": {"1", "2"}, "X-Latin": {"caf\xe9"}, "Content-Type": {"a/b"},
				"User-Agent": {"mine"}, "Idempotency-Key": {tt.name}, "Content-Length": {fmt.Sprint(len(body))},
			}
			if !maps.EqualFunc(call.header, want, slices.Equal) {
				t.Errorf("got headers %q, want %q", call.header, want)
			}
			s.awaitStatus(t, "id", stateDone)
		})
	}
}

// rawRequest sends bytes and reads the answer.
func rawRequest(t *testing.T, address, request string) *http.Response {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufioReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func TestAcceptRefuses(t *testing.T) {
	g := newStandIn(t)
	g.function("fn", nil, func(http.ResponseWriter, *http.Request) {})
	s := startBoth(t, g, "-max-body", "1KiB")
	for _, tt := range []struct {
		name, method, path string
		body               io.Reader
		header             []string
		code               int
		text               string
	}{
		{"no such function", "POST", "nope", nil, nil, 404, `function "nope" not found`},
		{"no name", "POST", "", nil, nil, 404, "no function can have this name"},
		{"a name that cannot be", "POST", "a%2Fb", nil, nil, 404, "no function can have this name"},
		{"no such call", "GET", "nope", nil, nil, 404, `call "nope" not found`},
		{"no such call to cancel", "DELETE", "nope", nil, nil, 404, `call "nope" not found`},
		{"body too large", "POST", "fn", bytes.NewReader(make([]byte, 1025)), nil, 413, "larger than 1024 bytes"},
		{"body too large, length unknown", "POST", "fn", io.MultiReader(bytes.NewReader(make([]byte, 1025))), nil, 413, "larger than 1024 bytes"},
		{"callback without a host", "POST", "fn", nil, []string{"X-Callback-Url", "http:///x"}, 400, "X-Callback-Url is not a URL"},
		{"callback of another scheme", "POST", "fn", nil, []string{"X-Callback-Url", "file:///etc/passwd"}, 400, "X-Callback-Url is not a URL"},
		{"callback with a login", "POST", "fn", nil, []string{"X-Callback-Url", "http://a:b@c/"}, 400, "X-Callback-Url is not a URL"},
		{"two callbacks", "POST", "fn", nil, []string{"X-Callback-Url", "http://a/", "X-Callback-Url", "http://b/"}, 400, "once"},
		{"idempotency key too long", "POST", "fn", nil, []string{"Idempotency-Key", strings.Repeat("k", 257)}, 400, "1 to 256 bytes"},
		{"URL too long", "POST", "fn?" + strings.Repeat("q", 17<<10), nil, nil, 414, "longer than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req, err := http.NewRequest(tt.method, s.url+"/async-function/"+tt.path, tt.body)
			if err != nil {
				t.Fatal(err)
			}
			for i := 0; i < len(tt.header); i += 2 {
				req.Header.Add(tt.header[i], tt.header[i+1])
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			text, _ := io.ReadAll(resp.Body)
			if resp.StatusCode != tt.code || !strings.Contains(string(text), tt.text) {
				t.Errorf("got %d %s, want %d %s", resp.StatusCode, text, tt.code, tt.text)
			}
		})
	}
	// The largest body that is allowed.
	s.awaitStatus(t, s.call(t, "fn", strings.Repeat("x", 1024)), stateDone)
}

// A function that is deployed now can be called now, although the list is
// older.
func TestCallOfNewFunction(t *testing.T) {
	g, got := newStandIn(t), &keep{}
	s := startBoth(t, g, "-poll", "1h")
	if r := ask(t, "POST", s.url+"/async-function/new", ""); r.code != 404 {
		t.Fatalf("got %d, want 404", r.code)
	}
	g.function("new", nil, got.ServeHTTP)
	within(t, soon, "accepted", func() bool { return ask(t, "POST", s.url+"/async-function/new", "").code == 202 })
	within(t, soon, "run", func() bool { return len(got.all()) == 1 })
}

// A gateway without the list leaves every function with the defaults, and that
// is logged once.
func TestGatewayWithoutList(t *testing.T) {
	g, got := newStandIn(t), &keep{}
	g.silent = true
	g.function("fn", nil, got.ServeHTTP)
	s := startBoth(t, g, "-poll", "10ms")
	s.awaitStatus(t, s.call(t, "fn", "x"), stateDone)
	within(t, soon, "polled", func() bool { g.mu.Lock(); defer g.mu.Unlock(); return len(g.logins) > 5 })
	if n := strings.Count(s.log.String(), "does not list its functions"); n != 1 {
		t.Errorf("got %d lines, want 1", n)
	}
	if f := s.functions.find("fn"); f.rules.attempts != 10 {
		t.Errorf("got %d attempts, want 10", f.rules.attempts)
	}
}

// The same Idempotency-Key is the same 202 and one run, also from many callers
// at once and after a restart.
func TestIdempotencyKey(t *testing.T) {
	g, got := newStandIn(t), &keep{}
	g.function("fn", nil, got.ServeHTTP)
	g.function("other", nil, got.ServeHTTP)
	c := testConfig(t, g.URL)
	s := startService(t, c)
	first := ask(t, "POST", s.url+"/async-function/fn", "first", "Idempotency-Key", "k")
	same := func(t *testing.T, r reply) {
		t.Helper()
		if r.code != 202 || r.header.Get("X-Call-Id") != first.header.Get("X-Call-Id") || r.header.Get("X-Start-Time") != first.header.Get("X-Start-Time") {
			t.Errorf("got %d %v, want 202 %v", r.code, r.header, first.header)
		}
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			same(t, ask(t, "POST", s.url+"/async-function/fn", "again", "Idempotency-Key", "k", "X-Call-Id", "mine"))
		})
	}
	wg.Wait()
	s.awaitStatus(t, first.header.Get("X-Call-Id"), stateDone)
	same(t, ask(t, "POST", s.url+"/async-function/fn", "later", "Idempotency-Key", "k"))
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	s = startService(t, c)
	same(t, ask(t, "POST", s.url+"/async-function/fn", "after a restart", "Idempotency-Key", "k"))
	// Another key, another function and no key are calls of their own.
	for _, id := range []string{
		s.call(t, "fn", "2", "Idempotency-Key", "k2"), s.call(t, "other", "3", "Idempotency-Key", "k"), s.call(t, "fn", "4"),
	} {
		s.awaitStatus(t, id, stateDone)
	}
	var bodies []string
	for _, c := range got.all() {
		bodies = append(bodies, c.body)
	}
	slices.Sort(bodies)
	if want := []string{"2", "3", "4", "first"}; !slices.Equal(bodies, want) {
		t.Errorf("got runs %q, want %q", bodies, want)
	}
}

// A key that was noted, and whose call was not stored since the process ended
// in between, makes the call with the IDs that were noted, and once.
func TestIdempotencyKeyHalfWay(t *testing.T) {
	g, got := newStandIn(t), &keep{}
	g.function("fn", nil, got.ServeHTTP)
	s := startBoth(t, g)
	lost := &call{id: "lost", uid: "u1", function: "fn", name: "fn", method: "POST", target: "/", header: http.Header{}, accepted: time.Unix(1, 2)}
	// Under another name, so that enqueue is never reached.
	broken := &acceptor{store: s.store, log: s.acceptor.log}
	broken.calls = &queue{name: "call", stream: streamCalls, store: s.store, seen: map[string]time.Time{}, pulling: t.Context()}
	for i := range maxLanes {
		broken.calls.seen[fmt.Sprint(i)] = time.Now()
	}
	if err := broken.once(t.Context(), lost, "k"); err == nil {
		t.Fatal("got no error, want one from a full queue")
	}
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			r := ask(t, "POST", s.url+"/async-function/fn", "x", "Idempotency-Key", "k")
			if r.code != 202 || r.header.Get("X-Call-Id") != "lost" || r.header.Get("X-Start-Time") != "1000000002" {
				t.Errorf("got %d %v, want the call that was noted", r.code, r.header)
			}
		})
	}
	wg.Wait()
	s.awaitStatus(t, "lost", stateDone)
	if n := len(got.all()); n != 1 {
		t.Errorf("got %d runs, want 1", n)
	}
}

// JetStream out of reach is a 503 with Retry-After, and nothing of it runs
// later.
func TestUnreachableJetStream(t *testing.T) {
	g, got := newStandIn(t), &keep{}
	g.function("fn", nil, got.ServeHTTP)
	s := startBoth(t, g)
	s.awaitStatus(t, s.call(t, "fn", "before"), stateDone)
	s.whileStopped(func() {
		r := ask(t, "POST", s.url+"/async-function/fn", "lost")
		if r.code != 503 || r.header.Get("Retry-After") == "" {
			t.Errorf("got %d %v, want 503 with Retry-After", r.code, r.header)
		}
		if r := ask(t, "GET", s.url+"/healthz", ""); r.code != 503 {
			t.Errorf("healthz: got %d, want 503", r.code)
		}
	})
	within(t, soon, "healthy", func() bool { return ask(t, "GET", s.url+"/healthz", "").code == 200 })
	s.awaitStatus(t, s.call(t, "fn", "after"), stateDone)
	for _, c := range got.all() {
		if c.body == "lost" {
			t.Error("a call that got a 503 ran")
		}
	}
}

// A full queue is a 503, and takes calls again when there is room.
func TestFullQueue(t *testing.T) {
	g := newStandIn(t)
	release := make(chan struct{})
	g.function("fn", nil, func(http.ResponseWriter, *http.Request) { <-release })
	s := startBoth(t, g, "-queue-bytes", "64KiB", "-max-body", "16KiB")
	body, ids := strings.Repeat("x", 15<<10), []string{}
	var r reply
	for len(ids) < 10 {
		if r = ask(t, "POST", s.url+"/async-function/fn", body); r.code != 202 {
			break
		}
		ids = append(ids, r.header.Get("X-Call-Id"))
	}
	if r.code != 503 || r.header.Get("Retry-After") == "" || len(ids) < 2 || strings.Contains(r.body, "bytes") {
		t.Errorf("got %d %v %s after %d calls, want 503", r.code, r.header, r.body, len(ids))
	}
	close(release)
	for _, id := range ids {
		s.awaitStatus(t, id, stateDone)
	}
	s.awaitStatus(t, s.call(t, "fn", body), stateDone)
}

// A body that does not come ends, and holds nothing meanwhile.
func TestSlowBody(t *testing.T) {
	a := &acceptor{metrics: newMetrics(), memory: newMemory(), small: newMemory(), maxBody: 1 << 20, bodyDeadline: 50 * time.Millisecond}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { a.readBody(w, r, &call{}) }))
	defer server.Close()
	r := rawRequest(t, server.Listener.Addr().String(), "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
	if r.StatusCode != http.StatusRequestTimeout {
		t.Errorf("got %d, want 408", r.StatusCode)
	}
	if !a.memory.TryAcquire(acceptMemory) || !a.small.TryAcquire(acceptMemory) {
		t.Error("memory is still held")
	}
}
