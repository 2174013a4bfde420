package main

import (
	"strings"
	"testing"
	"time"
)

// testLimits are the defaults of the gateway's settings.
func testLimits() scaleLimits {
	return scaleLimits{kind: scaleCapacity, target: 10, min: 1, max: 20, zeroDuration: defaultZeroDuration, factor: defaultScaleFactor}
}

func TestParseScaleLabels(t *testing.T) {
	with := func(change func(s *scaleLimits)) scaleLimits {
		s := testLimits()
		change(&s)
		return s
	}
	tests := []struct {
		name   string
		labels map[string]string
		want   scaleLimits
		errs   []string // what each error must mention
	}{
		{"none", nil, testLimits(), nil},
		{"all", map[string]string{
			labelScaleMin: "2", labelScaleMax: "8", labelScaleType: "rps", labelScaleTarget: "2.5",
			labelScaleZero: "true", labelScaleZeroDuration: "5s", labelScaleFactor: "50",
		}, scaleLimits{kind: scaleRPS, target: 2.5, min: 2, max: 8, zero: true, zeroDuration: 5 * time.Second, factor: 50}, nil},
		{"zero duration in whole seconds", map[string]string{labelScaleZeroDuration: "90"},
			with(func(s *scaleLimits) { s.zeroDuration = 90 * time.Second }), nil},
		{"equal: not scaled", map[string]string{labelScaleMin: "3", labelScaleMax: "3"},
			with(func(s *scaleLimits) { s.min, s.max = 3, 3 }), nil},
		{"white space", map[string]string{labelScaleMin: " 2 "}, with(func(s *scaleLimits) { s.min = 2 }), nil},

		{"not numbers", map[string]string{labelScaleMin: "two", labelScaleMax: "", labelScaleFactor: "20%"}, testLimits(),
			[]string{labelScaleMin + `: got "two"`, labelScaleMax + `: got ""`, labelScaleFactor + `: got "20%"`}},
		{"out of range", map[string]string{labelScaleMin: "-1", labelScaleMax: "1001", labelScaleFactor: "101"}, testLimits(),
			[]string{labelScaleMin, labelScaleMax, labelScaleFactor}},
		{"min above max", map[string]string{labelScaleMin: "9", labelScaleMax: "3"}, testLimits(),
			[]string{labelScaleMin + `: got "9", want at most ` + labelScaleMax + ", which is 3"}},
		{"min above the default max", map[string]string{labelScaleMin: "21"}, testLimits(), []string{`got "21"`}},
		{"max of nothing", map[string]string{labelScaleMax: "0"}, testLimits(), []string{labelScaleMax}},
		{"target 0", map[string]string{labelScaleTarget: "0"}, testLimits(), []string{labelScaleTarget + `: got "0"`}},
		{"negative target", map[string]string{labelScaleTarget: "-4"}, testLimits(), []string{labelScaleTarget}},
		{"target NaN", map[string]string{labelScaleTarget: "NaN"}, testLimits(), []string{labelScaleTarget}},
		{"target infinite", map[string]string{labelScaleTarget: "inf"}, testLimits(), []string{labelScaleTarget}},
		{"unknown type", map[string]string{labelScaleType: "cpu"}, testLimits(), []string{`"cpu", want capacity or rps`}},
		{"negative duration", map[string]string{labelScaleZeroDuration: "-5s"}, testLimits(), []string{labelScaleZeroDuration}},
		{"negative seconds", map[string]string{labelScaleZeroDuration: "-5"}, testLimits(), []string{labelScaleZeroDuration}},
		{"duration of nothing", map[string]string{labelScaleZeroDuration: "0"}, testLimits(), []string{labelScaleZeroDuration}},
		{"more seconds than a duration holds", map[string]string{labelScaleZeroDuration: "9223372036854775807"}, testLimits(),
			[]string{labelScaleZeroDuration}},
		{"zero is no boolean", map[string]string{labelScaleZero: "yes"}, testLimits(), []string{labelScaleZero}},
		{"zero without scaling", map[string]string{labelScaleZero: "true", labelScaleMin: "1", labelScaleMax: "1"},
			with(func(s *scaleLimits) { s.max = 1 }), []string{labelScaleZero}},
		{"a bad label leaves the good ones", map[string]string{labelScaleMax: "5", labelScaleTarget: "many"},
			with(func(s *scaleLimits) { s.max = 5 }), []string{labelScaleTarget}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			get := func(label string) (string, bool) { v, ok := tt.labels[label]; return v, ok }
			got, errs := parseScaleLabels(get, testLimits())
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if len(errs) != len(tt.errs) {
				t.Fatalf("got errors %v, want %d", errs, len(tt.errs))
			}
			for i, err := range errs {
				if !strings.Contains(err.Error(), tt.errs[i]) {
					t.Errorf("error %d: got %q, want %q in it", i, err, tt.errs[i])
				}
			}
		})
	}
}

func TestParseScaleLabelsMaxBelowTheDefaultMin(t *testing.T) {
	defaults := testLimits()
	defaults.min = 3
	labels := map[string]string{labelScaleMax: "2"}
	got, errs := parseScaleLabels(func(l string) (string, bool) { v, ok := labels[l]; return v, ok }, defaults)
	if got != defaults || len(errs) != 1 || !strings.Contains(errs[0].Error(), labelScaleMax) {
		t.Errorf("got %+v and errors %v, want the defaults and one for %s", got, errs, labelScaleMax)
	}
}

// Whatever the labels say, the limits that come out can be scaled by.
func FuzzParseScaleLabels(f *testing.F) {
	f.Add("1", "20", "capacity", "10", "true", "15m", "20")
	f.Add("9", "3", "cpu", "1e400", "yes", "-1", "20%")
	f.Fuzz(func(t *testing.T, low, high, kind, target, zero, duration, factor string) {
		labels := map[string]string{
			labelScaleMin: low, labelScaleMax: high, labelScaleType: kind, labelScaleTarget: target,
			labelScaleZero: zero, labelScaleZeroDuration: duration, labelScaleFactor: factor,
		}
		s, errs := parseScaleLabels(func(l string) (string, bool) { v, ok := labels[l]; return v, ok }, testLimits())
		if s.min < 0 || s.min > s.max || s.max < 1 || s.max > maxScale || !(s.target > 0) || s.target > maxScaleTarget ||
			s.zeroDuration <= 0 || s.factor < 0 || s.factor > 100 || (s.kind != scaleCapacity && s.kind != scaleRPS) {
			t.Errorf("labels %q: got %+v", labels, s)
		}
		if len(errs) > len(labels) {
			t.Errorf("labels %q: got %d errors for %d labels", labels, len(errs), len(labels))
		}
	})
}
