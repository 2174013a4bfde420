// Package prometheus tests the rules, the dashboard's queries and what is
// written about both, with Prometheus itself.
package prometheus

import (
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestRules(t *testing.T) {
	for _, args := range [][]string{
		{"check", "config", "../prometheus.yml"},
		{"test", "rules", "rules.test.yml"},
	} {
		t.Run(strings.Join(args[:2], " "), func(t *testing.T) {
			out, err := exec.Command(need(t, "promtool"), args...).CombinedOutput()
			if err != nil {
				t.Fatalf("promtool %v: %v\n%s", args, err, out)
			}
		})
	}
}

// Each alert has a severity, a test, and a section in docs/alerts.md that its
// runbook names; each section there is of an alert.
func TestAlertsAreDocumented(t *testing.T) {
	rules, docs, tests := read(t, "alerts.yml"), read(t, "../docs/alerts.md"), read(t, "rules.test.yml")
	var alerts []string
	for block := range strings.SplitSeq(rules, "- alert: ") {
		name, rest, _ := strings.Cut(block, "\n")
		if !regexp.MustCompile(`^\w+$`).MatchString(name) {
			continue
		}
		alerts = append(alerts, name)
		if want := "runbook: docs/alerts.md#" + strings.ToLower(name) + "\n"; !strings.Contains(rest, want) {
			t.Errorf("%s: got no %q", name, strings.TrimSpace(want))
		}
		m := regexp.MustCompile(`severity: (\w+)`).FindStringSubmatch(rest)
		if m == nil || m[1] != "page" && m[1] != "ticket" {
			t.Errorf("%s: got severity %q, want page or ticket", name, m)
		} else if want := "## " + name + "\n\n*" + m[1] + "* "; !strings.Contains(docs, want) {
			t.Errorf("%s: docs/alerts.md has no section that begins with %q", name, want)
		}
		if !strings.Contains(tests, "alertname: "+name+"\n") {
			t.Errorf("%s: rules.test.yml does not test it", name)
		}
	}
	if len(alerts) == 0 {
		t.Fatal("got no alerts")
	}
	for _, m := range regexp.MustCompile(`(?m)^## (\w+)$`).FindAllStringSubmatch(docs, -1) {
		if !slices.Contains(alerts, m[1]) {
			t.Errorf("docs/alerts.md describes %s, which is no alert", m[1])
		}
	}
}

// What the rules, the dashboard and docs/metrics.md name is in the tables of
// docs/metrics.md.
func TestMetricsAreDocumented(t *testing.T) {
	docs := read(t, "../docs/metrics.md")
	documented := documentedMetrics(docs)
	for _, file := range []string{"recording.yml", "alerts.yml", "../grafana/dashboards/faas.json", "../docs/metrics.md"} {
		for _, name := range regexp.MustCompile(`\bgateway_[a-z_]+\b`).FindAllString(read(t, file), -1) {
			base := regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(name, "")
			// Recorded series hold a metric's name without its last part.
			recorded := slices.Contains([]string{"gateway_function_invocation", "gateway_function_errors"}, name)
			if !slices.Contains(documented, name) && !slices.Contains(documented, base) && !recorded {
				t.Errorf("%s uses %s, which docs/metrics.md does not describe", file, name)
			}
		}
	}
	for _, m := range regexp.MustCompile(`- record: (\S+)`).FindAllStringSubmatch(read(t, "recording.yml"), -1) {
		name := strings.NewReplacer(":p95_rate5m", "", ":p99_rate5m", "").Replace(m[1])
		if !strings.Contains(docs, "`"+name) {
			t.Errorf("docs/metrics.md does not describe %s", m[1])
		}
	}
}

// documentedMetrics returns the names in the first column of the tables.
func documentedMetrics(docs string) []string {
	var names []string
	for _, m := range regexp.MustCompile("(?m)^\\| `(gateway_[a-z_]+)` \\|").FindAllStringSubmatch(docs, -1) {
		names = append(names, m[1])
	}
	return names
}

// A query is one of the dashboard's.
type query struct {
	panel, expr string
}

// dashboardQueries returns the dashboard's queries as Grafana sends them.
func dashboardQueries(t *testing.T) []query {
	t.Helper()
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(read(t, "../grafana/dashboards/faas.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	filled := strings.NewReplacer("$__rate_interval", "1m", "$function", ".*")
	var queries []query
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			queries = append(queries, query{p.Title, filled.Replace(target.Expr)})
		}
	}
	if len(queries) == 0 {
		t.Fatal("got no queries")
	}
	return queries
}

// documentedQueries returns the queries that docs/metrics.md gives as examples.
func documentedQueries(t *testing.T) []query {
	t.Helper()
	var queries []query
	for _, m := range regexp.MustCompile("(?s)```promql\n(.*?)```").FindAllStringSubmatch(read(t, "../docs/metrics.md"), -1) {
		expr := ""
		for line := range strings.Lines(m[1]) {
			line, _, _ = strings.Cut(line, "#")
			line = strings.TrimRight(line, " \n")
			// An indented line goes on with the query above it.
			if expr != "" && !strings.HasPrefix(line, " ") {
				queries = append(queries, query{"docs/metrics.md", expr})
				expr = ""
			}
			expr += line
		}
		if expr != "" {
			queries = append(queries, query{"docs/metrics.md", expr})
		}
	}
	return queries
}

// need returns the path of a program, or skips the test where there is none;
// where FAAS_E2E is "required", it fails.
func need(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err == nil {
		return path
	}
	if os.Getenv("FAAS_E2E") == "required" {
		t.Fatalf("%s is not installed (Debian's package prometheus)", program)
	}
	t.Skipf("%s is not installed (Debian's package prometheus)", program)
	return ""
}

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
