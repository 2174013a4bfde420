package main

// What other gateways cost while nobody calls: make bench BENCH_ONLY='Gateways with
// peers' measures all of it, this only what a processor does between two packets.

import (
	"fmt"
	"io"
	"log/slog"
	"testing"
	"time"
)

// BenchmarkPeersIdle is one sample of a gateway with 1,000 idle functions and two peers:
// it takes its own, hears two answers, gives two, and looks at each function. The two
// take their samples, too, which is in the figure.
func BenchmarkPeersIdle(b *testing.B) {
	c, err := parseConfig([]string{"-peers", "127.0.0.1:1", "-peer-listen", "127.0.0.1:1"}, func(string) string { return "" }, io.Discard)
	if err != nil {
		b.Fatal(err)
	}
	var all []*gateways
	for range 3 {
		r := newRegistry(&c, newMemoryProvider(), slog.New(slog.DiscardHandler))
		r.metrics = newMetrics(r.functions)
		g := newGateways(&c, r, newAlerts(time.Now).fires, nil, r.metrics, r.log)
		r.gateways = g
		var defs []definition
		for i := range 1000 {
			defs = append(defs, definition{name: fmt.Sprint("function-", i), service: fmt.Sprint(i), scale: c.scale})
		}
		r.apply(defs)
		for _, f := range r.functions() { // used once
			f.admission.enter(time.Now(), 0)
			f.admission.leave(time.Now())
		}
		all = append(all, g)
	}
	g := all[0]
	now := sinceEpoch()
	sample := func() {
		now += 250 * time.Millisecond
		for i, other := range all {
			other.settle(now)
			other.book.Sample(now)
			if i > 0 { // gives as many answers as it hears
				at := fmt.Sprint(i)
				if err := g.book.Hear(at, other.book.Answer(g.book.Ask(at, now), now), now, now); err != nil {
					b.Fatal(err)
				}
			}
		}
		for _, f := range g.registry.scalables() {
			f.Totals(now)
			f.Ready()
			g.Joined(f.State().Name, time.Second)
		}
		g.Acting()
	}
	for range 100 {
		sample()
	}
	b.ReportAllocs()
	for b.Loop() {
		sample()
	}
}
