package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"faas/internal/field"
)

// A roundTripper answers in the place of every replica, or of Amazon.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// newHandler makes a gateway of r's functions whose replicas are answered by
// transport.
func newHandler(t testing.TB, r *registry, transport roundTripper) *gateway {
	t.Helper()
	c, err := parseConfig(nil, env(), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	up := &upstream{transport: transport, refresh: func(*function) {}, wake: func(string) {}, log: r.log, queue: c.queue, queueTimeout: c.queueTimeout}
	g := newGateway(&c, r, up, r.metrics, r.log)
	g.api = http.NotFoundHandler()
	return g
}

func emptyAnswer(r *http.Request) *http.Response {
	return &http.Response{StatusCode: 200, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Body: http.NoBody, Request: r}
}

// seenPath is what a function is to see of what follows its name in a path:
// every byte, except that those which no path may have are escaped.
func seenPath(rest string) string {
	if rest == "" {
		return "/"
	}
	legal := regexp.MustCompile(`[A-Za-z0-9._~!$&'()*+,;=:@/\[\]%-]`)
	var b strings.Builder
	for i := range len(rest) {
		if legal.MatchString(rest[i : i+1]) {
			b.WriteByte(rest[i])
		} else {
			fmt.Fprintf(&b, "%%%02X", rest[i])
		}
	}
	return b.String()
}

// Whatever the path: the function that is named sees the rest of it byte for
// byte, or nobody does.
func FuzzPath(f *testing.F) {
	for _, seed := range []string{
		"/function/f0", "/function/f0/", "/function/f0/a/b?c=d", "/function/f0//x", "/function/f0/../f1", "/function/f0/a%2Fb", "/function/f0/%2e%2e/",
		"/function/f0/a|b%2Fc", "/function/f0?a=b;c&%zz", "/function/f0/%e2%82%ac", "/function/f0/\xe2\x82\xac", "/function/f0/a#b", "/function/f0/?", "/function/f0??", "/function/f0/*",
		"/function/..", "/function/", "/function//f0", "/function/f0%2f", "/function/f%30", "/%66unction/f0", "/function%2ff0", "//function/f0", "/x/../function/f0",
		"*", "http://x/function/f0/a", "/FUNCTION/f0", "/function/f0/\"%2f\"", "/metrics", "/healthz", "/system/x", "/",
	} {
		f.Add(seed)
	}
	r := manyFunctions(f, 2)
	var name, seen string
	g := newHandler(f, r, func(req *http.Request) (*http.Response, error) {
		name, seen = invocationOf(req.Context()).f.name, req.URL.RequestURI()
		return emptyAnswer(req), nil
	})
	f.Fuzz(func(t *testing.T, target string) {
		req, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET " + target + " HTTP/1.1\r\nHost: x\r\n\r\n")))
		if err != nil || req.RequestURI != target {
			return // no such request gets in
		}
		name, seen = "", ""
		w := httptest.NewRecorder()
		g.ServeHTTP(w, req)
		if !strings.HasPrefix(target, "/") {
			return
		}
		path, query, hasQuery := strings.Cut(target, "?")
		wantName, wantSeen := "", ""
		if rest, ok := strings.CutPrefix(path, "/function/"); ok {
			for _, known := range []string{"f0", "f1"} {
				if sub, ok := strings.CutPrefix(rest, known); ok && (sub == "" || sub[0] == '/') {
					wantName, wantSeen = known, seenPath(sub)
				}
			}
		}
		if wantName != "" && hasQuery && query != "" {
			wantSeen += "?" + query
		}
		if wantName != "" && query != "" && !field.IsTarget(query) || len(target) > maxURLLen {
			wantName, wantSeen = "", ""
		}
		if query == "" {
			seen = strings.TrimSuffix(seen, "?") // an empty query is none
		}
		if name != wantName || seen != wantSeen {
			t.Errorf("%q: function %q saw %q, want %q and %q", target, name, seen, wantName, wantSeen)
		}
		if wantName == "" && w.Code < 400 && path != "/healthz" && path != "/metrics" && path != "/metrics/" {
			t.Errorf("%q: got %d, want an error", target, w.Code)
		}
	})
}
