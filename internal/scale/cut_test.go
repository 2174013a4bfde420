package scale

// Gateways that do not hear each other, or come and go, in virtual time.

import (
	"testing"
	"time"
)

// run lets time pass, with so many requests in flight at each gateway.
func (s *simSwarm) run(t *testing.T, length time.Duration, inFlight ...int) {
	t.Helper()
	for end := s.now + length; s.now < end; {
		s.step(t, inFlight)
	}
}

// A network that is cut leaves two gateways that act, each by its part of the load.
func TestACutBetweenGateways(t *testing.T) {
	for _, tt := range []struct {
		name  string
		parts []int
		side  func(gateway int) int
	}{
		{"two to one", []int{40, 20}, func(i int) int { return i }},
		{"one has nothing", []int{0, 60}, func(i int) int { return i }},
		{"even", []int{30, 30}, func(i int) int { return i }},
		{"one of three", []int{10, 30, 20}, func(i int) int { return min(i, 1) }},
		{"eight", []int{5, 10, 5, 10, 5, 10, 5, 10}, func(i int) int { return i % 2 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSimSwarm(testLimits(), len(tt.parts))
			s.run(t, 90*time.Second, tt.parts...)
			total := s.wanted
			before := len(s.changes)
			s.cut = func(a, b int) bool { return tt.side(a) != tt.side(b) }
			s.run(t, 5*time.Minute, tt.parts...)
			turns, last := 0, time.Duration(0)
			for i, c := range s.changes[before:] {
				if i > 0 && (c.to > c.from) != (s.changes[before+i-1].to > s.changes[before+i-1].from) {
					turns++
				}
				last = c.at
			}
			t.Logf("cut: %v", s.changes[before:])
			if turns > 1 || last > 90*time.Second+time.Minute {
				t.Errorf("while it was cut: got the changes %v, want at most some down and one up, within a minute", s.changes[before:])
			}
			s.cut = nil
			s.run(t, 5*time.Second, tt.parts...)
			healed := len(s.changes)
			if s.wanted != total {
				t.Errorf("5 s after: got %d replicas, want %d as before", s.wanted, total)
			}
			s.run(t, 2*time.Minute, tt.parts...)
			if len(s.changes) != healed || s.wanted != total {
				t.Errorf("long after: got the changes %v, want none", s.changes[healed:])
			}
		})
	}
}

// The gateway that acts dies, its callers go to the others, and a new one comes. Nothing
// of it shows as a dip or a surge, so that the replicas stay.
func TestAGatewayIsReplaced(t *testing.T) {
	s := newSimSwarm(testLimits(), 3)
	s.run(t, 90*time.Second, 10, 18, 6)
	if s.wanted != 4 {
		t.Fatalf("got %d replicas, want 4", s.wanted)
	}
	before := len(s.changes)
	for _, dies := range []int{0, 1, 0, 2} {
		dead := func(a, b int) bool { return a == dies || b == dies }
		s.cut = dead
		parts := [][]int{{0, 20, 14}, {20, 0, 14}, {0, 20, 14}, {17, 17, 0}}[dies]
		s.gateways[dies].scaler = New(func() []Function { return nil }, s, s.gateways[dies].scaler.options)
		s.run(t, 10*time.Second, parts...)
		s.start(dies)
		s.cut = nil
		s.run(t, 20*time.Second, parts...)
		s.run(t, 70*time.Second, 10, 18, 6)
	}
	if len(s.changes) != before {
		t.Errorf("got the changes %v under a steady load, want none", s.changes[before:])
	}
	s.run(t, 2*time.Minute, 0, 0, 0)
	if s.wanted != 1 {
		t.Errorf("without load: got %d replicas, want 1", s.wanted)
	}
}

// The next one raises without delay when the gateway that acts dies under rising load.
func TestTheNextGatewayRaises(t *testing.T) {
	s := newSimSwarm(testLimits(), 3)
	s.run(t, time.Minute, 2, 2, 2)
	s.cut = func(a, b int) bool { return a == 0 || b == 0 }
	s.gateways[0].scaler = New(func() []Function { return nil }, s, s.gateways[0].scaler.options)
	died := s.now
	s.run(t, 3*time.Second, 0, 40, 20)
	if s.wanted != 6 {
		t.Errorf("%v after it died: got %d replicas, want 6", s.now-died, s.wanted)
	}
}

// With zero=true a replica stays while any one gateway is used, and who is used wakes.
func TestZeroOverGateways(t *testing.T) {
	limits := testLimits()
	limits.Zero, limits.ZeroDuration = true, 20*time.Second
	s := newSimSwarm(limits, 3)
	for range 20 { // a call every 15 s, each time at another gateway than the one that acts
		s.run(t, 500*time.Millisecond, 0, 0, 1)
		s.run(t, 14500*time.Millisecond, 0, 0, 0)
		if s.wanted != 1 {
			t.Fatalf("%v: got %d replicas, want 1", s.now, s.wanted)
		}
	}
	s.run(t, 10*time.Second, 0, 0, 0)
	if s.wanted != 0 {
		t.Fatalf("after 25 s without a call: got %d replicas, want 0", s.wanted)
	}
	s.run(t, 500*time.Millisecond, 0, 1, 0)
	if s.wanted != 1 {
		t.Errorf("with a caller at one gateway: got %d replicas, want 1", s.wanted)
	}
}

// What somebody sets by hand is his at all gateways; what one of them sets is not.
func TestByHandOverGateways(t *testing.T) {
	s := newSimSwarm(testLimits(), 3)
	s.run(t, 90*time.Second, 5, 20, 5)
	s.set(8)
	s.run(t, 2*time.Minute, 5, 20, 5)
	for i, g := range s.gateways {
		if !g.scaler.tracks["f"].held {
			t.Errorf("gateway %d does not know that a number was set by hand", i)
		}
	}
	if s.wanted != 8 {
		t.Errorf("got %d replicas, want the 8 that were set by hand", s.wanted)
	}
	s.run(t, 2*time.Minute, 20, 50, 40)
	if s.wanted != 11 {
		t.Errorf("got %d replicas, want 11", s.wanted)
	}
	for i, g := range s.gateways {
		if tr := g.scaler.tracks["f"]; tr.held || tr.doubt || tr.replicas != 11 {
			t.Errorf("gateway %d takes what another one has set for set by hand", i)
		}
	}
}
