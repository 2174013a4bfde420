package scale

// The plots of docs/autoscaling.md: one SVG for each load shape.

import (
	"fmt"
	"strings"
	"time"
)

const (
	plotWidth, plotHeight = 820, 300
	plotLeft, plotRight   = 44, 16
	plotTop, plotBottom   = 62, 36

	plotInk, plotGrid    = "#444", "#e4e4e4"
	plotLoad, plotIdeal  = "#d9d9d9", "#777"
	plotOurs, plotTheirs = "#0072b2", "#d55e00" // apart for the colour-blind, too
)

// plotSimulation draws the load as an area, in replicas that it needs, and
// over it the replicas that were ready.
func plotSimulation(shape loadShape, limits Limits, mine, theirs simResult) []byte {
	top := 0.0
	for i := range mine.load {
		top = max(top, mine.load[i]/limits.Target, float64(mine.replicas[i]), float64(theirs.replicas[i]))
	}
	unit := 1.0
	for top/unit > 6 {
		unit += 1
		if unit > 2 && unit < 5 {
			unit = 5
		}
	}
	top = unit * float64(int(top/unit)+1)
	x := func(i int) float64 {
		return plotLeft + (plotWidth-plotLeft-plotRight)*float64(i)/float64(len(mine.load))
	}
	y := func(replicas float64) float64 {
		return plotTop + (plotHeight-plotTop-plotBottom)*(1-replicas/top)
	}

	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12" fill="%s">`+"\n",
		plotWidth, plotHeight, plotInk)
	fmt.Fprintf(&b, "<title>%s: %s</title>\n", shape.name, shape.title)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", plotWidth, plotHeight)
	fmt.Fprintf(&b, `<text x="%d" y="20" font-size="14"><tspan font-weight="bold">%s</tspan>: %s</text>`+"\n",
		plotLeft, shape.name, shape.title)
	legend := plotLeft
	for _, e := range []struct {
		name, colour string
		width        int // of the name, about
	}{
		{"load, in replicas it needs", plotLoad, 160}, {"ideal", plotIdeal, 40},
		{"this autoscaler", plotOurs, 95}, {"OpenFaaS step rule", plotTheirs, 0},
	} {
		fmt.Fprintf(&b, `<rect x="%d" y="36" width="18" height="6" fill="%s"/><text x="%d" y="44">%s</text>`+"\n",
			legend, e.colour, legend+24, e.name)
		legend += 24 + e.width + 22
	}

	for v := 0.0; v <= top; v += unit {
		fmt.Fprintf(&b, `<path d="M%d %.1fH%d" stroke="%s"/><text x="%d" y="%.1f" text-anchor="end">%.0f</text>`+"\n",
			plotLeft, y(v), plotWidth-plotRight, plotGrid, plotLeft-8, y(v)+4, v)
	}
	minute := int(time.Minute / virtualStep)
	for i := 0; i <= len(mine.load); i += minute {
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%d</text>`+"\n", x(i), plotHeight-plotBottom+16, i/minute)
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">minutes</text>`+"\n", plotWidth-plotRight, plotHeight-6)
	fmt.Fprintf(&b, `<text x="12" y="%d" transform="rotate(-90 12 %d)" text-anchor="middle">replicas ready</text>`+"\n",
		(plotTop+plotHeight-plotBottom)/2, (plotTop+plotHeight-plotBottom)/2)

	// line goes along values, with a point wherever they change.
	line := func(value func(i int) float64) string {
		var d strings.Builder
		last := value(0)
		fmt.Fprintf(&d, "M%.1f %.1f", x(0), y(last))
		for i := 1; i < len(mine.load); i++ {
			if v := value(i); v != last {
				fmt.Fprintf(&d, "H%.1fV%.1f", x(i), y(v))
				last = v
			}
		}
		fmt.Fprintf(&d, "H%.1f", x(len(mine.load)))
		return d.String()
	}
	// The load and what is ideal for it, at their highest in each second.
	const coarse = int(time.Second / virtualStep)
	highest := func(values func(i int) float64) func(i int) float64 {
		return func(i int) float64 {
			most := 0.0
			for j := i - i%coarse; j < min(i-i%coarse+coarse, len(mine.load)); j++ {
				most = max(most, values(j))
			}
			return most
		}
	}
	area := line(highest(func(i int) float64 { return mine.load[i] / limits.Target }))
	fmt.Fprintf(&b, `<path d="%sV%.1fH%dZ" fill="%s"/>`+"\n", area, y(0), plotLeft, plotLoad)
	for _, l := range []struct {
		replicas      func(i int) float64
		colour, style string
	}{
		{highest(func(i int) float64 { return float64(mine.ideal[i]) }), plotIdeal, `stroke-width="1" stroke-dasharray="2 2"`},
		{func(i int) float64 { return float64(theirs.replicas[i]) }, plotTheirs, `stroke-width="1.6"`},
		{func(i int) float64 { return float64(mine.replicas[i]) }, plotOurs, `stroke-width="2.2"`},
	} {
		fmt.Fprintf(&b, `<path d="%s" fill="none" stroke="%s" %s/>`+"\n", line(l.replicas), l.colour, l.style)
	}
	b.WriteString("</svg>\n")
	return []byte(b.String())
}
