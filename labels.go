package main

// The labels of functions: on Swarm those of the service, without Docker those of
// the flag -label. docs/functions.md has the same table.

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"faas/internal/deployment"
	"faas/internal/naming"
	"faas/internal/scale"
	"faas/internal/settings"
)

const (
	labelFunction = deployment.LabelFunction
	labelPort     = "faas.port"
	labelName     = deployment.LabelName
	labelTimeout  = deployment.LabelTimeout

	labelScaleMin  = "com.openfaas.scale.min"
	labelScaleMax  = "com.openfaas.scale.max"
	labelScaleZero = "com.openfaas.scale.zero"
)

const (
	maxScaleTarget  = 1e6
	maxZeroDuration = 30 * 24 * time.Hour

	defaultZeroDuration = 15 * time.Minute
	defaultScaleFactor  = 20 // percent
)

// A label describes one label of functions.
type label struct {
	name    string
	def     string // what holds without it, as the documentation says it
	meaning string // likewise
	want    string // what a value may be, as messages say it

	// set stores a trimmed value in d. It reports whether the value is valid, and
	// changes nothing if it is not.
	set func(d *definition, value string) bool
}

// labels are all labels of a function, in the order in which problems are reported.
// It is never written to.
var labels = func() []label {
	all := slices.Clone(functionLabels)
	for _, k := range routeKinds {
		all = append(all, k.labels...)
	}
	return append(all, scaleLabels...)
}()

// functionLabels say what a function is and how it is called. Routing labels are in
// the files of the route kinds.
var functionLabels = []label{
	{labelFunction, "`true`", "`false`: this is no function", "true or false",
		func(_ *definition, v string) bool { return parsedBool(v, new(bool)) }},
	{labelName, "the service's name", "its name",
		"a name: a letter or digit, then letters, digits and ._-, 63 at most", func(d *definition, v string) bool {
			good := naming.IsFunction(v)
			if good {
				d.name = v
			}
			return good
		}},
	{labelPort, "8080", "where it listens; not without Docker", "a port from 1 to 65535",
		func(d *definition, v string) bool { return parsedWithin(v, 1, 65535, &d.port) }},
	{labelTimeout, "`60s` (`-upstream-timeout`)", "longest call", "a duration above 0 such as 90s",
		func(d *definition, v string) bool {
			t, err := settings.ParseDuration(v)
			if err != nil || t == 0 {
				return false
			}
			d.timeout = t
			return true
		}},
	{"faas.max-inflight", "none (`-max-inflight`)", "calls at once over all replicas", "a whole number, 0 for no limit",
		func(d *definition, v string) bool { return parsedWithin(v, 0, math.MaxInt, &d.maxInflight) }},
}

// scaleLabels say how a function scales.
var scaleLabels = []label{
	{labelScaleMin, "1 (`-scale-min`)", "fewest replicas while in use; 0 is as 1", fmt.Sprintf("a whole number from 0 to %d", scale.MaxReplicas),
		func(d *definition, v string) bool { return parsedWithin(v, 0, scale.MaxReplicas, &d.scale.Min) }},
	{labelScaleMax, "20 (`-scale-max`)", "most replicas; equal to the minimum: not scaled", fmt.Sprintf("a whole number from 1 to %d", scale.MaxReplicas),
		func(d *definition, v string) bool { return parsedWithin(v, 1, scale.MaxReplicas, &d.scale.Max) }},
	{"com.openfaas.scale.type", "`capacity` (`-scale-type`)", "what load is: calls in flight (`capacity`), or started per second (`rps`)", scale.Capacity + " or " + scale.RPS,
		func(d *definition, v string) bool {
			good := v == scale.Capacity || v == scale.RPS
			if good {
				d.scale.Kind = v
			}
			return good
		}},
	{"com.openfaas.scale.target", "10 (`-scale-target`)", "load that one replica takes", "a number above 0, at most a million",
		func(d *definition, v string) bool {
			target, err := strconv.ParseFloat(v, 64)
			if err != nil || math.IsNaN(target) || target <= 0 || target > maxScaleTarget {
				return false
			}
			d.scale.Target = target
			return true
		}},
	{labelScaleZero, "`false`", "`true`: to no replica after idling for the zero duration; the next call waits for one", "true or false",
		func(d *definition, v string) bool { return parsedBool(v, &d.scale.Zero) }},
	{"com.openfaas.scale.zero-duration", "`15m`", "how long it idles before that", "a duration such as 90s or 15m, or whole seconds, above 0, at most 720h",
		func(d *definition, v string) bool {
			t, err := settings.ParseDuration(v)
			if err != nil || t == 0 || t > maxZeroDuration {
				return false
			}
			d.scale.ZeroDuration = t
			return true
		}},
	{"com.openfaas.scale.factor", "20", "percent of the maximum per step of `/system/alert`; 0: not scaled", "a whole number from 0 to 100",
		func(d *definition, v string) bool { return parsedWithin(v, 0, 100, &d.scale.Factor) }},
}

// A labelProblem says what is wrong with the value of one label.
type labelProblem struct{ label, text string }

func (p labelProblem) String() string {
	return fmt.Sprintf("label %s: %s; the default holds", p.label, p.text)
}

// parseLabels returns d changed by values, which are keyed by label, and the
// problems found: an invalid value leaves d's in place. Unknown labels are ignored.
// d itself must be valid.
func parseLabels(values map[string]string, d definition) (definition, []labelProblem) {
	defaults := d.scale
	good := map[string]bool{}
	var problems []labelProblem
	bad := func(label, value, want string) {
		problems = append(problems, labelProblem{label, fmt.Sprintf("got %q, want %s", value, want)})
	}
	for _, l := range labels {
		value, ok := values[l.name]
		if !ok {
			continue
		}
		if good[l.name] = l.set(&d, strings.TrimSpace(value)); !good[l.name] {
			bad(l.name, value, l.want)
		}
	}

	if s := &d.scale; s.Min > s.Max {
		switch {
		case good[labelScaleMin] && good[labelScaleMax]:
			bad(labelScaleMin, strconv.Itoa(s.Min), fmt.Sprintf("at most %s, which is %d", labelScaleMax, s.Max))
		case good[labelScaleMin]:
			bad(labelScaleMin, strconv.Itoa(s.Min), fmt.Sprintf("at most the maximum, which is %d by default", s.Max))
		default:
			bad(labelScaleMax, strconv.Itoa(s.Max), fmt.Sprintf("at least the minimum, which is %d", s.Min))
		}
		s.Min, s.Max = defaults.Min, defaults.Max
	}
	if s := &d.scale; s.Zero && s.Min == s.Max {
		if good[labelScaleZero] {
			bad(labelScaleZero, "true", "false where the minimum equals the maximum, which means no scaling; for one replica or none, a minimum of 0")
		}
		s.Zero = false
	}
	return d, problems
}

// isNoFunction reports whether the labels exclude the service from the functions.
func isNoFunction(values map[string]string) bool {
	on := true
	return parsedBool(strings.TrimSpace(values[labelFunction]), &on) && !on
}

func isLabel(name string) bool {
	return slices.ContainsFunc(labels, func(l label) bool { return l.name == name }) || slices.Contains(labelsOfOthers, name)
}

// labelsOfOthers are read by programs that ask for the list of functions
// (docs/async.md). Here they are known only so that -label takes them, and still
// refuses a misspelt one. Nothing writes to it.
var labelsOfOthers = []string{
	"com.openfaas.retry.attempts", "com.openfaas.retry.codes", "com.openfaas.retry.min_wait", "com.openfaas.retry.max_wait",
	"faas.schedule", "faas.schedule-grace", "schedule", "topic",
}

// parsedWithin stores a whole number from low to high.
func parsedWithin(value string, low, high int, into *int) bool {
	n, err := strconv.Atoi(value)
	if err != nil || n < low || n > high {
		return false
	}
	*into = n
	return true
}

func parsedBool(value string, into *bool) bool {
	b, err := strconv.ParseBool(value)
	if err == nil {
		*into = b
	}
	return err == nil
}

// validLocalLabel checks that the local provider supports the label.
func validLocalLabel(label string) error {
	if label == labelPort {
		return fmt.Errorf("%s: a replica has its port from its address, or any that is free", label)
	}
	if !isLabel(label) {
		var names []string
		for _, l := range labels {
			if l.name != labelPort {
				names = append(names, l.name)
			}
		}
		return fmt.Errorf("there is no label %q; there are %s", label, strings.Join(append(names, labelsOfOthers...), ", "))
	}
	return nil
}

// labelValues returns the labels as a map, as a service has them.
func (f *localFunction) labelValues() map[string]string {
	values := make(map[string]string, len(f.labels))
	for label, s := range f.labels {
		values[label] = s.value
	}
	return values
}

// checkLabels adds the labels' problems to p, and returns the parsed definition.
func (f *localFunction) checkLabels(p *settings.Set, c *config) definition {
	d, problems := parseLabels(f.labelValues(), c.defaults())
	for _, problem := range problems {
		s, ok := f.labels[problem.label]
		if !ok {
			continue // the settings for all are bad, which validate says
		}
		p.Bad(s.source, fmt.Errorf("%s:%s: %s", f.name, problem.label, problem.text))
	}
	if s, ok := f.labels[labelScaleMax]; ok && d.scale.Max > maxLocalReplicas {
		p.Bad(s.source, fmt.Errorf("%s:%s: %d is more than %d, the most with -provider local", f.name, labelScaleMax, d.scale.Max, maxLocalReplicas))
	}
	return d
}
