package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"faas/internal/scale"
)

// defaultLimits are the defaults of the gateway's settings.
func defaultLimits() scale.Limits {
	return scale.Limits{Kind: scale.Capacity, Target: 10, Min: 1, Max: 20, ZeroDuration: defaultZeroDuration, Factor: defaultScaleFactor}
}

// parseScaleLabels returns what labels say of scaling.
func parseScaleLabels(labels map[string]string, defaults scale.Limits) (scale.Limits, []labelProblem) {
	d, problems := parseLabels(labels, definition{scale: defaults})
	return d.scale, problems
}

func TestParseScaleLabels(t *testing.T) {
	with := func(change func(s *scale.Limits)) scale.Limits {
		s := defaultLimits()
		change(&s)
		return s
	}
	tests := []struct {
		name   string
		labels map[string]string
		want   scale.Limits
		errs   []string // what each error must mention
	}{
		{"none", nil, defaultLimits(), nil},
		{"all", map[string]string{
			labelScaleMin: "2", labelScaleMax: "8", "com.openfaas.scale.type": "rps", "com.openfaas.scale.target": "2.5",
			labelScaleZero: "true", "com.openfaas.scale.zero-duration": "5s", "com.openfaas.scale.factor": "50",
		}, scale.Limits{Kind: scale.RPS, Target: 2.5, Min: 2, Max: 8, Zero: true, ZeroDuration: 5 * time.Second, Factor: 50}, nil},
		{"zero duration in whole seconds", map[string]string{"com.openfaas.scale.zero-duration": "90"},
			with(func(s *scale.Limits) { s.ZeroDuration = 90 * time.Second }), nil},
		{"equal: not scaled", map[string]string{labelScaleMin: "3", labelScaleMax: "3"},
			with(func(s *scale.Limits) { s.Min, s.Max = 3, 3 }), nil},
		{"white space", map[string]string{labelScaleMin: " 2 "}, with(func(s *scale.Limits) { s.Min = 2 }), nil},

		{"not numbers", map[string]string{labelScaleMin: "two", labelScaleMax: "", "com.openfaas.scale.factor": "20%"}, defaultLimits(),
			[]string{labelScaleMin + `: got "two"`, labelScaleMax + `: got ""`, "com.openfaas.scale.factor" + `: got "20%"`}},
		{"out of range", map[string]string{labelScaleMin: "-1", labelScaleMax: "1001", "com.openfaas.scale.factor": "101"}, defaultLimits(),
			[]string{labelScaleMin, labelScaleMax, "com.openfaas.scale.factor"}},
		{"min above max", map[string]string{labelScaleMin: "9", labelScaleMax: "3"}, defaultLimits(),
			[]string{labelScaleMin + `: got "9", want at most ` + labelScaleMax + ", which is 3"}},
		{"min above the default max", map[string]string{labelScaleMin: "21"}, defaultLimits(), []string{`got "21"`}},
		{"max of nothing", map[string]string{labelScaleMax: "0"}, defaultLimits(), []string{labelScaleMax}},
		{"target 0", map[string]string{"com.openfaas.scale.target": "0"}, defaultLimits(), []string{"com.openfaas.scale.target" + `: got "0"`}},
		{"negative target", map[string]string{"com.openfaas.scale.target": "-4"}, defaultLimits(), []string{"com.openfaas.scale.target"}},
		{"target NaN", map[string]string{"com.openfaas.scale.target": "NaN"}, defaultLimits(), []string{"com.openfaas.scale.target"}},
		{"target infinite", map[string]string{"com.openfaas.scale.target": "inf"}, defaultLimits(), []string{"com.openfaas.scale.target"}},
		{"unknown type", map[string]string{"com.openfaas.scale.type": "cpu"}, defaultLimits(), []string{`"cpu", want capacity or rps`}},
		{"negative duration", map[string]string{"com.openfaas.scale.zero-duration": "-5s"}, defaultLimits(), []string{"com.openfaas.scale.zero-duration"}},
		{"negative seconds", map[string]string{"com.openfaas.scale.zero-duration": "-5"}, defaultLimits(), []string{"com.openfaas.scale.zero-duration"}},
		{"duration of nothing", map[string]string{"com.openfaas.scale.zero-duration": "0"}, defaultLimits(), []string{"com.openfaas.scale.zero-duration"}},
		{"more seconds than a duration holds", map[string]string{"com.openfaas.scale.zero-duration": "9223372036854775807"}, defaultLimits(),
			[]string{"com.openfaas.scale.zero-duration"}},
		{"zero is no boolean", map[string]string{labelScaleZero: "yes"}, defaultLimits(), []string{labelScaleZero}},
		{"zero without scaling", map[string]string{labelScaleZero: "true", labelScaleMin: "1", labelScaleMax: "1"},
			with(func(s *scale.Limits) { s.Max = 1 }), []string{labelScaleZero}},
		{"a bad label leaves the good ones", map[string]string{labelScaleMax: "5", "com.openfaas.scale.target": "many"},
			with(func(s *scale.Limits) { s.Max = 5 }), []string{"com.openfaas.scale.target"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, errs := parseScaleLabels(tt.labels, defaultLimits())
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if len(errs) != len(tt.errs) {
				t.Fatalf("got errors %v, want %d", errs, len(tt.errs))
			}
			for i, err := range errs {
				if !strings.Contains(err.String(), tt.errs[i]) {
					t.Errorf("error %d: got %q, want %q in it", i, err, tt.errs[i])
				}
			}
		})
	}
}

func TestParseScaleLabelsMaxBelowTheDefaultMin(t *testing.T) {
	defaults := defaultLimits()
	defaults.Min = 3
	labels := map[string]string{labelScaleMax: "2"}
	got, errs := parseScaleLabels(labels, defaults)
	if got != defaults || len(errs) != 1 || !strings.Contains(errs[0].String(), labelScaleMax) {
		t.Errorf("got %+v and errors %v, want the defaults and one for %s", got, errs, labelScaleMax)
	}
}

// Whatever the labels say, the limits that come out can be scaled by.
func FuzzParseScaleLabels(f *testing.F) {
	f.Add("1", "20", "capacity", "10", "true", "15m", "20")
	f.Add("9", "3", "cpu", "1e400", "yes", "-1", "20%")
	f.Fuzz(func(t *testing.T, low, high, kind, target, zero, duration, factor string) {
		labels := map[string]string{
			labelScaleMin: low, labelScaleMax: high, "com.openfaas.scale.type": kind, "com.openfaas.scale.target": target,
			labelScaleZero: zero, "com.openfaas.scale.zero-duration": duration, "com.openfaas.scale.factor": factor,
		}
		s, errs := parseScaleLabels(labels, defaultLimits())
		if s.Min < 0 || s.Min > s.Max || s.Max < 1 || s.Max > scale.MaxReplicas || !(s.Target > 0) || s.Target > maxScaleTarget ||
			s.ZeroDuration <= 0 || s.Factor < 0 || s.Factor > 100 || (s.Kind != scale.Capacity && s.Kind != scale.RPS) {
			t.Errorf("labels %q: got %+v", labels, s)
		}
		if len(errs) > len(labels) {
			t.Errorf("labels %q: got %d errors for %d labels", labels, len(errs), len(labels))
		}
	})
}

// The page that lists the labels has what the gateway has.
func TestLabelsAreDocumented(t *testing.T) {
	var table strings.Builder
	table.WriteString("| label | default | meaning |\n| --- | --- | --- |\n")
	for _, l := range labels {
		fmt.Fprintf(&table, "| `%s` | %s | %s |\n", l.name, l.def, l.meaning)
	}
	page, err := os.ReadFile(filepath.Join("docs", "functions.md"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), "\n\n"+table.String()+"\n") {
		t.Errorf("docs/functions.md lacks this table:\n%s", table.String())
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range labels {
		short := l.name
		if i := strings.LastIndexByte(short, '.'); strings.HasPrefix(short, "com.openfaas.scale.") {
			short = short[i:]
		}
		if text := string(readme); !strings.Contains(text, "`"+l.name+"`") && !strings.Contains(text, "`"+short+"`") {
			t.Errorf("README.md lacks %s", l.name)
		}
	}
}
