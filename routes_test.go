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
	return definition{name: name, service: "svc-" + name, created: created, routes: routes}
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
	table, claims := newRouteTable(defs, "/")
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

func TestRouteClaims(t *testing.T) {
	many := make([]string, 1000)
	for i := range many {
		many[i] = fmt.Sprintf("/%d", i)
	}
	tests := []struct {
		name    string
		routes  []string
		problem string
		says    string
	}{
		{"no slash", []string{"orders"}, claimBad, "a slash is missing"},
		{"empty", []string{""}, claimBad, "a slash is missing"},
		{"method alone", []string{"POST "}, claimBad, "a slash is missing"},
		{"bad method", []string{"PO(ST /x"}, claimBad, "invalid method"},
		{"method in lower case", []string{"post /x"}, claimBad, `method "post"`},
		{"CONNECT", []string{"CONNECT /x"}, claimBad, `method "CONNECT"`},
		{"wildcard twice", []string{"/a/{id}/{id}"}, claimBad, "another one is the header X-Route-Id"},
		{"wildcard in two cases", []string{"/a/{id}/{ID}"}, claimBad, "another one is the header X-Route-Id"},
		{"wildcard not ASCII", []string{"/a/{größe}"}, claimBad, "its name becomes a header"},
		{"wildcard with a digit first", []string{"/a/{1x}"}, claimBad, "bad wildcard name"},
		{"wildcard not closed", []string{"/a/{id"}, claimBad, "bad wildcard segment"},
		{"wildcard inside a segment", []string{"/a/x{id}"}, claimBad, "bad wildcard segment"},
		{"wildcard empty", []string{"/a/{}"}, claimBad, "empty wildcard"},
		{"rest not last", []string{"/a/{x...}/b"}, claimBad, "not at end"},
		{"dollar not last", []string{"/a/{$}/b"}, claimBad, "not at end"},
		{"17 wildcards", []string{"/{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h}/{i}/{j}/{k}/{l}/{m}/{n}/{o}/{p}/{q}"}, claimBad, "more than 16"},
		{"host with a port", []string{"a.example:8080/"}, claimBad, "without a port"},
		{"wildcard host", []string{"{x}.example/"}, claimBad, "not a host"},
		{"two words", []string{"GET a b/"}, claimBad, "not a host"},
		{"query", []string{"/search?q=1"}, claimBad, "query"},
		{"dots", []string{"/a/../b"}, claimBad, "matches no request"},
		{"only slashes", []string{"//"}, claimBad, "matches no request"},
		{"empty segment", []string{"/a//b"}, claimBad, "matches no request"},
		{"escaped slash", []string{"/a/%2F"}, claimBad, "escaped slash"},
		{"escaped line end", []string{"/a/%0a"}, claimBad, "control character"},
		{"bad escape", []string{"/a/%zz"}, claimBad, "invalid URL escape"},
		{"line end", []string{"/a\n/b"}, claimBad, "cannot be shown"},
		{"not UTF-8", []string{"/a\xff"}, claimBad, "cannot be shown"},
		{"reserved", []string{"/function/x"}, claimReserved, ""},
		{"reserved with a method", []string{"POST /system/alert"}, claimReserved, ""},
		{"reserved with a host", []string{"api.example.com/metrics"}, claimReserved, ""},
		{"reserved, escaped", []string{"/%68ealthz"}, claimReserved, ""},
		{"reserved, a wildcard below", []string{"/ui/{x...}"}, claimReserved, ""},
		{"reserved, no slash after it", []string{"/system"}, claimReserved, ""},
		{"twice", []string{"/twice", "/twice"}, claimTaken, "asked for twice"},
		{"thousand", many, claimTooLong, "4895 bytes of patterns, 4096 at most"},
		{"34 patterns", many[:33], claimTooMany, "34 patterns, the first 32 count"},
		{"10 KiB", []string{"/" + strings.Repeat("x", 10<<10)}, claimTooLong, "10247 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			good := routed("good", 0, "/good")
			bad := routed("bad", 1, append(tt.routes, "/fine")...)
			routes, claims := newRouteTable([]definition{bad, good}, "/")
			if len(claims) != 1 {
				t.Fatalf("got %d claims %v, want 1", len(claims), claims)
			}
			c := claims[0]
			if c.problem != tt.problem || c.service != "svc-bad" || c.name != "bad" || c.kind != claimRoute {
				t.Errorf("got %+v, want problem %s of svc-bad", c, tt.problem)
			}
			if !strings.Contains(c.String(), tt.says) {
				t.Errorf("got %q, want it to say %q", c, tt.says)
			}
			if len(c.String()) > 600 {
				t.Errorf("got a text of %d bytes, want it short", len(c.String()))
			}
			if m, ok := routes.match(request(t, "GET", "/good")); !ok || m.name != "good" {
				t.Errorf("/good: got %q, want good: a bad pattern costs only itself", m.name)
			}
			wantFine := tt.problem != claimTooLong && tt.problem != claimTooMany
			if _, ok := routes.match(request(t, "GET", "/fine")); ok != wantFine {
				t.Errorf("/fine: got %v, want %v", ok, wantFine)
			}
		})
	}
}

// The path on which the gateway takes Alexa requests alone never reaches a
// function's route, so a pattern for just that path is reported.
func TestRouteClaimsOfAlexaRoute(t *testing.T) {
	tests := []struct {
		pattern, alexaRoute string
		reserved            bool
	}{
		{"/alexa", "/alexa", true},
		{"GET /alexa", "/alexa", true},
		{"POST api.example.com/alexa", "/alexa", true},
		{"/%61lexa", "/alexa", true},
		{"/a/alexa/{$}", "/a/alexa/", true},
		{"/alexa/", "/alexa", false}, // still has all below
		{"/a/alexa/", "/a/alexa/", false},
		{"/alexa/{$}", "/alexa", false},
		{"/alexa/x", "/alexa", false},
		{"/Alexa", "/alexa", false},
		{"/{page}", "/alexa", false},
		{"/", "/alexa", false},
		{"/alexa", "/", false},
		{"/{$}", "/", false}, // has what is no Alexa request
		{"/{$}", "", false},
	}
	for _, tt := range tests {
		t.Run(tt.pattern+" beside "+tt.alexaRoute, func(t *testing.T) {
			_, claims := newRouteTable([]definition{routed("f", 0, tt.pattern, "/fine")}, tt.alexaRoute)
			if !tt.reserved {
				if len(claims) != 0 {
					t.Errorf("got claims %v, want none", claims)
				}
				return
			}
			want := claim{service: "svc-f", name: "f", kind: claimRoute, value: tt.pattern, problem: claimReserved}
			if len(claims) != 1 || claims[0] != want {
				t.Errorf("got %+v, want %+v", claims, want)
			}
		})
	}
}

func TestRouteConflicts(t *testing.T) {
	tests := []struct {
		name   string
		old    string
		young  string
		target string // that both would have
		taken  bool
	}{
		{"the same", "/a", "/a", "/a", true},
		{"wildcards of other names", "/a/{x}", "/a/{y}", "/a/1", true},
		{"overlap", "/{x}/b", "/a/{y}", "/a/b", true},
		{"method against path", "GET /a/", "/a/b", "/a/b", true},
		{"host in another case", "H.example/a", "h.EXAMPLE/a", "http://h.example/a", true},
		{"more specific", "/a/", "/a/b", "/a/b", false},
		{"with a method", "/a", "GET /a", "/a", false},
		{"with a host", "/a", "h.example/a", "http://h.example/a", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			defs := []definition{routed("young", 2, tt.young), routed("other", 1, "/zzz"), routed("old", 0, tt.old)}
			routes, claims := newRouteTable(defs, "/")
			m, ok := routes.match(request(t, "GET", tt.target))
			if !ok {
				t.Fatal("got no match")
			}
			if !tt.taken {
				if len(claims) != 0 || m.name != "young" {
					t.Fatalf("got %q with claims %v, want the more specific pattern of young", m.name, claims)
				}
				return
			}
			if m.name != "old" {
				t.Errorf("got %q, want old", m.name)
			}
			want := claim{service: "svc-young", name: "young", kind: claimRoute, value: tt.young, problem: claimTaken, holder: "svc-old"}
			if len(claims) != 1 || claims[0] != want {
				t.Errorf("got %+v, want %+v", claims, want)
			}
		})
	}
}

func TestTwoHundredClaimantsOfOneRoute(t *testing.T) {
	var defs []definition
	for i := range 200 {
		defs = append(defs, routed(fmt.Sprintf("f%03d", i), 0, "POST /orders/{id}")) // all of one age
	}
	slices.Reverse(defs)
	routes, claims := newRouteTable(defs, "/")
	if len(claims) != 199 {
		t.Errorf("got %d claims, want 199", len(claims))
	}
	for _, c := range claims {
		if c.problem != claimTaken || c.holder != "svc-f000" {
			t.Fatalf("got %+v, want it taken by svc-f000", c)
		}
	}
	if m, _ := routes.match(request(t, "POST", "/orders/1")); m.name != "f000" {
		t.Errorf("got %q, want f000: ties go by name", m.name)
	}
	if defs[0].name != "f199" {
		t.Error("the caller's slice was sorted")
	}
}

// Overlapping patterns of many shapes are the dear case: each conflict looks
// for its holder among all that came before, within maxHolderTrials.
func TestManyOverlaps(t *testing.T) {
	var defs []definition
	for i := range 300 {
		defs = append(defs, routed(fmt.Sprintf("a%03d", i), 0, fmt.Sprintf("/{x}/%d", i)))
		defs = append(defs, routed(fmt.Sprintf("b%03d", i), 1, fmt.Sprintf("/%d/{x}", i)))
	}
	_, claims := newRouteTable(defs, "/")
	if len(claims) != 300 {
		t.Fatalf("got %d claims, want 300", len(claims))
	}
	if claims[0].holder != "svc-a000" {
		t.Errorf("got holder %q, want svc-a000", claims[0].holder)
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

func TestDropRouteHeaders(t *testing.T) {
	h := http.Header{}
	for _, k := range []string{"X-Route-Id", "x_route_id", "X-Route_Order", "x.route.id", "X-ROUTE-", "X-Route-Id-2",
		"X-Routes", "X-Router-Id", "X-Route", "Xx-Route-Id", "Accept"} {
		h.Set(k, "1")
	}
	h["x-route-raw"] = []string{"1"} // not canonical
	dropRouteHeaders(h)
	var got []string
	for k := range h {
		got = append(got, k)
	}
	slices.Sort(got)
	want := []string{"Accept", "X-Route", "X-Router-Id", "X-Routes", "Xx-Route-Id"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q left, want %q", got, want)
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
		routes, claims := newRouteTable(defs, "/")
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
				if !looksLikeRouteHeader(w.header) {
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
		newRouteTable(defs, "/")
	}
}

func BenchmarkDropRouteHeaders(b *testing.B) {
	h := http.Header{}
	for _, k := range []string{"Accept", "Accept-Encoding", "Content-Length", "Content-Type", "User-Agent", "X-Call-Id", "X-Request-Id", "Authorization"} {
		h.Set(k, "1")
	}
	b.ReportAllocs()
	for b.Loop() {
		dropRouteHeaders(h)
	}
}
