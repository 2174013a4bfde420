package scale

// The simulation: load shapes in virtual time, and how many replicas the
// autoscaler, OpenFaaS's step rule and somebody who knows the future have for
// them. docs/autoscaling.md shows what it prints;
//
//	go test ./internal/scale -run Simulation -update-docs
//
// writes its table and its plots anew.

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var updateDocs = flag.Bool("update-docs", false, "write the table and the plots of docs/autoscaling.md anew")

// A loadShape is how many requests are in flight over time.
type loadShape struct {
	name, title string
	length      time.Duration
	load        func(at time.Duration) float64
}

func loadShapes(t *testing.T) []loadShape {
	bursts, noisy := burstLoad(), poissonLoad(35, 10*time.Minute)
	recorded, length := recordedLoad(t)
	between := func(at, from, to time.Duration) bool { return at >= from && at < to }
	return []loadShape{
		{"constant", "35 in flight all the time", 10 * time.Minute, steady(35)},
		{"noisy", "35 a second at random, one second each", 10 * time.Minute, noisy},
		{"step", "0 to 40 in flight for four minutes", 8 * time.Minute, func(at time.Duration) float64 {
			if between(at, time.Minute, 5*time.Minute) {
				return 40
			}
			return 0
		}},
		{"ramp", "0 to 150 in five minutes, and back", 12 * time.Minute, func(at time.Duration) float64 {
			return max(0, 150-150*math.Abs(at.Minutes()-5)/5)
		}},
		{"sine", "10 to 150, up and down in four minutes", 12 * time.Minute, func(at time.Duration) float64 {
			return 80 - 70*math.Cos(2*math.Pi*at.Minutes()/4)
		}},
		{"sawtooth", "0 to 100 in a minute, again and again", 10 * time.Minute, func(at time.Duration) float64 {
			return 100 * (at % time.Minute).Seconds() / 60
		}},
		{"bursts", "5, and bursts of 30 to 150 for 1 to 20 s", 10 * time.Minute, bursts},
		{"on-off", "60 for 45 s, none for 75 s", 10 * time.Minute, func(at time.Duration) float64 {
			if at%(2*time.Minute) < 45*time.Second {
				return 60
			}
			return 0
		}},
		{"recorded", "a server under wrk with changing connections", length, recorded},
	}
}

// burstLoad has a burst about every half minute.
func burstLoad() func(at time.Duration) float64 {
	random := rand.New(rand.NewPCG(1, 1))
	type burst struct {
		from, to time.Duration
		load     float64
	}
	var all []burst
	for at := 20 * time.Second; at < 9*time.Minute; at += time.Duration(10+random.IntN(50)) * time.Second {
		length := time.Duration(1+random.IntN(20)) * time.Second
		all = append(all, burst{at, at + length, float64(30 + random.IntN(121))})
		at += length
	}
	return func(at time.Duration) float64 {
		for _, b := range all {
			if at >= b.from && at < b.to {
				return b.load
			}
		}
		return 5
	}
}

// poissonLoad has requests that take a second each come independently of each
// other, so many a second on average.
func poissonLoad(rate float64, length time.Duration) func(at time.Duration) float64 {
	random := rand.New(rand.NewPCG(2, 2))
	inFlight := make([]float64, (length+time.Second)/virtualStep)
	for at := 0.0; at < length.Seconds(); at += random.ExpFloat64() / rate {
		first := int(at / virtualStep.Seconds())
		for i := first; i < first+int(time.Second/virtualStep); i++ {
			inFlight[i]++
		}
	}
	return func(at time.Duration) float64 { return inFlight[at/virtualStep] }
}

// recordedLoad reads testdata/trace.csv.
func recordedLoad(t *testing.T) (load func(at time.Duration) float64, length time.Duration) {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", "trace.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := csv.NewReader(bufio.NewReader(f))
	r.Comment = '#'
	records, err := r.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	const every = 100 * time.Millisecond
	var inFlight []float64
	for _, record := range records[1:] {
		n, err := strconv.ParseFloat(record[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		inFlight = append(inFlight, n)
	}
	return func(at time.Duration) float64 { return inFlight[at/every] }, time.Duration(len(inFlight)) * every
}

// A simPolicy says how many replicas it wants. It is asked every virtualStep.
type simPolicy interface {
	wanted(now time.Duration, totals Totals, ready int) int
}

// ours is the autoscaler, by the code that runs in the gateway.
type ours struct{ v *virtual }

func newOurs(limits Limits) ours { return ours{newVirtual(limits, limits.Min)} }

func (p ours) wanted(now time.Duration, totals Totals, ready int) int {
	if now%tickInterval == 0 {
		p.v.now = now
		p.v.tick(totals, ready)
	}
	return p.v.d.Replicas
}

// stepRule is OpenFaaS's rule as documented and shipped with it, where each
// request takes one second, so that as many are in flight as start in a
// second. docs/autoscaling.md says where each number is from.
type stepRule struct {
	limits    Limits
	threshold float64 // per second, of the function as a whole

	replicas int
	scrapes  []uint64      // requests ever started, every 5 s
	pending  time.Duration // since when the condition holds; -1: it does not
	firing   bool
	told     bool          // that it fires
	flushAt  time.Duration // of the alert's group
	repeatAt time.Duration
}

func newStepRule(limits Limits) *stepRule {
	return &stepRule{limits: limits, threshold: limits.Target, replicas: limits.Min, pending: -1}
}

func (p *stepRule) wanted(now time.Duration, totals Totals, _ int) int {
	const (
		scrapeInterval     = 5 * time.Second
		evaluationInterval = 15 * time.Second
		holdsFor           = 5 * time.Second
		groupWait          = 5 * time.Second
		groupInterval      = 10 * time.Second
		repeatEvery        = 40 * time.Second // the first flush after repeat_interval, 30 s
	)
	if now%scrapeInterval == 0 {
		p.scrapes = append(p.scrapes, uint64(totals.Busy.Seconds()))
	}
	if n := len(p.scrapes); now%evaluationInterval == 0 && n > 2 {
		holds := float64(p.scrapes[n-1]-p.scrapes[n-3])/10 > p.threshold
		switch {
		case !holds:
			p.pending, p.firing = -1, false
		case p.pending < 0:
			p.pending = now
		case !p.firing && now-p.pending >= holdsFor:
			p.firing = true
			if !p.told {
				p.flushAt = now + groupWait
			}
		}
	}
	if now == p.flushAt && now > 0 {
		p.flushAt = now + groupInterval
		switch {
		case p.firing && (!p.told || now >= p.repeatAt):
			step := int(math.Ceil(float64(p.limits.Max*p.limits.Factor) / 100))
			p.replicas = min(p.replicas+step, p.limits.Max)
			p.told, p.repeatAt = true, now+repeatEvery
		case !p.firing && p.told:
			p.replicas = p.limits.Min
			p.told, p.flushAt = false, 0
		}
	}
	return p.replicas
}

// A simResult is what a policy did under a shape.
type simResult struct {
	under, over float64   // replica-seconds below and above the ideal
	changes     int       // of the wanted number
	replicas    []int     // ready, every virtualStep
	wanted      []string  // each change, to be printed
	ideal       []int     // ceil(load/target) within the limits
	load        []float64 // in flight
}

// simulate runs a policy under a shape. A replica is ready a second after it
// was wanted, and each further one of the same change 100 ms later, which is
// how long they take on a Swarm of three nodes; it is gone at once.
func simulate(shape loadShape, limits Limits, p simPolicy) simResult {
	var r simResult
	var l Load
	var starting []time.Duration // when each replica that is not yet ready will be
	wanted, ready := limits.Min, limits.Min
	for now := time.Duration(0); now < shape.length; now += virtualStep {
		inFlight := shape.load(now)
		delta := int(math.Round(inFlight)) - l.current
		l.Add(now, delta, max(delta, 0))

		for len(starting) > 0 && starting[0] <= now {
			starting = starting[1:]
			ready++
		}
		if n := p.wanted(now, l.Totals(now), ready); n != wanted {
			for i := range n - wanted {
				starting = append(starting, now+time.Second+time.Duration(i)*100*time.Millisecond)
			}
			slices.Sort(starting)
			starting = starting[:max(0, min(len(starting), n-ready))]
			ready = min(ready, n)
			wanted = n
			r.changes++
			r.wanted = append(r.wanted, fmt.Sprintf("%.1fs:%d", now.Seconds(), n))
		}
		ideal := min(max(replicasFor(inFlight, limits.Target), limits.Min), limits.Max)
		r.under += float64(max(0, ideal-ready)) * virtualStep.Seconds()
		r.over += float64(max(0, ready-ideal)) * virtualStep.Seconds()
		r.replicas = append(r.replicas, ready)
		r.ideal = append(r.ideal, ideal)
		r.load = append(r.load, inFlight)
	}
	return r
}

func TestSimulation(t *testing.T) {
	limits := testLimits()
	var table strings.Builder
	table.WriteString("| load | needed | under | over | changes | OpenFaaS: under | over | changes |\n")
	table.WriteString("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n")
	sums := make([]float64, 7)
	plots := make(map[string][]byte)
	for _, shape := range loadShapes(t) {
		mine, theirs := simulate(shape, limits, newOurs(limits)), simulate(shape, limits, newStepRule(limits))
		t.Logf("%s: %s\nautoscaler %s\nOpenFaaS   %s", shape.name, shape.title,
			strings.Join(mine.wanted, " "), strings.Join(theirs.wanted, " "))
		needed := 0.0
		for _, n := range mine.ideal {
			needed += float64(n) * virtualStep.Seconds()
		}
		row := []float64{needed, mine.under, mine.over, float64(mine.changes), theirs.under, theirs.over, float64(theirs.changes)}
		writeSimRow(&table, fmt.Sprintf("%s: %s", shape.name, shape.title), row)
		for i, v := range row {
			sums[i] += v
		}
		plots[shape.name+".svg"] = plotSimulation(shape, limits, mine, theirs)

		if mine.under > needed/8 {
			t.Errorf("%s: got %.0f replica-seconds under, want at most an eighth of %.0f", shape.name, mine.under, needed)
		}
	}
	if under, over := sums[1]/sums[4], sums[2]/sums[5]; under > 0.5 || over > 0.5 {
		t.Errorf("in all: got %.2f of the step rule's under and %.2f of its over, want at most half of each", under, over)
	}
	writeSimRow(&table, "**all**", sums)

	page := filepath.Join("..", "..", "docs", "autoscaling.md")
	compareGolden(t, page, func(old []byte) []byte { return betweenMarks(t, old, "simulation", table.String()) })
	for name, plot := range plots {
		compareGolden(t, filepath.Join("..", "..", "docs", "autoscaling", name), func([]byte) []byte { return plot })
	}
}

// betweenMarks returns a page with text between the marks of that name.
func betweenMarks(t *testing.T, page []byte, name, text string) []byte {
	t.Helper()
	begin, end := "<!-- "+name+" -->\n", "<!-- end of "+name+" -->\n"
	before, rest, ok := bytes.Cut(page, []byte(begin))
	_, after, ok2 := bytes.Cut(rest, []byte(end))
	if !ok || !ok2 {
		t.Fatalf("got no %q and %q, want the table between them", begin, end)
	}
	return slices.Concat(before, []byte(begin), []byte(text), []byte(end), after)
}

func writeSimRow(b *strings.Builder, name string, row []float64) {
	fmt.Fprintf(b, "| %s |", name)
	for _, v := range row {
		fmt.Fprintf(b, " %.0f |", v)
	}
	b.WriteByte('\n')
}

// compareGolden compares a file of the documentation with what it should be
// now, or writes it.
func compareGolden(t *testing.T, path string, now func(old []byte) []byte) {
	t.Helper()
	old, err := os.ReadFile(path)
	if err != nil && !*updateDocs {
		t.Error(err)
		return
	}
	want := now(old)
	if bytes.Equal(old, want) {
		return
	}
	if !*updateDocs {
		t.Errorf("%s is not what the simulation prints now; see it, then run go test ./internal/scale -run Simulation -update-docs", path)
		return
	}
	if err := os.WriteFile(path, want, 0o644); err != nil {
		t.Error(err)
	}
}
