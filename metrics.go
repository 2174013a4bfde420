package main

// The registry of all metrics. Metrics that change per request are resolved once
// per function; gauges are read from the functions at each scrape.

import (
	"net/http"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"faas/internal/alexa"
	"faas/internal/basicauth"
	"faas/internal/peers"
)

type metrics struct {
	registry *prometheus.Registry

	invocations *prometheus.CounterVec   // function_name, code
	started     *prometheus.CounterVec   // function_name
	seconds     *prometheus.HistogramVec // function_name, code
	retries     *prometheus.CounterVec   // function_name
	coldStart   *prometheus.HistogramVec // function_name
	decisions   *prometheus.CounterVec   // function_name, direction, reason

	requests      *prometheus.CounterVec // route
	alexaRefusals *prometheus.CounterVec // reason
	replayChecks  *prometheus.CounterVec // outcome
	wireRefusals  *prometheus.CounterVec // reason
	logins        *prometheus.CounterVec // outcome
	labelErrors   prometheus.Counter
	routeProblems prometheus.Gauge
	providerUp    prometheus.Gauge
	providerSeen  prometheus.Gauge
}

// newMetrics creates every metric. The in-flight, queue and replica gauges are read
// from functions at each scrape.
func newMetrics(functions func() []*function) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	m := &metrics{
		registry:    prometheus.NewRegistry(),
		invocations: counter("gateway_function_invocation_total", "Invocations that ended, by status. 499: the caller went away.", "function_name", "code"),
		started:     counter("gateway_function_invocation_started", "Invocations that began.", "function_name"),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:                           "gateway_functions_seconds",
			Help:                           "Time from the arrival of an invocation to the end of its answer.",
			Buckets:                        []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
			NativeHistogramBucketFactor:    1.1,
			NativeHistogramMaxBucketNumber: 160,
		}, []string{"function_name", "code"}),
		retries: counter("gateway_upstream_retries_total", "Attempts at another replica, or again, after one failed.", "function_name"),
		coldStart: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "gateway_cold_start_seconds",
			Help:    "Time that the first caller waited for a function to have a ready replica.",
			Buckets: []float64{.1, .25, .5, .75, 1, 1.5, 2, 3, 5, 10, 20, 30},
		}, []string{"function_name"}),
		decisions:     counter("gateway_scale_decisions_total", "Changes of the wanted replicas.", "function_name", "direction", "reason"),
		requests:      counter("gateway_requests_total", "Requests by the way that they came in.", "route"),
		alexaRefusals: counter("gateway_alexa_refusals_total", "Alexa requests refused, by the rule that they broke.", "reason"),
		replayChecks:  counter("gateway_alexa_replay_checks_total", "Alexa requests checked for a replay with other gateways, by who decided.", "outcome"),
		wireRefusals:  counter("gateway_wire_refusals_total", "Malformed requests refused, by the rule that they broke.", "reason"),
		logins:        counter("gateway_logins_total", "Requests to /system/ by what became of their credentials.", "outcome"),
		labelErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "gateway_label_errors_total", Help: "Service labels, and routes, intents and skills in them, that cannot be used."}),
		routeProblems: gauge("gateway_route_conflicts", "Routes, intents, skills and names that a function asks for and another one has."),
		providerUp:    gauge("gateway_provider_up", "1 if the last question to the provider was answered."),
		providerSeen:  gauge("gateway_provider_last_success_timestamp_seconds", "When the provider last answered."),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "gateway_build_info", Help: "Always 1.",
		ConstLabels: prometheus.Labels{"version": thisBuild.Version, "revision": thisBuild.Revision, "goversion": runtime.Version()},
	})
	build.Set(1)
	m.registry.MustRegister(m.invocations, m.started, m.seconds, m.retries, m.coldStart, m.decisions,
		m.requests, m.alexaRefusals, m.replayChecks, m.wireRefusals, m.logins, m.labelErrors, m.routeProblems, m.providerUp, m.providerSeen, build,
		functionCollector{functions},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, kind := range entries() {
		m.requests.WithLabelValues(kind)
	}
	for _, outcome := range basicauth.Outcomes {
		m.logins.WithLabelValues(outcome)
	}
	for _, outcome := range []string{peers.ByOwner, peers.Locally, peers.Unreachable} {
		m.replayChecks.WithLabelValues(outcome)
	}
	for _, reason := range alexa.Reasons() {
		m.alexaRefusals.WithLabelValues(reason)
	}
	return m
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{EnableOpenMetrics: true, MaxRequestsInFlight: 4})
}

// login counts a request to the control plane.
func (m *metrics) login(outcome string) { m.logins.WithLabelValues(outcome).Inc() }

// refused counts a malformed request.
func (m *metrics) refused(reason string) { m.wireRefusals.WithLabelValues(reason).Inc() }

// functionMetrics holds the metrics of one function, with its labels resolved.
type functionMetrics struct {
	m       *metrics
	name    string
	started prometheus.Counter
	retries prometheus.Counter
	tally   tally

	mu     sync.Mutex                           // of writers of byCode
	byCode atomic.Pointer[map[int]*codeMetrics] // copied on write
	gone   bool                                 // the function was removed: count nothing new
}

type codeMetrics struct {
	total   prometheus.Counter
	seconds prometheus.Observer
}

func (m *metrics) function(name string) *functionMetrics {
	f := &functionMetrics{m: m, name: name, started: m.started.WithLabelValues(name), retries: m.retries.WithLabelValues(name)}
	f.byCode.Store(&map[int]*codeMetrics{})
	return f
}

// ended counts an invocation that ended with code after d.
func (f *functionMetrics) ended(code int, d time.Duration) {
	c := (*f.byCode.Load())[code]
	if c == nil {
		if c = f.resolve(code); c == nil {
			return
		}
	}
	f.tally.ended(code, d)
	c.total.Inc()
	c.seconds.Observe(d.Seconds())
}

// scaled counts a change of the wanted replicas.
func (f *functionMetrics) scaled(from, to int, reason string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gone {
		return
	}
	direction := "up"
	if to < from {
		direction = "down"
	}
	f.m.decisions.WithLabelValues(f.name, direction, reason).Inc()
}

// waited records a cold start, for which the first caller waited d.
func (f *functionMetrics) waited(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.gone {
		f.m.coldStart.WithLabelValues(f.name).Observe(d.Seconds())
	}
}

func (f *functionMetrics) resolve(code int) *codeMetrics {
	f.mu.Lock()
	defer f.mu.Unlock()
	old := *f.byCode.Load()
	if c := old[code]; c != nil || f.gone {
		return c
	}
	label := strconv.Itoa(code)
	c := &codeMetrics{f.m.invocations.WithLabelValues(f.name, label), f.m.seconds.WithLabelValues(f.name, label)}
	byCode := make(map[int]*codeMetrics, len(old)+1)
	for k, v := range old {
		byCode[k] = v
	}
	byCode[code] = c
	f.byCode.Store(&byCode)
	return c
}

// remove deletes the function's series.
func (f *functionMetrics) remove() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gone = true
	labels := prometheus.Labels{"function_name": f.name}
	for _, v := range []interface {
		DeletePartialMatch(prometheus.Labels) int
	}{f.m.invocations, f.m.started, f.m.seconds, f.m.retries, f.m.coldStart, f.m.decisions} {
		v.DeletePartialMatch(labels)
	}
}

var (
	inflightDesc = prometheus.NewDesc("gateway_function_invocation_inflight", "Invocations under way, those that wait for a replica included.", []string{"function_name"}, nil)
	waitingDesc  = prometheus.NewDesc("gateway_queue_waiting", "Invocations that wait for a replica to become ready.", []string{"function_name"}, nil)
	readyDesc    = prometheus.NewDesc("gateway_service_count", "Replicas that are ready.", []string{"function_name"}, nil)
	troubleDesc  = prometheus.NewDesc("gateway_function_trouble", "1 while the function's replicas keep failing to start and its callers are turned away, else 0.", []string{"function_name"}, nil)
	outlierDesc  = prometheus.NewDesc("gateway_service_outlier_count", "Replicas that get fewer calls, as they fail more than their siblings.", []string{"function_name"}, nil)
	loadDesc     = prometheus.NewDesc("gateway_scale_load", "Invocations under way at all gateways, as decisions on replicas go by.", []string{"function_name"}, nil)
	wantedDesc   = prometheus.NewDesc("gateway_service_target_count", "Replicas that are wanted.", []string{"function_name"}, nil)
)

// functionCollector reads the gauges of the functions that exist.
type functionCollector struct{ functions func() []*function }

func (c functionCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{inflightDesc, waitingDesc, readyDesc, outlierDesc, wantedDesc, troubleDesc, loadDesc} {
		ch <- d
	}
}

func (c functionCollector) Collect(ch chan<- prometheus.Metric) {
	now := sinceEpoch()
	for _, f := range c.functions() {
		inflight, waiting := f.admission.counts()
		failing := 0
		if f.admission.failing() {
			failing = 1
		}
		for _, v := range []struct {
			desc  *prometheus.Desc
			value int
		}{{inflightDesc, inflight}, {waitingDesc, waiting}, {readyDesc, f.balancer.ready()}, {outlierDesc, f.balancer.outliers()}, {wantedDesc, f.def.Load().replicas}, {troubleDesc, failing}, {loadDesc, f.Totals(now).InFlight}} {
			ch <- prometheus.MustNewConstMetric(v.desc, prometheus.GaugeValue, float64(v.value), f.name)
		}
	}
}

var (
	peersDesc    = prometheus.NewDesc("gateway_peers", "Other gateways that answered within the last second.", nil, nil)
	expectedDesc = prometheus.NewDesc("gateway_peers_expected", "Other gateways that DNS names.", nil, nil)
	ageDesc      = prometheus.NewDesc("gateway_peer_answer_age_seconds", "Age of the oldest of the last answers of other gateways that are heard; 0: none is.", nil, nil)
	actingDesc   = prometheus.NewDesc("gateway_acting", "1 if this gateway scales functions by their load, 0 if another one does.", nil, nil)
)

// gatewaysCollector reads what is known of other gateways; book is nil where this one
// is alone.
type gatewaysCollector struct{ book *peers.Book }

func (c gatewaysCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{peersDesc, expectedDesc, ageDesc, actingDesc} {
		ch <- d
	}
}

func (c gatewaysCollector) Collect(ch chan<- prometheus.Metric) {
	s := peers.Status{Acting: true}
	if c.book != nil {
		s = c.book.Status(sinceEpoch())
	}
	acting := 0.0
	if s.Acting {
		acting = 1
	}
	ch <- prometheus.MustNewConstMetric(peersDesc, prometheus.GaugeValue, float64(s.Heard))
	ch <- prometheus.MustNewConstMetric(expectedDesc, prometheus.GaugeValue, float64(s.Expected))
	ch <- prometheus.MustNewConstMetric(ageDesc, prometheus.GaugeValue, s.Age.Seconds())
	ch <- prometheus.MustNewConstMetric(actingDesc, prometheus.GaugeValue, acting)
}
