package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// routed returns a definition that is i hours younger than the epoch.
func routed(name string, i int, routes ...string) definition {
	created := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(i) * time.Hour)
	return definition{name: name, service: "svc-" + name, created: created, claims: map[string][]string{labelRoute: routes}}
}

// request returns one as a handler would see it.
func request(t testing.TB, method, target string) *http.Request {
	t.Helper()
	r := httptest.NewRequest(method, "/", nil)
	u, err := url.ParseRequestURI(target) // as the server does: "//x" is a path
	if err != nil {
		t.Fatalf("parse %q: %v", target, err)
	}
	if u.Host != "" {
		r.Host = u.Host
		u.Host, u.Scheme = "", ""
	}
	r.URL, r.RequestURI = u, target
	return r
}

// table is a routeTable whose functions have no claims left over.
func table(t testing.TB, defs ...definition) *routeTable {
	t.Helper()
	table, claims := newRouteTable(claimants(defs), "/")
	for _, c := range claims {
		t.Errorf("unexpected claim: %s", c)
	}
	return table
}

func TestRouteMatch(t *testing.T) {
	routes := table(t,
		routed("orders", 1, "POST /orders/{id}", "/orders/{order_id}/items/{itemID}"),
		routed("static", 2, "/static/", "/exact/{$}"),
		routed("files", 3, "GET /files/{path...}"),
		routed("api", 4, "API.example.com/v1/"),
		routed("comma", 5, "GET /a%2Cb"),
		routed("home", 6, "GET home.example/{page}"),
		routed("tree", 7, "GET /tree/{x}/"),
	)
	tests := []struct {
		method, target string
		name           string // "": no function
		headers        string // as a sorted list of K=V
		status         int    // of an answer without a function; 0: no route at all
		also           string // header of that answer, K=V
	}{
		{"POST", "/orders/42", "orders", "X-Route-Id=42", 0, ""},
		{"POST", "/orders/42?x=1", "orders", "X-Route-Id=42", 0, ""},
		{"POST", "/orders/a%20b%2Fc", "orders", "X-Route-Id=a b/c", 0, ""},
		{"POST", "/orders/stra%C3%9Fe", "orders", "X-Route-Id=straße", 0, ""},
		{"DELETE", "/orders/1/items/2", "orders", "X-Route-Itemid=2 X-Route-Order_id=1", 0, ""},
		{"GET", "/orders/42", "", "", 405, "Allow=POST"},
		{"OPTIONS", "/orders/42", "", "", 405, "Allow=POST"},
		{"POST", "/orders/42/", "", "", 0, ""},
		{"POST", "/orders/a%0d%0aX-Evil:%201", "", "", 400, ""},
		{"POST", "/orders/a%00b", "", "", 400, ""},
		{"POST", "/orders/%20a", "", "", 400, ""},
		{"POST", "/orders/a%7f", "", "", 400, ""},
		{"PUT", "/static/css/x.css", "static", "", 0, ""},
		{"GET", "/static", "", "", 307, "Location=/static/"},
		{"GET", "/static?q=%2F", "", "", 307, "Location=/static/?q=%2F"},
		{"GET", "/tree/b%2Fc", "", "", 307, "Location=/tree/b%2Fc/"}, // one segment, not two
		{"GET", "/tree/b%2Fc/", "tree", "X-Route-X=b/c", 0, ""},
		{"GET", "/tree/%252F%20", "", "", 307, "Location=/tree/%252F%20/"},
		{"POST", "/tree/b%2Fc/", "", "", 405, "Allow=GET, HEAD"},
		{"GET", "/static//x", "", "", 307, "Location=/static/x"},
		{"GET", "/nowhere/../static/x?q=1", "", "", 307, "Location=/static/x?q=1"},
		{"GET", "/static//a%20b%2Fc%0d", "", "", 307, "Location=/static/a%20b%2Fc%0d"},
		{"GET", "//static", "", "", 307, "Location=/static"}, // and from there to /static/
		{"GET", "/static/%2e%2e/x", "static", "", 0, ""},     // a name with dots, to a ServeMux
		{"GET", "//nowhere/deep", "", "", 0, ""},
		{"GET", "/exact/", "static", "", 0, ""},
		{"GET", "/exact/more", "", "", 0, ""},
		{"GET", "/files/", "files", "X-Route-Path=", 0, ""},
		{"HEAD", "/files/a/b%2Fc", "files", "X-Route-Path=a/b/c", 0, ""},
		{"GET", "http://api.example.com/v1/x", "api", "", 0, ""},
		{"GET", "http://Api.Example.COM:8080/v1/x", "api", "", 0, ""},
		{"GET", "http://other.example.com/v1/x", "", "", 0, ""},
		{"GET", "/a,b", "comma", "", 0, ""},
		{"GET", "http://home.example/anything", "home", "X-Route-Page=anything", 0, ""},
		{"GET", "/", "", "", 0, ""},
		// Reserved, although {page} would have them.
		{"GET", "http://home.example/metrics", "", "", 0, ""},
		{"GET", "http://home.example/healthz", "", "", 0, ""},
		{"GET", "http://home.example/ui", "", "", 0, ""},
		{"GET", "http://home.example/x/../metrics", "", "", 0, ""},
		{"GET", "http://home.example/%75i", "", "", 0, ""},
		{"GET", "http://home.example/function%2Fecho", "", "", 0, ""},
		{"CONNECT", "/static/x", "", "", 0, ""},
		{"OPTIONS", "*", "", "", 0, ""},
	}
	for _, tt := range tests {
		t.Run(tt.method+" "+tt.target, func(t *testing.T) {
			r := request(t, tt.method, tt.target)
			before := *r.URL
			m, ok := routes.match(r)
			if want := tt.name != "" || tt.status != 0; ok != want {
				t.Fatalf("got match %v, want %v", ok, want)
			}
			if m.name != tt.name {
				t.Errorf("got function %q, want %q", m.name, tt.name)
			}
			if *r.URL != before || r.Pattern != "" {
				t.Errorf("the request was changed: got %v pattern %q", r.URL, r.Pattern)
			}
			h := http.Header{}
			m.setHeaders(h)
			var got []string
			for k, v := range h {
				got = append(got, k+"="+strings.Join(v, "|"))
			}
			slices.Sort(got)
			if s := strings.Join(got, " "); s != tt.headers {
				t.Errorf("got headers %q, want %q", s, tt.headers)
			}
			if (m.answer != nil) != (tt.status != 0) {
				t.Fatalf("got answer %v, want one: %v", m.answer != nil, tt.status != 0)
			}
			if m.answer == nil {
				return
			}
			w := httptest.NewRecorder()
			m.answer.ServeHTTP(w, r)
			if w.Code != tt.status {
				t.Errorf("got status %d, want %d", w.Code, tt.status)
			}
			if k, v, found := strings.Cut(tt.also, "="); found && w.Header().Get(k) != v {
				t.Errorf("got %s %q, want %q", k, w.Header().Get(k), v)
			}
		})
	}
}

func TestNoRoutes(t *testing.T) {
	r := request(t, "GET", "/x")
	for name, routes := range map[string]*routeTable{"nil": nil, "empty": table(t, routed("f", 0))} {
		if _, ok := routes.match(r); ok {
			t.Errorf("%s table: got a match", name)
		}
		if n := testing.AllocsPerRun(100, func() { routes.match(r) }); n != 0 {
			t.Errorf("%s table: got %v allocations, want 0", name, n)
		}
	}
}

func TestParseRouteFlag(t *testing.T) {
	tests := []struct{ in, pattern, name, err string }{
		{"POST /orders/{id}=orders", "POST /orders/{id}", "orders", ""},
		{"/a=b=f", "/a=b", "f", ""},
		{" GET  Api.Example/x = f ", "GET api.example/x", "f", ""},
		{"/orders", "", "", "want PATTERN=name"},
		{"/orders=", "", "", "not the name of a function"},
		{"/orders=../x", "", "", "not the name of a function"},
		{"=f", "", "", "a slash is missing"},
		{"/ui/=f", "", "", "the gateway keeps this path"},
		{"/" + strings.Repeat("x", maxRouteLabel) + "=f", "", "", "4097 bytes, 4096 at most"},
	}
	for _, tt := range tests {
		pattern, name, err := parseRouteFlag(tt.in)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%.40q: got error %v, want one that says %q", tt.in, err, tt.err)
			}
			continue
		}
		if err != nil || pattern != tt.pattern || name != tt.name {
			t.Errorf("%q: got %q, %q, %v, want %q, %q", tt.in, pattern, name, err, tt.pattern, tt.name)
		}
	}
}

// Whatever a label says, building the table does not panic, what is not in it
// is among the claims, and the table with all the rest works.
func FuzzRouteLabel(f *testing.F) {
	for _, s := range []string{"POST /orders/{id}", "/a//b,/a/{x}/b", "/,/{$},/{x...}", "h/%2F,GET /{a}/{a}", "/ui/", "//,/%2f/%2f/{x}", "GET h.example/{x}/b,h.example/a/{y}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, label string) {
		patterns := strings.Split(label, ",")
		defs := []definition{routed("good", 0, "/good/{id}"), routed("fuzzed", 1, patterns...)}
		routes, claims := newRouteTable(claimants(defs), "/")
		if len(claims) > len(patterns) {
			t.Fatalf("got %d claims for %d patterns", len(claims), len(patterns))
		}
		for _, c := range claims {
			if c.service != "svc-fuzzed" || len(c.String()) > 800 {
				t.Errorf("got claim %+v", c)
			}
		}
		m, ok := routes.match(request(t, "GET", "http://nobody.example/good/1"))
		if !ok || m.name != "good" && m.name != "fuzzed" {
			t.Errorf("got %q, %v, want good, or fuzzed with a more specific pattern", m.name, ok)
		}
		for _, p := range patterns {
			parsed, err := parsePattern(p)
			if err != nil {
				continue
			}
			again, err := parsePattern(parsed.String())
			if err != nil || again.String() != parsed.String() {
				t.Errorf("%q: got %q, %v the second time", p, again, err)
			}
			for _, w := range parsed.wildcards {
				if !isTold(foldName(w.header)) {
					t.Errorf("%q: header %q would not be dropped from a caller's request", p, w.header)
				}
			}
		}
		for _, path := range []string{"/function/x", "/system/x", "/metrics", "/healthz", "/ui/"} {
			if m, ok := routes.match(request(t, "GET", path)); ok {
				t.Errorf("%s: got function %q", path, m.name)
			}
		}
	})
}

func BenchmarkRouteMatch(b *testing.B) {
	for _, n := range []int{0, 1, 1000} {
		var defs []definition
		for i := range n {
			defs = append(defs, routed(fmt.Sprintf("f%d", i), i, fmt.Sprintf("POST /service%d/{id}", i)))
		}
		routes := table(b, defs...)
		for name, r := range map[string]*http.Request{
			"hit":  request(b, "POST", "/service0/42"),
			"miss": request(b, "POST", "/nothing/42"),
		} {
			if n == 0 && name == "hit" {
				continue
			}
			b.Run(fmt.Sprintf("routes=%d/%s", n, name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, ok := routes.match(r); ok != (name == "hit") {
						b.Fatalf("got match %v", ok)
					}
				}
			})
		}
	}
}

func BenchmarkNewRouteTable(b *testing.B) {
	var defs []definition
	for i := range 1000 {
		defs = append(defs, routed(fmt.Sprintf("f%d", i), i, fmt.Sprintf("POST /service%d/{id}", i)))
	}
	b.ReportAllocs()
	for b.Loop() {
		newRouteTable(claimants(defs), "/")
	}
}
