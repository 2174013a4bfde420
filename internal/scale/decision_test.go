package scale

import (
	"testing"
	"time"
)

func TestDecide(t *testing.T) {
	// calm is a function that has been as it is for long.
	calm := func(replicas int, load float64) input {
		return input{limits: testLimits(), replicas: replicas, inFlight: int(load),
			stable: load, short: load, surge: load, peak: load, settled: true}
	}
	with := func(in input, change func(in *input)) input {
		change(&in)
		return in
	}
	tests := []struct {
		name   string
		in     input
		want   int
		reason string
	}{
		{"idle at the floor", calm(1, 0), 1, reasonNone},
		{"exactly the target", calm(1, 10), 1, reasonNone},
		{"just above the target, long enough", calm(1, 10.5), 2, reasonLoad},
		{"just above the target, for three seconds",
			with(calm(1, 0), func(in *input) { in.short, in.surge, in.peak = 11, 11, 11 }), 1, reasonNone},
		{"far above the target, for three seconds",
			with(calm(1, 2), func(in *input) { in.short, in.surge, in.peak = 13, 26, 13 }), 3, reasonPanic},
		{"a surge that has passed already",
			with(calm(1, 2), func(in *input) { in.short, in.surge, in.peak = 13, 0, 13 }), 1, reasonNone},
		{"in a panic the least is enough",
			with(calm(3, 2), func(in *input) { in.short, in.surge, in.panicking = 30.5, 31, true }), 4, reasonPanic},
		{"at most the maximum", calm(1, 5000), 20, reasonLoad},
		{"already at the maximum", calm(20, 5000), 20, reasonNone},
		{"the first replica starts", with(calm(1, 40), func(in *input) { in.none = true }), 1, reasonNone},
		{"the first replica starts below the minimum",
			with(calm(1, 40), func(in *input) { in.none, in.limits.Min = true, 2 }), 2, reasonLimits},
		{"no replica gets ready in a surge", with(calm(1, 2), func(in *input) {
			in.short, in.surge, in.panicking, in.none = 300, 300, true, true
		}), 1, reasonNone},
		{"no replica is ready, and none is needed", with(calm(4, 0), func(in *input) { in.none = true }), 2, reasonCalm},

		{"half of it at most", calm(20, 15), 10, reasonCalm},
		{"half of an odd number, rounded up", calm(5, 0), 3, reasonCalm},
		{"to what the load needs", calm(4, 25), 3, reasonCalm},
		{"to the minimum", with(calm(4, 0), func(in *input) { in.limits.Min = 3 }), 3, reasonCalm},
		{"not before the windows say so", with(calm(4, 5), func(in *input) { in.settled = false }), 4, reasonNone},
		{"not after a peak", with(calm(4, 5), func(in *input) { in.peak = 35 }), 4, reasonNone},
		{"not in a panic", with(calm(4, 5), func(in *input) { in.panicking = true }), 4, reasonNone},
		{"not below the requests in flight", with(calm(4, 0), func(in *input) { in.inFlight = 38 }), 4, reasonNone},
		{"not while set by hand", with(calm(4, 0), func(in *input) { in.held = true }), 4, reasonNone},

		{"below the minimum", with(calm(1, 0), func(in *input) { in.limits.Min = 3 }), 3, reasonLimits},
		{"below the minimum by hand",
			with(calm(1, 0), func(in *input) { in.limits.Min, in.held = 3, true }), 1, reasonNone},
		{"below the minimum by hand, and the load needs more",
			with(calm(1, 12), func(in *input) { in.limits.Min, in.held = 3, true }), 3, reasonLoad},
		{"above the maximum", calm(30, 0), 20, reasonLimits},
		{"above the maximum by hand", with(calm(30, 500), func(in *input) { in.held = true }), 30, reasonNone},
		{"above the maximum under load", calm(30, 500), 20, reasonLimits},
		{"a minimum of 0 is one of 1", with(calm(2, 0), func(in *input) { in.limits.Min = 0 }), 1, reasonCalm},
		{"idle for long, and may not go to zero",
			with(calm(1, 0), func(in *input) { in.limits.Min, in.idle = 0, time.Hour }), 1, reasonNone},

		{"idle for long, and may go to zero",
			with(calm(1, 0), func(in *input) { in.limits.Zero, in.idle = true, 15*time.Minute }), 0, reasonIdle},
		{"not idle for long enough",
			with(calm(1, 0), func(in *input) { in.limits.Zero, in.idle = true, 15*time.Minute-1 }), 1, reasonNone},
		{"to zero from many, whatever the windows say",
			with(calm(4, 0), func(in *input) {
				in.limits.Zero, in.limits.ZeroDuration, in.idle = true, 5*time.Second, 5*time.Second
				in.peak, in.settled, in.panicking = 40, false, true
			}), 0, reasonIdle},
		{"never with a request in flight or waiting",
			with(calm(1, 1), func(in *input) { in.limits.Zero, in.idle = true, time.Hour }), 1, reasonNone},
		{"at zero without a caller", calm(0, 0), 0, reasonNone},
		{"at zero with a minimum, without a caller",
			with(calm(0, 0), func(in *input) { in.limits.Min = 3 }), 0, reasonNone},
		{"at zero by hand, and called",
			with(calm(0, 0), func(in *input) { in.inFlight, in.held = 1, true }), 1, reasonWake},
		{"from zero for many callers: one starts alone",
			with(calm(0, 0), func(in *input) { in.inFlight = 2000 }), 1, reasonWake},
		{"from zero to the minimum",
			with(calm(0, 0), func(in *input) { in.inFlight, in.limits.Min = 1, 2 }), 2, reasonWake},

		{"fixed", with(calm(1, 500), func(in *input) { in.limits.Fixed = true }), 1, reasonNone},
		{"equal limits", with(calm(1, 500), func(in *input) { in.limits.Min, in.limits.Max = 3, 3 }), 1, reasonNone},
		{"equal limits, at zero",
			with(calm(0, 5), func(in *input) { in.limits.Min, in.limits.Max = 3, 3 }), 0, reasonNone},
		{"a factor of 0", with(calm(1, 500), func(in *input) { in.limits.Factor = 0 }), 1, reasonNone},

		{"by rate: the requests in flight say nothing",
			with(calm(2, 5), func(in *input) { in.limits.Kind, in.inFlight = RPS, 90 }), 1, reasonCalm},
		{"by rate: up", with(calm(1, 35), func(in *input) { in.limits.Kind = RPS }), 4, reasonLoad},
		{"by rate: from zero",
			with(calm(0, 0), func(in *input) { in.limits.Kind, in.inFlight, in.surge = RPS, 30, 20 }), 1, reasonWake},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := decide(tt.in)
			if got.replicas != tt.want || got.reason != tt.reason {
				t.Errorf("got %d (%q), want %d (%q)", got.replicas, got.reason, tt.want, tt.reason)
			}
			if (got.reason == reasonNone) != (got.replicas == tt.in.replicas) {
				t.Errorf("from %d to %d: got reason %q", tt.in.replicas, got.replicas, got.reason)
			}
		})
	}
}

func TestDecideAgain(t *testing.T) {
	up := input{limits: testLimits(), replicas: 1, inFlight: 40, stable: 5, short: 20, surge: 40, peak: 20, panicking: true}
	down := input{limits: testLimits(), replicas: 4, settled: true, idle: time.Minute}
	zero := down
	zero.limits.Zero, zero.limits.ZeroDuration = true, time.Minute
	waking := input{limits: testLimits(), inFlight: 200, stable: 200, short: 200, surge: 200, none: true}
	const now = time.Hour
	tests := []struct {
		name    string
		in      input
		totals  Totals
		current int
		want    int
	}{
		{"nothing came between", up, Totals{InFlight: 40, LastActive: now}, 1, 4},
		{"somebody set enough", up, Totals{InFlight: 40, LastActive: now}, 6, 6},
		{"somebody set too few", up, Totals{InFlight: 40, LastActive: now}, 2, 4},
		{"down", down, Totals{}, 4, 2},
		{"somebody went up: not down at once", down, Totals{}, 8, 8},
		{"somebody went down", down, Totals{}, 2, 2},
		{"requests came", down, Totals{InFlight: 35, LastActive: now}, 4, 4},
		{"to zero", zero, Totals{}, 4, 0},
		{"to zero, and a request came", zero, Totals{InFlight: 1, LastActive: now}, 4, 2},
		{"to zero, and a request came and went", zero, Totals{LastActive: now - 1}, 4, 2},
		{"to zero, and somebody scaled it", zero, Totals{}, 1, 1},
		{"from zero, and somebody was quicker", waking, Totals{InFlight: 200, LastActive: now}, 1, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.in.decideAgain(now, tt.totals, tt.current); got.replicas != tt.want {
				t.Errorf("got %d (%q), want %d", got.replicas, got.reason, tt.want)
			}
		})
	}
}
