package main

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestRetryLabels(t *testing.T) {
	def := defaultRetryRules()
	for _, tt := range []struct {
		name    string
		labels  map[string]string
		want    retryRules
		problem string
	}{
		{"none", nil, def, ""},
		{"all", map[string]string{labelAttempts: "3", labelCodes: "500, 502", labelMinWait: "1s", labelMaxWait: "1m"}, retryRules{3, []int{500, 502}, time.Second, time.Minute}, ""},
		{"no codes", map[string]string{labelCodes: ""}, retryRules{def.attempts, nil, def.minWait, def.maxWait}, ""},
		{"attempts 0", map[string]string{labelAttempts: "0"}, def, "from 1 to 1000"},
		{"attempts as text", map[string]string{labelAttempts: "many"}, def, "from 1 to 1000"},
		{"a code that is none", map[string]string{labelCodes: "500,99"}, def, "list of statuses"},
		{"a wait without unit", map[string]string{labelMinWait: "5"}, def, "not a duration"},
		{"a negative wait", map[string]string{labelMaxWait: "-5s"}, def, "not a duration"},
		{"a short longest wait", map[string]string{labelMaxWait: "5s"}, retryRules{def.attempts, def.codes, 5 * time.Second, 5 * time.Second}, ""},
		{"a long first wait", map[string]string{labelMinWait: "5m"}, retryRules{def.attempts, def.codes, 5 * time.Minute, 5 * time.Minute}, ""},
		{"the wrong way round", map[string]string{labelMinWait: "5m", labelMaxWait: "1m"}, def, "more than the longest wait"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFunction("f", tt.labels, nil)
			if got := f.rules; got.attempts != tt.want.attempts || !slices.Equal(got.codes, tt.want.codes) || got.minWait != tt.want.minWait || got.maxWait != tt.want.maxWait {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if got := strings.Join(f.problems, "; "); (got == "") != (tt.problem == "") || !strings.Contains(got, tt.problem) {
				t.Errorf("got problem %q, want %q", got, tt.problem)
			}
		})
	}
	// OpenFaaS has them as annotations.
	if f := newFunction("f", map[string]string{labelAttempts: "2"}, map[string]string{labelAttempts: "3", labelMinWait: "1s"}); f.rules.attempts != 2 || f.rules.minWait != time.Second {
		t.Errorf("got %+v, want the label's attempts and the annotation's wait", f.rules)
	}
}

func TestBackOff(t *testing.T) {
	const least, most = 10 * time.Second, 2 * time.Minute
	previous := time.Duration(0)
	for n := 1; n < 100; n++ {
		low, high := time.Duration(1<<62), time.Duration(0)
		for range 200 {
			d := backOff(n, least, most)
			low, high = min(low, d), max(high, d)
		}
		if low < least || high > most || low < previous {
			t.Fatalf("attempt %d: got %s to %s, want it within %s and %s and not below the one before", n, low, high, least, most)
		}
		if high-low < high/10 {
			t.Errorf("attempt %d: got %s to %s, want more chance in it", n, low, high)
		}
		previous = min(low, most*3/4)
	}
	if d := backOff(5, time.Second, time.Second); d != time.Second {
		t.Errorf("got %s, want 1s", d)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": -1, "7": 7 * time.Second, "0": 0, "-1": -1, "soon": -1, "99999999999": -1,
		"Fri, 02 Jan 2026 03:04:35 GMT": 30 * time.Second, "Fri, 02 Jan 2026 03:00:00 GMT": 0,
	} {
		got, ok := retryAfter(http.Header{"Retry-After": {value}}, now)
		if !ok {
			got = -1
		}
		if got != want {
			t.Errorf("%q: got %s, want %s", value, got, want)
		}
	}
	for _, tt := range []struct {
		value     string
		low, high time.Duration
	}{{"30", 30 * time.Second, 38 * time.Second}, {"0", time.Second, 2 * time.Second}, {"999999", time.Hour, time.Hour}} {
		if d := putOff(0, http.Header{"Retry-After": {tt.value}}, now); d < tt.low || d > tt.high {
			t.Errorf("Retry-After %s: got %s, want %s to %s", tt.value, d, tt.low, tt.high)
		}
	}
}
