package main

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestInvocationRoutes(t *testing.T) {
	p := newMemoryProvider()
	addr := startReplica(t, echoReplica)
	p.set("echo", nil, addr)
	p.set("HostnameIntent", func(d *definition) { d.claim(labelApplication, []string{"skill-1"}) }, addr)
	p.set("orders", func(d *definition) { d.claim(labelRoute, []string{"POST /orders/{id}"}) }, addr)
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
		{"reserved", "GET", "/ui/functions", "", nil, 404, "", ""},
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
	p.set("echo", func(d *definition) { d.timeout = 7 * time.Second; d.claim(labelRoute, []string{"/by/{id}"}) }, startReplica(t, echoReplica))
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
	p.set("none", func(d *definition) { d.scale.Fixed = true })
	p.set("teapot", nil, startReplica(t, func(w http.ResponseWriter, r *http.Request) { http.Error(w, "short and stout", http.StatusTeapot) }))
	p.set("refused", nil, closedAddr(t))
	base := startGateway(t, p, "-queue-timeout", "100ms")
	awaitReady(t, base, "slow", "teapot", "refused")
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
