package main

// What functions ask for as routes and do not have.

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

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
			routes, claims := newRouteTable(claimants([]definition{bad, good}), "/")
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
			_, claims := newRouteTable(claimants([]definition{routed("f", 0, tt.pattern, "/fine")}), tt.alexaRoute)
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
			routes, claims := newRouteTable(claimants(defs), "/")
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
	routes, claims := newRouteTable(claimants(defs), "/")
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
	_, claims := newRouteTable(claimants(defs), "/")
	if len(claims) != 300 {
		t.Fatalf("got %d claims, want 300", len(claims))
	}
	if claims[0].holder != "svc-a000" {
		t.Errorf("got holder %q, want svc-a000", claims[0].holder)
	}
}
