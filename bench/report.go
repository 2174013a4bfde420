package main

// The report: tables for the terminal and in Markdown.

import (
	"bytes"
	"debug/buildinfo"
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"
)

type report struct {
	about   []string
	targets []target
	tables  []table
}

type table struct {
	title   string
	columns []string
	rows    [][]string
}

// A target is one line of what is to be reached.
type target struct {
	what           string
	got, low, high float64 // median and quartiles
	limit          float64
	bound          bound
}

type bound string

const (
	atMost  bound = "at most"
	atLeast bound = "at least"
)

func (t target) reached() bool {
	if t.bound == atMost {
		return t.got <= t.limit
	}
	return t.got >= t.limit
}

// target adds a line, if c was made and has both.
func (r *report) target(what string, c *comparison, name, base string, m measure, bound bound, limit float64) {
	if c == nil {
		return
	}
	t := target{what: what, limit: limit, bound: bound}
	if t.got, t.low, t.high = c.ratio(name, base, m); !math.IsNaN(t.got) {
		r.targets = append(r.targets, t)
	}
}

// add makes a table of a comparison.
func (r *report) add(c *comparison) {
	t := table{title: c.title, columns: []string{"", "requests/s", "p50 µs", "p99 µs", "CPU µs", "allocs", "peak RSS MiB",
		"ratio: requests/s", "p50", "p99", "CPU", "allocs", "RSS"}}
	base := c.names[0]
	for _, name := range c.names {
		row := []string{name}
		for _, m := range []measure{rate, p50, p99, cpu, mallocs} {
			row = append(row, figure(c.median(name, m)))
		}
		row = append(row, figure(c.peaks[name]))
		for _, m := range []measure{rate, p50, p99, cpu, mallocs} {
			ratio, _, _ := c.ratio(name, base, m)
			row = append(row, ratioText(ratio))
		}
		row = append(row, ratioText(c.peaks[name]/c.peaks[base]))
		t.rows = append(t.rows, row)
	}
	r.tables = append(r.tables, t)
}

// figure is three digits of what was measured; 0 was not.
func figure(v float64) string {
	switch {
	case v == 0 || math.IsNaN(v):
		return "–"
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func ratioText(v float64) string {
	if v == 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return "–"
	}
	return fmt.Sprintf("%.2f", v)
}

// head notes where and with what it was measured.
func (r *report) head(b *bench) {
	model := "unknown"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		_, rest, _ := strings.Cut(string(text), "model name")
		line, _, _ := strings.Cut(rest, "\n")
		model = strings.Trim(line, "\t: ")
	}
	with := "bench/load"
	if b.wrk {
		with = "wrk"
	}
	kernel, _, _ := strings.Cut(firstLine("uname", "-r"), "-")
	r.about = append(r.about,
		fmt.Sprintf("%s, %d CPUs (%s), Linux %s, %s", time.Now().UTC().Format("2006-01-02 15:04 UTC"), runtime.NumCPU(), model,
			kernel, runtime.Version()),
		fmt.Sprintf("load: %s; %d rounds of %s for each contestant, in turns", with, b.rounds, b.length))
	for _, other := range [][]string{{"nginx", "-v"}, {"haproxy", "-v"}} {
		if line := firstLine(other[0], other[1:]...); line != "" {
			r.about = append(r.about, strings.TrimPrefix(line, "nginx version: "))
		}
	}
	if b.caddy != "" {
		r.about = append(r.about, "Caddy "+caddyVersion(b.caddy))
	}
	r.about = append(r.about, "load average at the start: "+loadAverage())
}

func (r *report) finish(took time.Duration) {
	r.about = append(r.about, "load average at the end: "+loadAverage()+"; took "+took.Round(time.Second).String())
}

func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(text))[:3], " ")
}

func firstLine(program string, args ...string) string {
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line
}

// caddyVersion is what its build says of itself: it has no version of its own
// when it was not built by its makers.
func caddyVersion(path string) string {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return "of unknown version"
	}
	return info.Main.Version
}

// results is the targets as a table.
func (r *report) results() table {
	t := table{title: "Targets", columns: []string{"what", "target", "median", "quartiles", "reached"}}
	for _, one := range r.targets {
		reached := "no"
		if one.reached() {
			reached = "yes"
		}
		t.rows = append(t.rows, []string{one.what, fmt.Sprintf("%s %g", one.bound, one.limit), fmt.Sprintf("%.3g", one.got),
			fmt.Sprintf("%.3g to %.3g", one.low, one.high), reached})
	}
	return t
}

func (r *report) all() []table { return append([]table{r.results()}, r.tables...) }

// summary is for the terminal.
func (r *report) summary() string {
	var out bytes.Buffer
	for _, line := range r.about {
		fmt.Fprintln(&out, line)
	}
	for _, t := range r.all() {
		fmt.Fprintf(&out, "\n%s\n", t.title)
		w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, strings.Join(t.columns, "\t"))
		for _, row := range t.rows {
			fmt.Fprintln(w, strings.Join(row, "\t"))
		}
		w.Flush()
	}
	return out.String()
}

// markdown is for the file.
func (r *report) markdown() []byte {
	var out bytes.Buffer
	fmt.Fprint(&out, "# Results of `make bench`\n\nWritten by the benchmark; docs/performance.md says what they mean.\n"+
		"Ratios are medians of the ratios within each round, to the first line of the table.\n\n")
	for _, line := range r.about {
		fmt.Fprintln(&out, "- "+line)
	}
	for _, t := range r.all() {
		fmt.Fprintf(&out, "\n## %s\n| %s |\n|%s\n", t.title, strings.Join(t.columns, " | "), strings.Repeat(" --- |", len(t.columns)))
		for _, row := range t.rows {
			fmt.Fprintf(&out, "| %s |\n", strings.Join(row, " | "))
		}
	}
	return out.Bytes()
}
