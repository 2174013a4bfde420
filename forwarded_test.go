package main

import (
	"crypto/tls"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
)

func TestParseTrustedProxies(t *testing.T) {
	for _, tt := range []struct{ list, want string }{
		{"", "[]"},
		{"  ", "[]"},
		{"10.0.0.0/8", "[10.0.0.0/8]"},
		{"10.1.2.3/8", "[10.0.0.0/8]"},
		{"192.0.2.1, 2001:db8::/32 ,::1", "[192.0.2.1/32 2001:db8::/32 ::1/128]"},
		{"::ffff:192.0.2.1", "[192.0.2.1/32]"},
		{"::ffff:10.0.0.0/104", "[10.0.0.0/8]"},
		{"0.0.0.0/0,::/0", "[0.0.0.0/0 ::/0]"},
	} {
		t.Run(tt.list, func(t *testing.T) {
			got, err := parseTrustedProxies(tt.list)
			if err != nil || fmt.Sprint(got) != tt.want {
				t.Errorf("got %v, error %v, want %s", got, err, tt.want)
			}
		})
	}
}

func TestParseTrustedProxiesErrors(t *testing.T) {
	for _, tt := range []struct {
		list string
		bad  []string
	}{
		{"10.0.0.0/33", []string{`"10.0.0.0/33"`}},
		{"example.com", []string{`"example.com"`}},
		{"10.0.0.1:80", []string{`"10.0.0.1:80"`}},
		{"fe80::1%eth0", []string{`"fe80::1%eth0"`}},
		{"fe80::%eth0/64", []string{`"fe80::%eth0/64"`}},
		{"::ffff:0:0/95", []string{`"::ffff:0:0/95"`}},
		{"10.0.0.1,", []string{`""`}},
		{"a,10.0.0.1,b/8", []string{`"a"`, `"b/8"`}},
	} {
		t.Run(tt.list, func(t *testing.T) {
			got, err := parseTrustedProxies(tt.list)
			if err == nil {
				t.Fatalf("got %v, want an error", got)
			}
			for _, bad := range tt.bad {
				if !strings.Contains(err.Error(), bad) {
					t.Errorf("got error %q, want it to name %s", err, bad)
				}
			}
			if strings.Contains(err.Error(), `"10.0.0.1"`) {
				t.Errorf("got error %q, want it not to name the good part", err)
			}
		})
	}
}

func trustingForwarder(t testing.TB, list string) forwarder {
	t.Helper()
	trusted, err := parseTrustedProxies(list)
	if err != nil {
		t.Fatal(err)
	}
	return forwarder{trusted: trusted}
}

func TestForwarderSet(t *testing.T) {
	f := trustingForwarder(t, "10.0.0.0/8, 2001:db8::1, fe80::/10")
	for _, tt := range []struct {
		name, peer, host string
		secure           bool
		prefix           string
		in, want         http.Header
	}{
		{
			name: "nothing sent", peer: "192.0.2.7:1234", host: "api.example.com",
			want: http.Header{"X-Forwarded-For": {"192.0.2.7"}, "X-Forwarded-Host": {"api.example.com"}, "X-Forwarded-Proto": {"http"}},
		},
		{
			name: "TLS", peer: "192.0.2.7:1234", host: "a:8443", secure: true,
			want: http.Header{"X-Forwarded-For": {"192.0.2.7"}, "X-Forwarded-Host": {"a:8443"}, "X-Forwarded-Proto": {"https"}},
		},
		{
			name: "untrusted peer that spoofs", peer: "192.0.2.7:1234", host: "a",
			in: http.Header{
				"X-Forwarded-For": {"10.0.0.1", "127.0.0.1"}, "X-Forwarded-Host": {"admin"}, "X-Forwarded-Proto": {"https"},
				"X-Forwarded-Port": {"443"}, "X-Forwarded-Prefix": {"/admin"}, "Forwarded": {"for=10.0.0.1"}, "X-Other": {"kept"},
			},
			want: http.Header{"X-Forwarded-For": {"192.0.2.7"}, "X-Forwarded-Host": {"a"}, "X-Forwarded-Proto": {"http"}, "X-Other": {"kept"}},
		},
		{
			name: "trusted peer", peer: "10.9.9.9:1", host: "inside",
			in: http.Header{
				"X-Forwarded-For": {"192.0.2.7"}, "X-Forwarded-Host": {"api.example.com:8443"}, "X-Forwarded-Proto": {"https"},
				"X-Forwarded-Port": {"443"}, "Forwarded": {"for=192.0.2.7", "for=10.1.1.1"},
			},
			want: http.Header{
				"X-Forwarded-For": {"192.0.2.7, 10.9.9.9"}, "X-Forwarded-Host": {"api.example.com:8443"}, "X-Forwarded-Proto": {"https"},
				"X-Forwarded-Port": {"443"}, "Forwarded": {"for=192.0.2.7", "for=10.1.1.1"},
			},
		},
		{
			name: "trusted peer that sends nothing", peer: "10.9.9.9:1", host: "inside",
			want: http.Header{"X-Forwarded-For": {"10.9.9.9"}, "X-Forwarded-Host": {"inside"}, "X-Forwarded-Proto": {"http"}},
		},
		{
			name: "list over several lines", peer: "10.9.9.9:1", host: "inside",
			in:   http.Header{"X-Forwarded-For": {"192.0.2.7, 192.0.2.8", "", "192.0.2.9"}},
			want: http.Header{"X-Forwarded-For": {"192.0.2.7, 192.0.2.8, 192.0.2.9, 10.9.9.9"}, "X-Forwarded-Host": {"inside"}, "X-Forwarded-Proto": {"http"}},
		},
		{
			name: "trusted peer with values that are none", peer: "10.9.9.9:1", host: "inside", secure: true,
			in:   http.Header{"X-Forwarded-For": {""}, "X-Forwarded-Host": {"a, b"}, "X-Forwarded-Proto": {"gopher"}},
			want: http.Header{"X-Forwarded-For": {"10.9.9.9"}, "X-Forwarded-Host": {"inside"}, "X-Forwarded-Proto": {"https"}},
		},
		{
			name: "trusted peer with two values", peer: "10.9.9.9:1", host: "inside",
			in:   http.Header{"X-Forwarded-Host": {"a", "b"}, "X-Forwarded-Proto": {"https", "https"}},
			want: http.Header{"X-Forwarded-For": {"10.9.9.9"}, "X-Forwarded-Host": {"inside"}, "X-Forwarded-Proto": {"http"}},
		},
		{
			name: "host with a path", peer: "10.9.9.9:1", host: "inside",
			in:   http.Header{"X-Forwarded-Host": {"a/../b"}},
			want: http.Header{"X-Forwarded-For": {"10.9.9.9"}, "X-Forwarded-Host": {"inside"}, "X-Forwarded-Proto": {"http"}},
		},
		{
			name: "host that is too long", peer: "10.9.9.9:1", host: "inside",
			in:   http.Header{"X-Forwarded-Host": {strings.Repeat("a", 300)}},
			want: http.Header{"X-Forwarded-For": {"10.9.9.9"}, "X-Forwarded-Host": {"inside"}, "X-Forwarded-Proto": {"http"}},
		},
		{
			name: "trusted IPv4 peer on an IPv6 socket", peer: "[::ffff:10.9.9.9]:1", host: "inside",
			in:   http.Header{"X-Forwarded-For": {"192.0.2.7"}},
			want: http.Header{"X-Forwarded-For": {"192.0.2.7, 10.9.9.9"}, "X-Forwarded-Host": {"inside"}, "X-Forwarded-Proto": {"http"}},
		},
		{
			name: "trusted IPv6 peer", peer: "[2001:db8::1]:1", host: "[2001:db8::2]:80",
			in:   http.Header{"X-Forwarded-For": {"2001:db8::9"}},
			want: http.Header{"X-Forwarded-For": {"2001:db8::9, 2001:db8::1"}, "X-Forwarded-Host": {"[2001:db8::2]:80"}, "X-Forwarded-Proto": {"http"}},
		},
		{
			name: "untrusted IPv6 peer", peer: "[2001:db8::2]:1", host: "a",
			in:   http.Header{"X-Forwarded-For": {"2001:db8::1"}},
			want: http.Header{"X-Forwarded-For": {"2001:db8::2"}, "X-Forwarded-Host": {"a"}, "X-Forwarded-Proto": {"http"}},
		},
		{
			name: "trusted peer with a zone", peer: "[fe80::1%eth0]:1", host: "a",
			in:   http.Header{"X-Forwarded-For": {"192.0.2.7"}},
			want: http.Header{"X-Forwarded-For": {"192.0.2.7, fe80::1"}, "X-Forwarded-Host": {"a"}, "X-Forwarded-Proto": {"http"}},
		},
		{
			name: "a prefix that was cut off", peer: "192.0.2.7:1", host: "a", prefix: "/function/f",
			in:   http.Header{"X-Forwarded-Prefix": {"/forged"}},
			want: http.Header{"X-Forwarded-For": {"192.0.2.7"}, "X-Forwarded-Host": {"a"}, "X-Forwarded-Proto": {"http"}, "X-Forwarded-Prefix": {"/function/f"}},
		},
		{
			name: "a trusted peer's prefix before ours", peer: "10.9.9.9:1", host: "a", prefix: "/function/f",
			in:   http.Header{"X-Forwarded-Prefix": {"/outer/"}},
			want: http.Header{"X-Forwarded-For": {"10.9.9.9"}, "X-Forwarded-Host": {"a"}, "X-Forwarded-Proto": {"http"}, "X-Forwarded-Prefix": {"/outer/function/f"}},
		},
		{
			name: "a trusted peer's prefixes, in lines and lists", peer: "10.9.9.9:1", host: "a", prefix: "/function/f",
			in:   http.Header{"X-Forwarded-Prefix": {"/a, /b/c/", "", "/d%20"}},
			want: http.Header{"X-Forwarded-For": {"10.9.9.9"}, "X-Forwarded-Host": {"a"}, "X-Forwarded-Proto": {"http"}, "X-Forwarded-Prefix": {"/a/b/c/d%20/function/f"}},
		},
		{
			name: "a trusted peer's prefix and none of ours", peer: "10.9.9.9:1", host: "a",
			in:   http.Header{"X-Forwarded-Prefix": {"/outer"}},
			want: http.Header{"X-Forwarded-For": {"10.9.9.9"}, "X-Forwarded-Host": {"a"}, "X-Forwarded-Proto": {"http"}, "X-Forwarded-Prefix": {"/outer"}},
		},
		{
			name: "a prefix that leads to another host", peer: "10.9.9.9:1", host: "a", prefix: "/function/f",
			in:   http.Header{"X-Forwarded-Prefix": {"//evil.example"}},
			want: http.Header{"X-Forwarded-For": {"10.9.9.9"}, "X-Forwarded-Host": {"a"}, "X-Forwarded-Proto": {"http"}, "X-Forwarded-Prefix": {"/function/f"}},
		},
		{
			name: "a prefix that is no path", peer: "10.9.9.9:1", host: "a", prefix: "/function/f",
			in:   http.Header{"X-Forwarded-Prefix": {"/good", `/"><script>`, "https://evil.example"}},
			want: http.Header{"X-Forwarded-For": {"10.9.9.9"}, "X-Forwarded-Host": {"a"}, "X-Forwarded-Proto": {"http"}, "X-Forwarded-Prefix": {"/function/f"}},
		},
		{
			name: "no port", peer: "10.9.9.9", host: "a",
			in:   http.Header{"X-Forwarded-For": {"192.0.2.7"}, "Forwarded": {"for=192.0.2.7"}},
			want: http.Header{"X-Forwarded-Host": {"a"}, "X-Forwarded-Proto": {"http"}},
		},
		{
			name: "Unix socket", peer: "@", host: "a",
			in:   http.Header{"X-Forwarded-For": {"192.0.2.7"}},
			want: http.Header{"X-Forwarded-Host": {"a"}, "X-Forwarded-Proto": {"http"}},
		},
		{
			name: "no host", peer: "192.0.2.7:1", host: "",
			in:   http.Header{"X-Forwarded-Host": {"admin"}},
			want: http.Header{"X-Forwarded-For": {"192.0.2.7"}, "X-Forwarded-Proto": {"http"}},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := &http.Request{RemoteAddr: tt.peer, Host: tt.host, Header: tt.in}
			if tt.secure {
				in.TLS = &tls.ConnectionState{}
			}
			out := http.Header{}
			maps.Copy(out, tt.in)
			f.set(out, in, tt.prefix)
			if got, want := fmt.Sprint(out), fmt.Sprint(tt.want); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			out["X-Forwarded-For"] = append(out["X-Forwarded-For"], "more")
			if got, want := out["X-Forwarded-Host"], tt.want["X-Forwarded-Host"]; fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("after an append to another header: got %q, want %q", got, want)
			}
		})
	}
}

// ReverseProxy takes some of the headers off the copy before Rewrite is called.
func TestForwarderInReverseProxy(t *testing.T) {
	got := make(chan http.Header, 1)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got <- r.Header
	}))
	defer upstream.Close()
	target, err := url.Parse(upstream.URL)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ trusted, wantFor, wantHost, wantForwarded string }{
		{"", "127.0.0.1", "api.example.com", ""},
		{"127.0.0.0/8", "10.0.0.1, 127.0.0.1", "admin", "for=10.0.0.1"},
	} {
		t.Run("trusted="+tt.trusted, func(t *testing.T) {
			f := trustingForwarder(t, tt.trusted)
			proxy := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(pr *httputil.ProxyRequest) {
				pr.SetURL(target)
				f.set(pr.Out.Header, pr.In, "")
			}})
			defer proxy.Close()

			req, err := http.NewRequest("GET", proxy.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = "api.example.com"
			req.Header.Set("X-Forwarded-For", "10.0.0.1")
			req.Header.Set("X-Forwarded-Host", "admin")
			req.Header.Set("Forwarded", "for=10.0.0.1")
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			header := <-got
			for name, want := range map[string]string{
				"X-Forwarded-For": tt.wantFor, "X-Forwarded-Host": tt.wantHost,
				"X-Forwarded-Proto": "http", "Forwarded": tt.wantForwarded,
			} {
				if got := header.Get(name); got != want {
					t.Errorf("%s: got %q, want %q", name, got, want)
				}
			}
		})
	}
}

// A function learns what was cut off its path, and only from whom it may.
func TestForwardedPrefix(t *testing.T) {
	p := newMemoryProvider()
	p.set("f", func(d *definition) {
		d.claim(labelRoute, []string{"/by/{id}"})
		d.claim(labelIntent, []string{"AnIntent"})
	}, startReplica(t, echoReplica))
	for _, tt := range []struct{ trusted, path, function, body, want string }{
		{"", "/function/f", "", "", "/function/f"},
		{"", "/function/f/", "", "", "/function/f"},
		{"", "/function/f/a%2Fb/../c?q", "", "", "/function/f"},
		{"", "/", "f", "", ""},
		{"", "/by/1", "", "", ""},
		{"", "/", "", skillRequest("IntentRequest", "AnIntent", "skill-1"), ""},
		{"127.0.0.0/8", "/function/f/x", "", "", "/outer/function/f"},
		{"127.0.0.0/8", "/", "f", "", "/outer"},
		{"127.0.0.0/8", "/by/1", "", "", "/outer"},
	} {
		t.Run(fmt.Sprintf("trusted=%s %s %s", tt.trusted, tt.path, tt.function), func(t *testing.T) {
			header := []string{"X-Forwarded-Prefix", "/outer", "X_Forwarded_Prefix", "/forged"}
			if tt.function != "" {
				header = append(header, "X-Function", tt.function)
			}
			method := "GET"
			if tt.body != "" {
				method = "POST"
			}
			base := startGateway(t, p, "-trusted-proxies", tt.trusted)
			resp, _ := call(t, method, base+tt.path, tt.body, header...)
			if got := resp.Header.Values("Seen-X-Forwarded-Prefix"); resp.StatusCode != 200 || strings.Join(got, "|") != tt.want {
				t.Errorf("got %d and X-Forwarded-Prefix %q, want 200 and %q", resp.StatusCode, got, tt.want)
			}
		})
	}
}

func TestForwarderAllocations(t *testing.T) {
	f := trustingForwarder(t, "10.0.0.0/8")
	in := &http.Request{RemoteAddr: "192.0.2.7:1234", Host: "a", Header: http.Header{}}
	out := http.Header{"Accept": {"*/*"}, "User-Agent": {"x"}}
	// The address, and an array for the values.
	if n := testing.AllocsPerRun(100, func() { f.set(out, in, "") }); n > 2 {
		t.Errorf("got %v allocations, want at most 2", n)
	}
}

func BenchmarkForwarderSet(b *testing.B) {
	f := trustingForwarder(b, "10.0.0.0/8,192.168.0.0/16")
	in := &http.Request{RemoteAddr: "192.0.2.7:1234", Host: "api.example.com", Header: http.Header{}}
	out := http.Header{}
	for i := range 8 {
		out[fmt.Sprintf("X-Header-%d", i)] = []string{"value"}
	}
	b.ReportAllocs()
	for b.Loop() {
		f.set(out, in, "")
	}
}
