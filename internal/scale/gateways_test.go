package scale

// Several gateways in virtual time: each sees a part of the load, hears of the rest by
// package peers, and runs the autoscaler.

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"faas/internal/peers"
)

// A simSwarm is what all gateways share: the replicas of one function.
type simSwarm struct {
	now      time.Duration
	limits   Limits
	wanted   int
	ready    int
	starting []time.Duration // when each replica that is not yet ready will be
	changes  []virtualChange
	gateways []*simGateway
	cut      func(a, b int) bool // they do not hear each other now; nil: all do
}

// A simGateway is one of them, with its own part of the load.
type simGateway struct {
	swarm  *simSwarm
	number int
	load   Load
	book   *peers.Book
	scaler *Autoscaler
	sets   uint64
	set    int

	// answers that are on their way, and what they are to.
	answers []simAnswer
}

type simAnswer struct {
	from  int
	asked time.Duration
	body  []byte
}

func newSimSwarm(limits Limits, gateways int) *simSwarm {
	s := &simSwarm{limits: limits, wanted: limits.Min, ready: limits.Min}
	for i := range gateways {
		s.start(i)
	}
	// They know each other before the load begins.
	for i, g := range s.gateways {
		for j, other := range s.gateways {
			if i != j {
				g.book.Hear(fmt.Sprint(j), other.book.Answer(peers.Ask{}, 0), 0, 0)
			}
		}
	}
	return s
}

// start starts gateway i, or starts it again with nothing that it knew.
func (s *simSwarm) start(i int) {
	g := &simGateway{swarm: s, number: i}
	// The first one acts: its ticks are those of the one gateway to compare with.
	g.book = peers.NewBook(uint64(i+1), func(now time.Duration, _ bool) iter.Seq2[string, peers.Load] {
		return func(yield func(string, peers.Load) bool) {
			t := g.load.Totals(now)
			yield("f", peers.Load{Busy: t.Busy, Started: t.Started, InFlight: t.InFlight, Idle: now - t.LastActive,
				Ready: s.ready, Sets: g.sets, Replicas: g.set})
		}
	})
	g.scaler = New(func() []Function { return []Function{g} }, s, Options{
		Now: func() time.Duration { return s.now }, Random: func() float64 { return 0.5 }, Others: g, Log: slog.New(slog.DiscardHandler),
		Changed: func(_ string, from, to int, reason string) {
			g.sets, g.set = g.sets+1, to
			s.changes = append(s.changes, virtualChange{s.now, from, to, reason})
		},
	})
	if i < len(s.gateways) {
		s.gateways[i] = g
	} else {
		s.gateways = append(s.gateways, g)
	}
}

func (s *simSwarm) Scale(_ context.Context, _ State, decide func(current int) int) error {
	s.set(decide(s.wanted))
	return nil
}

// set orders replicas: one is ready after a second, each further one of the same order
// 100 ms later, and what is too many is gone at once.
func (s *simSwarm) set(n int) {
	for i := range n - s.wanted {
		s.starting = append(s.starting, s.now+time.Second+time.Duration(i)*100*time.Millisecond)
	}
	slices.Sort(s.starting)
	s.starting = s.starting[:max(0, min(len(s.starting), n-s.ready))]
	s.ready = min(s.ready, n)
	s.wanted = n
}

func (g *simGateway) State() State {
	return State{Name: "f", Service: "f", Limits: g.swarm.limits, Replicas: g.swarm.wanted}
}

func (g *simGateway) Ready() int { return g.swarm.ready }

// Totals is as in the gateway: function.go.
func (g *simGateway) Totals(now time.Duration) Totals {
	t := g.load.Totals(now)
	if sum, at, ok := g.book.Sum("f").Sampled(); ok {
		t.Busy, t.Started, t.At = sum.Busy, sum.Started, at
	}
	l := g.book.Sum("f").Others(now)
	t.InFlight += l.InFlight
	t.LastActive = max(t.LastActive, now-l.Idle)
	return t
}

func (g *simGateway) Sample(now time.Duration) {
	g.book.Sample(now)
	for i, other := range g.swarm.gateways {
		if i == g.number || g.swarm.cut != nil && g.swarm.cut(i, g.number) {
			continue
		}
		address := fmt.Sprint(i)
		g.answers = append(g.answers, simAnswer{i, now, other.book.Answer(g.book.Ask(address, now), now)})
	}
}

func (g *simGateway) Acting() bool   { return g.book.Acting(g.swarm.now) }
func (g *simGateway) Complete() bool { return g.book.Complete(g.swarm.now) }
func (g *simGateway) Joined(name string, within time.Duration) bool {
	return g.book.Joined(name, within, g.swarm.now)
}
func (g *simGateway) Set(name string, within time.Duration) (int, bool) {
	return g.book.Set(name, within, g.swarm.now)
}

// tick is the autoscaler's, and its updates with it.
func (g *simGateway) tick() {
	var updates sync.WaitGroup
	g.scaler.tick(context.Background(), &updates)
	updates.Wait()
	for len(g.scaler.results) > 0 {
		g.scaler.finish(<-g.scaler.results)
	}
}

// step lets virtualStep pass, with so many requests in flight at each gateway.
func (s *simSwarm) step(t *testing.T, inFlight []int) {
	t.Helper()
	for len(s.starting) > 0 && s.starting[0] <= s.now {
		s.starting = s.starting[1:]
		s.ready++
	}
	for i, g := range s.gateways {
		delta := inFlight[i] - g.load.current
		g.load.Add(s.now, delta, max(delta, 0))
	}
	for _, g := range s.gateways { // what was asked in the last step
		for _, a := range g.answers {
			if err := g.book.Hear(fmt.Sprint(a.from), a.body, a.asked, a.asked); err != nil {
				t.Fatalf("%v: %v", s.now, err)
			}
		}
		g.answers = nil
		if s.now%time.Second == 0 {
			var all []string
			for i := range s.gateways {
				if i != g.number {
					all = append(all, fmt.Sprint(i))
				}
			}
			g.book.Name(all, s.now)
		}
	}
	for i, g := range s.gateways {
		// Each has ticks of its own, the first one those of the comparison.
		if phase := time.Duration(i) * virtualStep % tickInterval; s.now%tickInterval == phase {
			g.tick()
		}
	}
	s.now += virtualStep
}

// A simSplit is how load is spread over so many gateways at some time.
type simSplit struct {
	name  string
	parts func(at time.Duration, load, gateways int) []int
}

func simSplits() []simSplit {
	return []simSplit{
		{"even", func(_ time.Duration, load, gateways int) []int {
			parts := make([]int, gateways)
			for i := range load {
				parts[i%gateways]++
			}
			return parts
		}},
		{"90/10", func(_ time.Duration, load, gateways int) []int {
			parts := make([]int, gateways)
			parts[gateways-1] = int(math.Round(0.9 * float64(load)))
			for i := range load - parts[gateways-1] {
				parts[i%max(1, gateways-1)]++
			}
			return parts
		}},
		{"moving", func(at time.Duration, load, gateways int) []int {
			parts := make([]int, gateways)
			parts[int(at/(10*time.Second))%gateways] = load
			return parts
		}},
	}
}

// simulateGateways returns how many replicas were wanted at each step.
func simulateGateways(t *testing.T, shape loadShape, limits Limits, gateways int, split simSplit) (wanted []int) {
	t.Helper()
	s := newSimSwarm(limits, gateways)
	for s.now < shape.length {
		at := s.now
		s.step(t, split.parts(at, int(math.Round(shape.load(at))), gateways))
		wanted = append(wanted, s.wanted)
	}
	return wanted
}

// However the load is spread, the replicas wanted are those of one gateway that sees
// everything, at most a sample later.
func TestSimulationOfGateways(t *testing.T) {
	limits := testLimits()
	counts := []int{1, 3, 8}
	var table strings.Builder
	table.WriteString("| load | changes | 1 gateway |")
	for _, gateways := range counts[1:] {
		for _, split := range simSplits() {
			fmt.Fprintf(&table, " %d, %s |", gateways, split.name)
		}
	}
	table.WriteString("\n| --- |" + strings.Repeat(" ---: |", 2+len(simSplits())*(len(counts)-1)) + "\n")
	for _, shape := range loadShapes(t) {
		var one []int
		p := newOurs(limits)
		r := simulate(shape, limits, wantedNoted{p, &one})
		fmt.Fprintf(&table, "| %s | %d |", shape.name, r.changes)
		for _, gateways := range counts {
			for i, split := range simSplits() {
				if gateways == 1 && i > 0 {
					continue // there is nothing to split
				}
				got := simulateGateways(t, shape, limits, gateways, split)
				wrong, longest := 0, 0
				const sample = int(tickInterval / virtualStep)
				for i := range got {
					late := 0
					for late < min(i, sample) && got[i] != one[i-late] {
						late++
					}
					longest = max(longest, late)
					if got[i] != one[i-late] {
						wrong++
					}
				}
				fmt.Fprintf(&table, " %.2f s |", (time.Duration(longest) * virtualStep).Seconds())
				if wrong > 0 {
					t.Errorf("%s, %d gateways, %s: wanted other replicas than one gateway, now or a sample before, for %v",
						shape.name, gateways, split.name, time.Duration(wrong)*virtualStep)
				}
			}
		}
		table.WriteByte('\n')
	}
	compareGolden(t, filepath.Join("..", "..", "docs", "autoscaling.md"), func(old []byte) []byte {
		return betweenMarks(t, old, "simulation of gateways", table.String())
	})
}

// wantedNoted is a policy whose answers are kept.
type wantedNoted struct {
	simPolicy
	all *[]int
}

func (p wantedNoted) wanted(now time.Duration, totals Totals, ready int) int {
	n := p.simPolicy.wanted(now, totals, ready)
	*p.all = append(*p.all, n)
	return n
}
