package main

// Labels of functions without Docker, by the flag -label.

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"faas/internal/deployment"
	"faas/internal/scale"
)

func TestLabelsOfLocalFunctions(t *testing.T) {
	c, err := parseConfig([]string{
		"-samples=false",
		"-function", "shop=cat", "-function", "plain=cat", "-function", "hidden=cat", "-function", "far=http://127.0.0.1:1",
		"-route", "/first=shop",
		"-label", "shop:faas.route=POST /orders/{id}, /b=c", "-label", "shop:com.openfaas.function=orders",
		"-label", "shop:faas.timeout=5m", "-label", "shop:faas.timeout=4m", // the later one counts
		"-label", "shop:faas.max-inflight=3", "-label", "shop:faas.alexa.intent=Order,Cancel",
		"-label", "shop:faas.alexa.application=skill", "-label", "shop:com.openfaas.scale.min=2",
		"-label", "shop:com.openfaas.scale.max=7", "-label", "shop:com.openfaas.scale.zero=true",
		"-label", "hidden:faas.function=false", "-label", "far:faas.timeout=1s",
	}, env(), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	p := newLocal(c.functions, c.defaults(), slog.New(slog.DiscardHandler))
	got, _ := p.list(t.Context())
	function := func(name string, change func(*definition)) definition {
		d := c.defaults()
		d.name, d.service = name, name
		change(&d)
		return d
	}
	want := []definition{
		function("orders", func(d *definition) {
			d.service = "shop"
			d.claim(labelRoute, []string{"/first", "POST /orders/{id}", "/b=c"})
			d.timeout, d.maxInflight = 4*time.Minute, 3
			d.claim(labelIntent, []string{"Order", "Cancel"})
			d.claim(labelApplication, []string{"skill"})
			d.scale.Min, d.scale.Max, d.scale.Zero = 2, 7, true
		}),
		function("plain", func(*definition) {}),
		function("far", func(d *definition) { d.timeout, d.scale.Fixed, d.replicas = time.Second, true, 1 }),
	}
	for i := range got {
		got[i].created = time.Time{}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	// What runs it has as long as its callers.
	limits := []time.Duration{c.functions[0].watchdog.ExecTimeout, c.functions[1].watchdog.ExecTimeout}
	if want := []time.Duration{4 * time.Minute, time.Minute}; !slices.Equal(limits, want) {
		t.Errorf("got limits %v of the watchdogs, want %v", limits, want)
	}
}

func TestBadLabelsOfLocalFunctions(t *testing.T) {
	for _, c := range []struct{ label, want string }{
		{"f", `-label: "f": want name:label=value`},
		{"f:faas.route", `-label: "f:faas.route": want name:label=value`},
		{"f:faas.rout=/x", `-label: there is no label "faas.rout"; there are faas.function, `},
		{"f:faas.port=80", "-label: faas.port: a replica has its port from its address"},
		{"g:faas.timeout=1s", `-label: there is no function "g"`},
		{"f:faas.timeout=soon", `-label: f:faas.timeout: got "soon", want a duration above 0 such as 90s`},
		{"f:com.openfaas.scale.min=30", `-label: f:com.openfaas.scale.min: got "30", want at most the maximum, which is 20 by default`},
		{"f:com.openfaas.scale.max=101", "-label: f:com.openfaas.scale.max: 101 is more than 100, the most with -provider local"},
	} {
		_, err := parseConfig([]string{"-function", "f=cat", "-label", c.label}, env(), io.Discard)
		if err == nil || !strings.HasPrefix(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want one error, %s", c.label, err, c.want)
		}
	}
	_, err := parseConfig([]string{"-provider=swarm", "-label", "f:faas.timeout=1s"}, env(), io.Discard)
	if err == nil || !strings.Contains(err.Error(), "only with -provider local") {
		t.Errorf("on a Swarm: got %v, want an error", err)
	}
}

// Through the program: the name, a route and the limit of a label are the
// function's.
func TestLabelsOfALocalFunctionHold(t *testing.T) {
	p := startProgram(t, "-samples=false", "-function", "nap=sleep 60",
		"-label", "nap:faas.timeout=50ms", "-label", "nap:faas.route=/rest", "-label", "nap:com.openfaas.function=pause")
	awaitReady(t, "http://"+p.addr, "pause")
	for path, want := range map[string]int{"/function/pause": 504, "/rest": 504, "/function/nap": 404} {
		resp, err := http.Get("http://" + p.addr + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: got %d, want %d", path, resp.StatusCode, want)
		}
	}
}

// A renamed function is scaled under its own name.
func TestALocalFunctionWithANameByLabelIsScaled(t *testing.T) {
	c, err := parseConfig([]string{"-samples=false", "-function", "f=cat", "-label", "f:com.openfaas.function=g"}, env("PATH", "/usr/bin:/bin"), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	p := newLocal(c.functions, c.defaults(), slog.New(slog.DiscardHandler))
	t.Cleanup(p.close)
	r, _ := newTestRegistry(p, nil)
	if err := r.load(t.Context()); err != nil {
		t.Fatal(err)
	}
	f := r.function("g")
	if f == nil {
		t.Fatal("got no function g")
	}
	if err := r.Scale(t.Context(), f.State(), func(int) int { return 2 }); err != nil {
		t.Fatal(err)
	}
	if addrs, err := p.addresses(t.Context(), f.definition()); err != nil || len(addrs) != 2 {
		t.Errorf("got %v, %v, want two addresses", addrs, err)
	}
	other := f.State()
	other.Service = "another"
	if err := r.Scale(t.Context(), other, func(int) int { return 1 }); !strings.Contains(err.Error(), scale.ErrNotFound.Error()) {
		t.Errorf("another of that name: got %v, want it not found", err)
	}
}

// What labels say to other programs is in the list of functions.
func TestLabelsOfLocalFunctionsAreListed(t *testing.T) {
	args := []string{
		"-provider", "local", "-samples=false", "-auth-dir", t.TempDir(), "-function", "f=cat",
		"-label", "f:com.openfaas.function=shop", "-label", "f:faas.schedule=*/5 * * * *", "-label", "f:topic=orders", "-label", "f:com.openfaas.retry.attempts=3",
	}
	c, err := parseConfig(args, env(), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	p := newLocal(c.functions, c.defaults(), slog.New(slog.DiscardHandler))
	t.Cleanup(p.close)
	base := startGateway(t, p, args...)
	resp, body := call(t, "GET", base+"/system/functions", "")
	var list []deployment.Status
	if err := json.Unmarshal([]byte(body), &list); err != nil || len(list) != 1 {
		t.Fatalf("got %d, %q (%v), want one function", resp.StatusCode, body, err)
	}
	want := map[string]string{
		"faas_function": "shop", labelName: "shop",
		"faas.schedule": "*/5 * * * *", "topic": "orders", "com.openfaas.retry.attempts": "3",
	}
	if !reflect.DeepEqual(list[0].Labels, want) {
		t.Errorf("got labels %v, want %v", list[0].Labels, want)
	}
	// The name that the label gives is the one by which its log is asked for.
	if resp, body := call(t, "GET", base+"/system/logs?name=shop&follow=false", ""); resp.StatusCode != http.StatusOK {
		t.Errorf("logs: got %d, %q, want 200", resp.StatusCode, body)
	}
}
