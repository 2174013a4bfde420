package main

// A comparison: contestants in turns, round by round, and what comes out.

import (
	"fmt"
	"math"
	"os"
	"slices"
	"time"
)

// A comparison is all that was measured under one title. The first contestant
// is what the others are divided by.
type comparison struct {
	title   string
	names   []string
	samples map[string][]sample // by name, one for each round
	peaks   map[string]float64  // MiB
}

// A measure picks one figure from a sample.
type measure func(sample) float64

func rate(s sample) float64    { return s.rate }
func p50(s sample) float64     { return s.p50 }
func p99(s sample) float64     { return s.p99 }
func cpu(s sample) float64     { return s.cpu }
func mallocs(s sample) float64 { return s.mallocs }

// compare loads the contestants in turns and puts the result into the report.
// It returns nil if the title is not among those asked for.
func (b *bench) compare(title string, l load, contestants ...*contestant) (*comparison, error) {
	if !b.only.MatchString(title) {
		return nil, nil
	}
	fmt.Fprintf(os.Stderr, "bench: %s\n", title)
	c := &comparison{title: title, samples: map[string][]sample{}, peaks: map[string]float64{}}
	for _, who := range contestants {
		c.names = append(c.names, who.name)
		if who.rate == nil {
			if _, err := b.round(who, l, time.Second); err != nil {
				return nil, fmt.Errorf("%s, warming up: %w", title, err)
			}
			who.forgetPeak()
		}
	}
	for range b.rounds {
		for _, who := range contestants {
			s, err := b.round(who, l, b.length)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", title, err)
			}
			c.samples[who.name] = append(c.samples[who.name], s)
		}
	}
	for _, who := range contestants {
		if who.rate == nil {
			c.peaks[who.name] = who.memory("VmHWM")
		}
	}
	b.report.add(c)
	return c, nil
}

// median of what a contestant showed; 0 is unknown.
func (c *comparison) median(name string, m measure) float64 {
	values := make([]float64, 0, len(c.samples[name]))
	for _, s := range c.samples[name] {
		values = append(values, m(s))
	}
	return quantile(values, .5)
}

// ratio divides two contestants round by round. It returns the median and the
// quartiles; NaN where one of them is missing.
func (c *comparison) ratio(name, base string, m measure) (median, low, high float64) {
	a, b := c.samples[name], c.samples[base]
	values := make([]float64, min(len(a), len(b)))
	for i := range values {
		values[i] = m(a[i]) / m(b[i])
	}
	return quantile(values, .5), quantile(values, .25), quantile(values, .75)
}

// quantile interpolates between the two values next to it.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i+1 == len(sorted) {
		return sorted[i]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}
