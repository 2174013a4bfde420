package main

import (
	"bytes"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestCallRoundTrip(t *testing.T) {
	c := &call{
		id: "an id.with=*>", uid: "u", function: "fn.a", name: "fn.a.openfaas-fn", callback: "https://x/y", accepted: time.Unix(1, 234),
		method: "PATCH", target: "//a%2f..?x", host: "h:1",
		header: http.Header{"X-A": {"1", "2"}, "Pragma": {"no-cache"}, "Cache-Control": {"no-cache"}}, body: []byte("\r\n\r\n\x00body"),
	}
	m := c.message("s")
	got, err := parseCall(m.Header, m.Data)
	if err != nil {
		t.Fatal(err)
	}
	if got.id != c.id || got.uid != c.uid || got.function != c.function || got.name != c.name || got.callback != c.callback || !got.accepted.Equal(c.accepted) ||
		got.method != c.method || got.target != c.target || got.host != c.host || !bytes.Equal(got.body, c.body) || !maps.EqualFunc(got.header, c.header, slices.Equal) {
		t.Errorf("got %+v, want %+v", got, c)
	}
}

func TestParseCallRefuses(t *testing.T) {
	ok := func() *call {
		return &call{id: "i", uid: "u", function: "fn", name: "fn", method: "GET", target: "/", accepted: time.Unix(1, 0)}
	}
	for name, change := range map[string]func(*call, map[string][]string, *[]byte){
		"no id":       func(_ *call, h map[string][]string, _ *[]byte) { delete(h, headerID) },
		"no time":     func(_ *call, h map[string][]string, _ *[]byte) { delete(h, headerAccepted) },
		"bad name":    func(_ *call, h map[string][]string, _ *[]byte) { h[headerFunction] = []string{"../x"} },
		"no end":      func(_ *call, _ map[string][]string, d *[]byte) { *d = []byte("GET / HTTP/1.1\r\n") },
		"no request":  func(_ *call, _ map[string][]string, d *[]byte) { *d = []byte("\r\n\r\n") },
		"not a call":  func(_ *call, h map[string][]string, d *[]byte) { clear(h); *d = []byte("hello") },
		"bad headers": func(_ *call, _ map[string][]string, d *[]byte) { *d = []byte("GET / HTTP/1.1\r\nno colon\r\n\r\n") },
	} {
		c := ok()
		m := c.message("s")
		change(c, m.Header, &m.Data)
		if _, err := parseCall(m.Header, m.Data); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

func FuzzToken(f *testing.F) {
	f.Add("fn")
	f.Add("a.b c*>=\x00\xff")
	f.Fuzz(func(t *testing.T, s string) {
		tok := token(s)
		if strings.ContainsAny(tok, ".*> \t\r\n/\\") {
			t.Errorf("%q: %q is not a token", s, tok)
		}
		if back, err := untoken(tok); err != nil || back != s {
			t.Errorf("%q: got %q, %v back", s, back, err)
		}
	})
}

// What parses is written and parsed to the same.
func FuzzParseCall(f *testing.F) {
	f.Add([]byte("POST /a?b HTTP/1.1\r\nHost: h\r\nX-A: 1\r\n\r\nbody"))
	f.Add([]byte("GET http://a/b HTTP/1.0\r\n\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		h := map[string][]string{headerID: {"i"}, headerUID: {"u"}, headerFunction: {"f"}, headerAccepted: {"1"}}
		c, err := parseCall(h, data)
		if err != nil {
			return
		}
		again, err := parseCall(h, c.writeRequest())
		if err != nil {
			t.Fatalf("written: %q: %v", c.writeRequest(), err)
		}
		if again.method != c.method || again.target != c.target || !bytes.Equal(again.body, c.body) {
			t.Errorf("got %+v, want %+v", again, c)
		}
	})
}

func TestCallIDs(t *testing.T) {
	seenToken := map[string]string{}
	for _, id := range []string{
		"0f3c0000-0000-4000-8000-0000000000ff", "0F3C0000-0000-4000-8000-0000000000FF", "0f3c000000004000800000000000000ff", "0f3c0000-0000-4000-80000000000000ff",
		"0f3c0000000040008000-0000000000ff", "x", "=U", "=UDzwAAAAAQACAAAAAAAAA_w", "DzwAAAAAQACAAAAAAAAA_w",
	} {
		tok := idToken(id)
		if other, ok := seenToken[tok]; ok {
			t.Errorf("%s and %s have one token, %s", id, other, tok)
		}
		seenToken[tok] = id
	}
	if got := idToken("0f3c0000-0000-4000-8000-0000000000ff"); len(got) != 24 {
		t.Errorf("got %s, want 24 bytes", got)
	}
	if a, b := callIDOf("x", "y"), callIDOf("xy", ""); a == b || len(a) != 36 || a != callIDOf("x", "y") {
		t.Errorf("got %s and %s", a, b)
	}
	seen := map[string]bool{}
	for range 100 {
		seen[newCallID()], seen[newUID()] = true, true
	}
	if len(seen) != 200 {
		t.Errorf("got %d different ones of 200", len(seen))
	}
	for id, want := range map[string]bool{"a": true, strings.Repeat("x", 128): true, strings.Repeat("x", 129): false, "": false, "a b": false, "é": false} {
		if validCallID(id) != want {
			t.Errorf("%q: got %v", id, !want)
		}
	}
}
