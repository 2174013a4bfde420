package main

import (
	"bufio"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"faas/internal/scale"
)

// exposedNames maps each metric of the gateway's own in a text exposition to
// the names of its labels, in order.
func exposedNames(text string) map[string]string {
	names := map[string]string{}
	sample := regexp.MustCompile(`^(gateway_[a-z_]+)(?:\{(.*)\})? `)
	label := regexp.MustCompile(`([a-z_]+)="`)
	for line := range strings.Lines(text) {
		m := sample.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		var labels []string
		for _, l := range label.FindAllStringSubmatch(m[2], -1) {
			if l[1] != "le" {
				labels = append(labels, l[1])
			}
		}
		for _, suffix := range []string{"_bucket", "_sum"} {
			m[1] = strings.TrimSuffix(m[1], suffix)
		}
		if base, ok := strings.CutSuffix(m[1], "_count"); ok && !strings.HasPrefix(m[1], "gateway_service_") {
			m[1] = base
		}
		names[m[1]] = strings.Join(labels, ",")
	}
	return names
}

// What users build dashboards on: names and labels.
func TestMetricsAreThoseThatWerePromised(t *testing.T) {
	p := newMemoryProvider()
	p.set("echo", nil, startReplica(t, echoReplica))
	p.set("cold", func(d *definition) { d.scale.Min, d.scale.Max = 0, 5 })
	p.scaled = func(d definition, _ int) { p.setAddrs(d.name, p.addrs["echo"]...) }
	base := startGateway(t, p)
	call(t, "GET", base+"/function/echo", "")
	call(t, "GET", base+"/function/cold", "")
	c := dialRaw(t, base)
	c.send("GET / HTTP/1.1\nHost: x\n\n")
	c.receive("GET")
	waitForMetric(t, base, `gateway_scale_decisions_total{direction="up",function_name="cold",reason="wake"} 1`)
	_, text := call(t, "GET", base+"/metrics/", "")
	want := map[string]string{
		"gateway_function_invocation_total":               "code,function_name",
		"gateway_function_invocation_started":             "function_name",
		"gateway_functions_seconds":                       "code,function_name",
		"gateway_function_invocation_inflight":            "function_name",
		"gateway_service_count":                           "function_name",
		"gateway_service_target_count":                    "function_name",
		"gateway_function_trouble":                        "function_name",
		"gateway_service_outlier_count":                   "function_name",
		"gateway_requests_total":                          "route",
		"gateway_upstream_retries_total":                  "function_name",
		"gateway_cold_start_seconds":                      "function_name",
		"gateway_scale_decisions_total":                   "direction,function_name,reason",
		"gateway_queue_waiting":                           "function_name",
		"gateway_logins_total":                            "outcome",
		"gateway_alexa_refusals_total":                    "reason",
		"gateway_wire_refusals_total":                     "reason",
		"gateway_label_errors_total":                      "",
		"gateway_route_conflicts":                         "",
		"gateway_provider_up":                             "",
		"gateway_provider_last_success_timestamp_seconds": "",
		"gateway_alexa_replay_checks_total":               "outcome",
		"gateway_scale_load":                              "function_name",
		"gateway_peers":                                   "",
		"gateway_peers_expected":                          "",
		"gateway_peer_answer_age_seconds":                 "",
		"gateway_acting":                                  "",
		"gateway_build_info":                              "goversion,revision,version",
	}
	got := exposedNames(text)
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if labels, ok := got[name]; !ok || labels != want[name] {
			t.Errorf("%s: got labels %q, there: %v, want %q", name, labels, ok, want[name])
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s is exposed and not in the list here", name)
		}
	}
	for _, other := range []string{"go_goroutines", "process_resident_memory_bytes"} {
		if !strings.Contains(text, "\n"+other+" ") {
			t.Errorf("%s is missing", other)
		}
	}
}

// Nothing that a caller makes up becomes a label.
func TestLabelsComeFromClosedSets(t *testing.T) {
	p := newMemoryProvider()
	p.set("echo", nil, startReplica(t, echoReplica))
	base := startGateway(t, p)
	for i := range 20 {
		call(t, "GET", fmt.Sprintf("%s/function/made-up-%d", base, i), "")
		call(t, "GET", base+"/", "", "X-Function", fmt.Sprint("made-up-", i))
		call(t, "POST", base+"/", skillRequest("IntentRequest", fmt.Sprint("made-up-", i), "made-up"))
		call(t, fmt.Sprint("MADEUP", i), base+"/function/echo/made-up", "", "X-Call-Id", "made-up", "User-Agent", "made-up")
	}
	_, text := call(t, "GET", base+"/metrics", "")
	if strings.Contains(strings.ToLower(text), "made-up") || strings.Contains(text, "MADEUP") {
		t.Error("what a caller made up is in the metrics")
	}
	for kind, want := range map[string]int{"function": 40, "header": 20, "alexa": 20, "custom": 0, "system": 1, "none": 0} {
		if line := fmt.Sprintf("gateway_requests_total{route=%q} %d\n", kind, want); !strings.Contains(text, line) {
			t.Errorf("metrics lack %s", line)
		}
	}
}

func TestMetricsOfARemovedFunctionVanish(t *testing.T) {
	p := newMemoryProvider()
	p.set("f", nil, "10.0.0.1:8080")
	p.set("g", nil)
	r, _ := newTestRegistry(p, accepts)
	mustLoad(t, r)
	f := r.function("f")
	r.scaled("f", 0, 1, "wake")
	f.metrics.ended(200, time.Second)
	f.metrics.waited(time.Second)
	if !strings.Contains(exposed(r.metrics), `function_name="f"`) {
		t.Fatal("no metrics of the function")
	}
	p.remove("f")
	mustLoad(t, r)
	// What is still in flight, and an update that ends late.
	f.metrics.ended(200, time.Second)
	f.metrics.ended(504, time.Second)
	f.metrics.started.Inc()
	f.metrics.waited(time.Second)
	r.scaled("f", 1, 0, "idle")
	text := exposed(r.metrics)
	if strings.Contains(text, `function_name="f"`) {
		t.Error("a removed function has metrics")
	}
	if !strings.Contains(text, `function_name="g"`) {
		t.Error("the other function has none")
	}
	p.set("f", nil)
	mustLoad(t, r)
	r.function("f").metrics.ended(200, time.Second)
	if text := exposed(r.metrics); !strings.Contains(text, `gateway_function_invocation_total{code="200",function_name="f"} 1`) {
		t.Error("a function that came back does not count from 1")
	}
}

// Prometheus gets the native histogram when it asks for protobuf.
func TestTheNativeHistogramIsExposed(t *testing.T) {
	r := manyFunctions(t, 1)
	r.function("f0").metrics.ended(200, 123*time.Millisecond)
	req := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	req.Header.Set("Accept", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text")
	w := httptest.NewRecorder()
	r.metrics.handler().ServeHTTP(w, req)
	inside := false
	var native bool
	for lines := bufio.NewScanner(w.Body); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "name:") {
			inside = strings.Contains(lines.Text(), `"gateway_functions_seconds"`)
		}
		native = native || inside && strings.Contains(lines.Text(), "positive_span")
	}
	if !native {
		t.Error("gateway_functions_seconds has no native buckets")
	}
}

// manyFunctions makes a registry of n functions with a replica each, f0 first.
func manyFunctions(t testing.TB, n int) *registry {
	t.Helper()
	p := newMemoryProvider()
	defs := make([]definition, n)
	for i := range defs {
		defs[i] = definition{name: fmt.Sprint("f", i), service: fmt.Sprint("f", i), port: 8080, timeout: time.Minute, replicas: 1,
			created: time.Unix(int64(i), 0), scale: scale.Limits{Kind: scale.Capacity, Target: 10, Min: 1, Max: 20}}
	}
	p.defs = defs
	r, _ := newTestRegistry(p, accepts)
	if err := r.load(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, f := range r.functions() {
		f.balancer.update([]string{fmt.Sprintf("10.0.%d.%d:8080", i/250, i%250)})
		f.refreshed.Store(time.Now().Add(time.Hour).UnixNano())
	}
	return r
}

func TestALookupAllocatesNothing(t *testing.T) {
	r := manyFunctions(t, 1000)
	allocs := testing.AllocsPerRun(1000, func() {
		if r.function("f777") == nil || r.function("f1000") != nil {
			t.Error("wrong function")
		}
	})
	if allocs != 0 {
		t.Errorf("got %v allocations, want none", allocs)
	}
}
