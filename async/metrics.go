package main

// What is counted. Labels only from closed sets: functions that exist or have
// calls, and words of this program.

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

type metrics struct {
	registry *prometheus.Registry

	accepted  *prometheus.CounterVec // function_name
	refused   *prometheus.CounterVec // reason
	fired     *prometheus.CounterVec // function_name
	topics    *prometheus.CounterVec // function_name
	callbacks *prometheus.CounterVec // function_name, outcome

	calls, callBacks *queueMetrics

	dead          prometheus.Gauge
	up            prometheus.Gauge
	diskFree      prometheus.Gauge
	restarts      prometheus.Counter
	labelErrors   prometheus.Counter
	loginFailures prometheus.Counter
}

// queueMetrics are those of one queue, by function.
type queueMetrics struct {
	queued  *prometheus.GaugeVec // by lane
	oldest  *prometheus.GaugeVec // by lane, seconds
	running *prometheus.GaugeVec
	waited  *prometheus.HistogramVec
	retried *prometheus.CounterVec
	putOff  *prometheus.CounterVec
	ended   *prometheus.CounterVec // outcome
}

func newMetrics() *metrics {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewBuildInfoCollector())
	p := promauto.With(r)
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return p.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	gauges := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return p.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	}
	waited := func(name, help string) *prometheus.HistogramVec {
		return p.NewHistogramVec(prometheus.HistogramOpts{
			Name: name, Help: help, Buckets: []float64{.01, .05, .25, 1, 5, 30, 120, 600, 3600, 6 * 3600},
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100,
		}, []string{"function_name"})
	}
	const f = "function_name"
	return &metrics{
		registry:  r,
		accepted:  counters("async_accepted_total", "Calls that got a 202 here.", f),
		refused:   counters("async_refused_total", "Calls that did not, by reason.", "reason"),
		fired:     counters("async_scheduled_total", "Calls made here by a schedule.", f),
		topics:    counters("async_topic_calls_total", "Calls made here by a message of a topic.", f),
		callbacks: counters("async_callbacks_total", "Attempts to deliver a callback, by outcome.", f, "outcome"),
		calls: &queueMetrics{
			queued:  gauges("async_queued", "Calls that are not over; the same in every faas-async.", f),
			oldest:  gauges("async_oldest_seconds", "Age of the oldest of them; the same in every faas-async.", f),
			running: gauges("async_running", "Calls that run from here.", f),
			waited:  waited("async_wait_seconds", "Time from acceptance to the first attempt."),
			retried: counters("async_retried_total", "Attempts that failed and will be repeated.", f),
			putOff:  counters("async_put_off_total", "Attempts that were told to come back later.", f),
			ended:   counters("async_ended_total", "Calls that are over, by state: done, dead, cancelled.", f, "state"),
		},
		callBacks: &queueMetrics{
			queued:  gauges("async_callbacks_queued", "Callbacks that are not over; the same in every faas-async.", "lane"),
			oldest:  gauges("async_callbacks_oldest_seconds", "Age of the oldest of them; the same in every faas-async.", "lane"),
			running: gauges("async_callbacks_running", "Callbacks that are being delivered from here.", f),
			waited:  waited("async_callbacks_wait_seconds", "Time from the call's end to the first attempt to deliver its callback."),
			retried: counters("async_callbacks_retried_total", "Attempts that failed and will be repeated.", f),
			putOff:  counters("async_callbacks_put_off_total", "Attempts that were told to come back later.", f),
			ended:   counters("async_callbacks_ended_total", "Callbacks that are over, by state: done, dead.", f, "state"),
		},
		dead:          p.NewGauge(prometheus.GaugeOpts{Name: "async_dead_letters", Help: "Dead letters; the same in every faas-async."}),
		up:            p.NewGauge(prometheus.GaugeOpts{Name: "async_jetstream_up", Help: "Whether JetStream answers."}),
		diskFree:      p.NewGauge(prometheus.GaugeOpts{Name: "async_disk_free_bytes", Help: "Free space where the embedded server keeps its data."}),
		restarts:      p.NewCounter(prometheus.CounterOpts{Name: "async_engine_restarts_total", Help: "Times that the embedded server was started anew after trouble with its disk."}),
		labelErrors:   p.NewCounter(prometheus.CounterOpts{Name: "async_label_errors_total", Help: "Labels of functions that did not parse."}),
		loginFailures: p.NewCounter(prometheus.CounterOpts{Name: "async_login_failures_total", Help: "Requests with a wrong user or password."}),
	}
}

// forget drops what was counted of a function that is gone.
func (m *metrics) forget(function string) {
	gone := prometheus.Labels{"function_name": function}
	for _, c := range []*prometheus.CounterVec{m.accepted, m.fired, m.topics, m.callbacks} {
		c.DeletePartialMatch(gone)
	}
	for _, q := range []*queueMetrics{m.calls, m.callBacks} {
		q.running.DeletePartialMatch(gone)
		q.waited.DeletePartialMatch(gone)
		for _, c := range []*prometheus.CounterVec{q.retried, q.putOff, q.ended} {
			c.DeletePartialMatch(gone)
		}
	}
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}
