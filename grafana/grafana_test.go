// Package grafana tests what the stack gives to Grafana.
package grafana

// The dashboard and the provisioning files fit together and fit Grafana's
// format, as far as that can be seen without a Grafana. That every query
// answers is tested in the package prometheus.

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

type dashboard struct {
	UID, Title    string
	SchemaVersion int
	Editable      bool
	Templating    struct{ List []variable }
	Panels        []panel
}

type variable struct {
	Name, Type string
	Datasource source
}

type panel struct {
	ID                       int
	Type, Title, Description string
	Datasource               source
	GridPos                  struct{ X, Y, W, H int }
	Targets                  []target
	FieldConfig              struct{ Defaults struct{ Unit string } }
}

type source struct{ Type, UID string }

type target struct {
	RefID, Expr, LegendFormat, Format string
	Datasource                        source
	Range, Instant                    bool
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	data, err := os.ReadFile("dashboards/faas.json")
	if err != nil {
		t.Fatal(err)
	}
	// Swarm keeps it as a config, which cannot be larger.
	if len(data) > 500_000 {
		t.Errorf("got a dashboard of %d bytes, want 500,000 at most", len(data))
	}
	var d dashboard
	if err := json.Unmarshal(data, &d); err != nil {
		t.Fatalf("decode dashboard: %v", err)
	}
	return d
}

func TestPanels(t *testing.T) {
	d := readDashboard(t)
	if d.UID == "" || d.Title == "" || d.SchemaVersion < 36 || d.Editable {
		t.Errorf("got uid %q, title %q, schema %d, editable %v; want all set and not editable",
			d.UID, d.Title, d.SchemaVersion, d.Editable)
	}
	want := source{"prometheus", "prometheus"}
	types := []string{"row", "stat", "timeseries", "table"}
	units := []string{"short", "none", "reqps", "percentunit", "s", "bytes"}
	ids := map[int]bool{}
	titles := map[string]bool{}
	section := ""
	for _, p := range d.Panels {
		if p.Type == "row" {
			section = p.Title
		}
		name := section + "/" + p.Title
		if ids[p.ID] || p.ID < 1 {
			t.Errorf("%s: id %d is used twice or no id", name, p.ID)
		}
		ids[p.ID] = true
		if titles[name] || p.Title == "" {
			t.Errorf("%s: title is used twice in its section or empty", name)
		}
		titles[name] = true
		if !slices.Contains(types, p.Type) {
			t.Errorf("%s: got type %q, want one of %v", name, p.Type, types)
		}
		if g := p.GridPos; g.W < 1 || g.H < 1 || g.X < 0 || g.X+g.W > 24 {
			t.Errorf("%s: %+v is not within 24 columns", name, g)
		}
		if p.Type == "row" {
			continue
		}
		if p.Datasource != want {
			t.Errorf("%s: got data source %v, want %v", name, p.Datasource, want)
		}
		if unit := p.FieldConfig.Defaults.Unit; !slices.Contains(units, unit) {
			t.Errorf("%s: got unit %q, want one of %v", name, unit, units)
		}
		if len(p.Targets) == 0 {
			t.Errorf("%s: no query", name)
		}
		refs := map[string]bool{}
		for _, q := range p.Targets {
			if q.Expr == "" || q.Datasource != want {
				t.Errorf("%s: got query %q of %v, want one of %v", name, q.Expr, q.Datasource, want)
			}
			if refs[q.RefID] || q.RefID == "" {
				t.Errorf("%s: refId %q is used twice or empty", name, q.RefID)
			}
			refs[q.RefID] = true
			// A graph over time asks for a range, a number for an instant.
			if graph := p.Type == "timeseries"; q.Range != graph || q.Instant == graph {
				t.Errorf("%s: got range %v and instant %v in a %s", name, q.Range, q.Instant, p.Type)
			}
			if (p.Type == "table") != (q.Format == "table") {
				t.Errorf("%s: got format %q in a %s", name, q.Format, p.Type)
			}
		}
	}
}

func TestPanelsDoNotOverlap(t *testing.T) {
	taken := map[[2]int]string{}
	for _, p := range readDashboard(t).Panels {
		g := p.GridPos
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				if other, ok := taken[[2]int{x, y}]; ok {
					t.Fatalf("%s and %s overlap at column %d, row %d", other, p.Title, x, y)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
}

// A variable of a query that the dashboard does not define is sent to
// Prometheus as it is, and matches nothing.
func TestVariables(t *testing.T) {
	d := readDashboard(t)
	known := []string{"__rate_interval"}
	for _, v := range d.Templating.List {
		if v.Type != "query" || v.Datasource.UID != "prometheus" {
			t.Errorf("variable %s: got %+v, want a query to prometheus", v.Name, v)
		}
		known = append(known, v.Name)
	}
	used := regexp.MustCompile(`\$\{?(\w+)`)
	for _, p := range d.Panels {
		for _, q := range p.Targets {
			for _, m := range used.FindAllStringSubmatch(q.Expr, -1) {
				if !slices.Contains(known, m[1]) {
					t.Errorf("%s: variable $%s is not defined", p.Title, m[1])
				}
			}
		}
	}
}

// What one file says of another: uid, paths, the mounts of the stack.
func TestProvisioning(t *testing.T) {
	read := func(name string) string {
		t.Helper()
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	stack := read("../stack.yml")
	tests := []struct{ name, text, want string }{
		{"data source has the uid of the dashboard", read("provisioning/datasources/prometheus.yml"), "uid: prometheus\n"},
		{"data source is the stack's Prometheus", read("provisioning/datasources/prometheus.yml"), "url: http://prometheus:9090\n"},
		{"data source knows how often is scraped", read("provisioning/datasources/prometheus.yml"), "timeInterval: 5s\n"},
		{"Prometheus scrapes as often", read("../prometheus.yml"), "scrape_interval: 5s\n"},
		{"provider reads the folder", read("provisioning/dashboards/faas.yml"), "path: /etc/grafana/dashboards\n"},
		{"dashboard is in the folder", stack, "target: /etc/grafana/dashboards/faas.json}"},
		{"provider is mounted", stack, "target: /etc/grafana/provisioning/dashboards/faas.yml}"},
		{"data source is mounted", stack, "target: /etc/grafana/provisioning/datasources/prometheus.yml}"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if !strings.Contains(tt.text, tt.want) {
				t.Errorf("got no line with %q", strings.TrimSpace(tt.want))
			}
		})
	}
	for _, m := range regexp.MustCompile(`(?m)^\s+file: \./(.+)$`).FindAllStringSubmatch(stack, -1) {
		if _, err := os.Stat("../" + m[1]); err != nil {
			t.Errorf("stack.yml mounts %s: %v", m[1], err)
		}
	}
}

// Whoever reaches Grafana must find no administrator whose password is known:
// Grafana's own is "admin" where none is set, and one in the stack's
// environment is there for all to read.
func TestStackHasNoAdministrator(t *testing.T) {
	stack, err := os.ReadFile("../stack.yml")
	if err != nil {
		t.Fatal(err)
	}
	if want := `GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION: "true"` + "\n"; !strings.Contains(string(stack), want) {
		t.Errorf("stack.yml has no %q", want)
	}
	if strings.Contains(string(stack), "GF_SECURITY_ADMIN_") {
		t.Error("stack.yml sets what the administrator is")
	}
}
