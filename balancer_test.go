package main

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

func balancerOf(addrs ...string) *balancer {
	b := new(balancer)
	b.update(addrs)
	return b
}

func TestPickTakesTheLeastBusyAndBreaksTiesAtRandom(t *testing.T) {
	b := balancerOf("a", "b", "c")
	for range 30 {
		b.pick(nil, time.Now())
	}
	for _, r := range b.replicas() {
		if n := r.inflight.Load(); n != 10 {
			t.Errorf("%s: got %d in flight, want 10", r.addr, n)
		}
	}
	b = balancerOf("a", "b", "c")
	count := map[string]int{}
	for range 3000 {
		r := b.pick(nil, time.Now())
		count[r.addr]++
		r.inflight.Add(-1)
	}
	for _, addr := range []string{"a", "b", "c"} {
		if count[addr] < 750 {
			t.Errorf("%s got %d of 3000 requests that came one by one, want about 1000", addr, count[addr])
		}
	}
}

func TestPickPassesOverTriedAndEjected(t *testing.T) {
	now := time.Now()
	b := balancerOf("a", "b", "c")
	set := b.replicas()
	b.failed(set[0], now)
	for range 10 {
		if r := b.pick(set[1:2], time.Now()); r.addr != "c" {
			t.Fatalf("got %s, want c: a is ejected, b was tried", r.addr)
		}
	}
	if r := b.pick(set[1:], time.Now()); r.addr != "a" {
		t.Errorf("got %s, want a: an ejected one is better than none", r.addr)
	}
	if r := b.pick(set, time.Now()); r != nil {
		t.Errorf("got %s, want none: all were tried", r.addr)
	}
	if r := new(balancer).pick(nil, time.Now()); r != nil {
		t.Errorf("got %s, want none of none", r.addr)
	}
}

func TestEjectionGrowsAndSparesTheLast(t *testing.T) {
	now := time.Now()
	b := balancerOf("a", "b")
	r := b.replicas()[0]
	for _, want := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		for range 16 { // callers that dialled it at the same time
			b.failed(r, now)
		}
		want *= time.Second
		if got := b.toProbe(now.Add(want - 1)); len(got) != 0 {
			t.Fatalf("due before %s", want)
		}
		now = now.Add(want)
		if got := b.toProbe(now); len(got) != 1 || got[0] != r {
			t.Fatalf("not due after %s", want)
		}
	}
	last := b.replicas()[1]
	for range 16 {
		b.failed(last, now)
	}
	if got := b.ready(); got != 1 {
		t.Errorf("got %d ready, want 1: the last one is not ejected", got)
	}
	if !b.allFailed() {
		t.Error("allFailed: got false, want true")
	}
	b.reached(r, now)
	if b.ready() != 2 || b.allFailed() {
		t.Errorf("after it was reached: got %d ready, want 2", b.ready())
	}
	b.failed(r, now)
	if got := b.toProbe(now.Add(ejectFirst)); len(got) != 1 {
		t.Error("an ejection after a success does not begin at the shortest")
	}
	b.reached(r, now)
	b.failed(last, now)
	if got := b.toProbe(now.Add(2 * ejectFirst)); len(got) != 1 || got[0] != last {
		t.Error("one that was spared as the last is ejected for long when it is not the last any more")
	}
}

// A replica that keeps silent with requests inside gets no more of them while
// there is another, until it gives a sign of life.
func TestASilentReplicaIsDoubted(t *testing.T) {
	now := time.Now()
	b := balancerOf("a", "b")
	a, other := b.replicas()[0], b.replicas()[1:]
	for _, c := range []struct {
		name  string
		after time.Duration // since the request before
		want  bool
	}{
		{"nothing was to be heard", time.Hour, false},
		{"another request soon", silenceLeast, false},
		{"another one later", time.Nanosecond, true},
		{"doubted already", time.Hour, false},
	} {
		now = now.Add(c.after)
		b.pick(other, time.Now())
		if got := a.doubt(now); got != c.want {
			t.Errorf("%s: got doubt %v, want %v", c.name, got, c.want)
		}
	}
	if got := b.toProbe(now); len(got) != 1 || got[0] != a {
		t.Errorf("got %d replicas to probe, want the doubted one", len(got))
	}
	for range 20 {
		if r := b.pick(nil, time.Now()); r == a {
			t.Fatal("got the doubted replica, want the other one, however busy it is")
		}
	}
	if r := b.pick(other, time.Now()); r != a {
		t.Error("got no replica, want the doubted one rather than none")
	}
	b.reached(a, now)
	if got := b.toProbe(now); len(got) != 0 || a.doubted.Load() {
		t.Error("got a doubt after it was reached, want none")
	}
	b.answered(a, 200, time.Now().Add(-time.Hour))
	if b.pick(other, time.Now()); a.doubt(time.Now().Add(time.Hour)) {
		t.Error("got a doubt within the time that its answers take, want none")
	}
}

func TestUpdateKeepsWhatIsKnown(t *testing.T) {
	b := balancerOf("a", "b", "c")
	a := b.pick(b.replicas()[1:], time.Now())
	b.failed(b.replicas()[1], time.Now())
	left := b.update([]string{"d", "b", "a"})
	if !slices.Equal(left, []string{"c"}) {
		t.Errorf("left: got %v, want c", left)
	}
	for _, r := range b.replicas() {
		if r.addr == "a" && r != a {
			t.Error("a lost its state")
		}
		if got, want := r.ejected.Load(), r.addr == "b"; got != want {
			t.Errorf("%s ejected: got %v, want %v", r.addr, got, want)
		}
	}
}

func BenchmarkPick(b *testing.B) {
	for _, n := range []int{1, 3, 20} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			addrs := make([]string, n)
			for i := range addrs {
				addrs[i] = fmt.Sprint("10.0.0.", i, ":8080")
			}
			bal := balancerOf(addrs...)
			now := time.Now()
			b.ReportAllocs()
			for b.Loop() {
				bal.pick(nil, now).inflight.Add(-1)
			}
		})
	}
}
