package main

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
)

// A callback brings the answer, with the headers that OpenFaaS documents.
func TestCallback(t *testing.T) {
	g, got := newStandIn(t), &keep{}
	receiver := httptest.NewServer(got)
	defer receiver.Close()
	var n atomic.Int32
	g.function("fn", quick, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Callback-Url") != "" {
			t.Error("the function sees where its answer goes")
		}
		if n.Add(1) == 1 {
			w.WriteHeader(500)
			return
		}
		w.Header().Set("X-Mine", "1")
		w.Header().Set("Content-Type", "a/b")
		w.Header().Set("X-Start-Time", "42")
		w.WriteHeader(201)
		io.WriteString(w, "the answer")
	})
	g.function("dead", quick, func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) })
	g.function("large", quick, func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, 2<<20)) })
	s := startBoth(t, g, "-callback-allow", "127.0.0.0/8", "-max-body", "1MiB")
	expect := func(id string, header map[string]string, body string) {
		t.Helper()
		var call seen
		within(t, soon, "called back", func() bool {
			for _, c := range got.all() {
				if c.header.Get("X-Call-Id") == id {
					call = c
				}
			}
			return call.method != ""
		})
		if call.method != "POST" || call.uri != "/done?id=7" || call.body != body {
			t.Errorf("got %s %s %q, want POST /done?id=7 %q", call.method, call.uri, call.body, body)
		}
		header["User-Agent"] = "queue-worker/faas-async"
		for k, v := range header {
			if got := call.header.Get(k); got != v {
				t.Errorf("%s: got %q, want %q", k, got, v)
			}
		}
		if call.header.Get("X-Duration-Seconds") == "" {
			t.Error("X-Duration-Seconds is missing")
		}
	}
	expect(s.call(t, "fn", "x", "X-Callback-Url", receiver.URL+"/done?id=7"), map[string]string{
		"X-Function-Status": "201", "X-Function-Name": "fn", "X-Mine": "1", "Content-Type": "a/b", "X-Start-Time": "42", "X-Retry": "1", "X-Retry-Max": "3",
	}, "the answer")
	expect(s.call(t, "dead", "x", "X-Callback-Url", receiver.URL+"/done?id=7"), map[string]string{
		"X-Function-Status": "503", "X-Function-Name": "dead", "X-Retry": "3",
	}, "")
	expect(s.call(t, "large", "x", "X-Callback-Url", receiver.URL+"/done?id=7"), map[string]string{
		"X-Function-Status": "200", "X-Body-Too-Large": "true",
	}, "")
	if n := s.metric(t, `async_callbacks_total{function_name="fn",outcome="delivered"}`); n != 1 {
		t.Errorf("got %v delivered, want 1", n)
	}
}

// A callback that is not taken is tried again by the function's rules, without
// the function running again, and is a dead letter in the end.
func TestCallbackRetries(t *testing.T) {
	g, ran := newStandIn(t), &keep{}
	g.function("fn", quick, ran.ServeHTTP)
	var n atomic.Int32
	var redirected atomic.Bool
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/flaky":
			if n.Add(1) < 3 {
				w.WriteHeader(502)
			}
		case "/never":
			w.WriteHeader(500)
		case "/away":
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		case "/elsewhere":
			redirected.Store(true)
		}
	}))
	defer receiver.Close()
	s := startBoth(t, g, "-callback-allow", "127.0.0.0/8")
	count := func(outcome string) float64 {
		return s.metric(t, `async_callbacks_total{function_name="fn",outcome="`+outcome+`"}`)
	}
	s.call(t, "fn", "x", "X-Callback-Url", receiver.URL+"/flaky")
	within(t, soon, "delivered", func() bool { return count("delivered") == 1 && count("failed") == 2 })
	s.call(t, "fn", "x", "X-Callback-Url", receiver.URL+"/never")
	within(t, soon, "given up", func() bool { return s.metric(t, `async_callbacks_ended_total{function_name="fn",state="dead"}`) == 1 })
	s.call(t, "fn", "x", "X-Callback-Url", receiver.URL+"/away")
	within(t, soon, "given up at once", func() bool { return s.metric(t, `async_callbacks_ended_total{function_name="fn",state="dead"}`) == 2 })
	if redirected.Load() {
		t.Error("a redirect was followed")
	}
	if got := count("failed"); got != 2+4+1 {
		t.Errorf("got %v failed attempts, want 7", got)
	}
	if n := len(ran.all()); n != 3 {
		t.Errorf("the function ran %d times, want 3", n)
	}
}

// Addresses that are not public are refused when connecting: by number, by
// name, and by a name that changes between two look-ups.
func TestCallbackRefused(t *testing.T) {
	g, reached := newStandIn(t), &keep{}
	g.function("fn", quick, func(http.ResponseWriter, *http.Request) {})
	inside := httptest.NewServer(reached)
	defer inside.Close()
	_, port, _ := net.SplitHostPort(inside.Listener.Addr().String())

	s := startBoth(t, g)
	for i, u := range []string{
		"http://127.0.0.1:" + port + "/", "http://169.254.169.254/latest/meta-data/", "http://localhost:" + port + "/",
		"http://[::1]:" + port + "/", "http://[::ffff:127.0.0.1]:" + port + "/", "http://0.0.0.0:" + port + "/",
		g.URL + "/system/functions",
	} {
		s.call(t, "fn", "x", "X-Callback-Url", u)
		within(t, soon, u+" refused", func() bool {
			return s.metric(t, `async_callbacks_total{function_name="fn",outcome="refused"}`) == float64(i+1)
		})
	}
	// Nothing is kept of them: whoever likes could fill the dead letters.
	if n := s.metric(t, `async_callbacks_ended_total{function_name="fn",state="dead"}`); n != 0 {
		t.Errorf("got %v dead letters, want none", n)
	}

	// One name is private; another is at first an address that is allowed (on
	// this machine, too: tests ask nobody else), and then the private one.
	allowed, asked := httptest.NewUnstartedServer(reached), 0
	ln, err := net.Listen("tcp", "127.0.0.2:"+port)
	if err != nil {
		t.Fatal(err)
	}
	allowed.Listener.Close()
	allowed.Listener = ln
	allowed.Config.SetKeepAlivesEnabled(false)
	allowed.Start()
	defer allowed.Close()
	var looks atomic.Int32
	resolver := fakeDNS(t, func(name string) netip.Addr {
		if strings.HasPrefix(name, "rebind.") && looks.Add(1) == 1 {
			return netip.MustParseAddr("127.0.0.2")
		}
		return netip.MustParseAddr("127.0.0.1")
	})
	rules := callbackRules{public: true, gateway: true, prefixes: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}}
	cb := newCallerBack(&config{gateway: mustURL(t, g.URL), callbacks: rules}, s.functions, s.metrics, resolver)
	for _, tt := range []struct {
		host string
		want outcome
	}{{"private.example", forbidden}, {"rebind.example", succeeded}, {"rebind.example", forbidden}} {
		c := &call{id: "x", uid: "x", function: "fn", callback: "http://" + tt.host + ":" + port + "/", header: http.Header{}}
		if res := cb.attempt(t.Context(), c, record{}); res.outcome != tt.want {
			t.Errorf("%s: got %+v, want %v", tt.host, res, tt.want)
		}
		if tt.want == succeeded {
			asked++
		}
	}
	if n := len(reached.all()); n != asked {
		t.Errorf("%d callbacks arrived, want %d", n, asked)
	}
}

// A receiver that is slow is only in the way of its own lane.
func TestCallbackLanes(t *testing.T) {
	lanes := map[string]bool{}
	for _, h := range strings.Split("abcdefghijklmnopqrstuvwxyz", "") {
		lane := callbackLane("https://" + h + ".example/x")
		if lane != callbackLane("https://"+strings.ToUpper(h)+".example:443/another") {
			t.Errorf("%s: got two lanes for one receiver", h)
		}
		lanes[lane] = true
	}
	if len(lanes) < 8 {
		t.Errorf("got %d lanes for 26 receivers, want more", len(lanes))
	}
}

// fakeDNS is a resolver that asks a server of this test.
func fakeDNS(t *testing.T, address func(name string) netip.Addr) *net.Resolver {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		b := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			if a := dnsAnswer(b[:n], address); a != nil {
				conn.WriteTo(a, from)
			}
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

// dnsAnswer answers the one question of a query: with an address, or with
// nothing if it is not for an A record.
func dnsAnswer(query []byte, address func(name string) netip.Addr) []byte {
	if len(query) < 12 {
		return nil
	}
	var name strings.Builder
	i := 12
	for i < len(query) && query[i] != 0 {
		n := int(query[i])
		name.Write(query[i+1 : i+1+n])
		name.WriteByte('.')
		i += n + 1
	}
	question := query[12 : i+5]
	kind := binary.BigEndian.Uint16(query[i+1:])
	answer := append([]byte{query[0], query[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, question...)
	if kind == 1 {
		answer[7] = 1
		ip := address(name.String()).As4()
		answer = append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
		answer = append(answer, ip[:]...)
	}
	return answer
}
