package peers

import (
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"testing"
	"time"
)

// A gatewayLoads keeps the loads of one gateway, and yields, as a gateway does, only
// those that may have changed when it is not asked for all.
type gatewayLoads struct {
	loads   map[string]Load
	changed map[string]time.Duration
	now     func() time.Duration
}

func (g *gatewayLoads) call(name string, delta int) {
	l := g.loads[name]
	l.InFlight += delta
	l.Started += uint64(max(delta, 0))
	l.Idle = 0
	l.Ready = 1 + int(l.Started)%3
	g.loads[name], g.changed[name] = l, g.now()
}

func (g *gatewayLoads) pass(length time.Duration) {
	for name, l := range g.loads {
		l.Busy += time.Duration(l.InFlight) * length
		if l.InFlight == 0 {
			l.Idle += length
		} else {
			g.changed[name] = g.now()
		}
		g.loads[name] = l
	}
}

func (g *gatewayLoads) yield(_ time.Duration, all bool) iter.Seq2[string, Load] {
	return func(yield func(string, Load) bool) {
		for name, l := range g.loads {
			if (all || g.now()-g.changed[name] < ChangedTime) && !yield(name, l) {
				return
			}
		}
	}
}

// Functions are called now and then, with pauses in which their sums sleep. At each
// sample, each gateway's sum is what all of them had at the sample before it, and what it
// says of the others is what they are.
func TestSumsThatSleepAreExact(t *testing.T) {
	t.Run("all answers in time", func(t *testing.T) { sumsSleep(t, 0) })
	t.Run("some late", func(t *testing.T) { sumsSleep(t, 10) })
}

// sumsSleep has so many percent of the answers come with the next one, whose sum is right
// when all are in.
func sumsSleep(t *testing.T, late int) {
	const gateways, functions, samples = 3, 40, 2000
	random := rand.New(rand.NewPCG(14, 3))
	now := time.Hour
	var loads []*gatewayLoads
	var books []*Book
	for i := range gateways {
		g := &gatewayLoads{loads: map[string]Load{}, changed: map[string]time.Duration{}, now: func() time.Duration { return now }}
		for f := range functions {
			g.loads[fmt.Sprint(f)] = Load{Idle: now}
		}
		loads = append(loads, g)
		books = append(books, NewBook(uint64(i+1), g.yield))
	}
	sums := make([][functions]*Sum, gateways)
	for i, b := range books {
		for f := range functions {
			sums[i][f] = b.Sum(fmt.Sprint(f))
		}
	}
	all := func(f int) (t Total) {
		for _, g := range loads {
			l := g.loads[fmt.Sprint(f)]
			t.Busy += l.Busy
			t.Started += l.Started
		}
		return t
	}
	var before [functions]Total // at the sample before this one
	beforeAt, asleep := time.Duration(-1), 0
	for sample := range samples {
		var here [functions]Total
		for f := range functions {
			here[f] = all(f)
		}
		for _, b := range books {
			b.Sample(now)
		}
		for i, b := range books {
			for j, other := range books {
				if i == j {
					continue
				}
				at := fmt.Sprint(j)
				if ask := b.Ask(at, now); (sample+i+j)%3 == 0 || random.IntN(100) >= late { // never so late that it is forgotten
					if err := b.Hear(at, other.Answer(ask, now), now, now); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		for i := range books {
			for f := range functions {
				name := fmt.Sprint(f)
				if sums[i][f].quiet.Load() != nil {
					asleep++
				}
				got, at, ok := sums[i][f].Sampled()
				if sample == 0 {
					continue
				}
				if !ok || at != beforeAt || late == 0 && got != before[f] {
					t.Fatalf("sample %d, gateway %d, function %d: got %+v at %v (%t), want %+v at %v", sample, i, f, got, at, ok, before[f], beforeAt)
				}
				var others Load
				idle, last := now, time.Duration(0)
				for j, g := range loads {
					if l := g.loads[name]; j != i {
						others.InFlight += l.InFlight
						idle, last = min(idle, l.Idle), max(last, g.changed[name])
					}
				}
				l := sums[i][f].Others(now)
				if settled := now-last > 4*time.Second; settled {
					if got != before[f] {
						t.Fatalf("sample %d, gateway %d, function %d: got %+v, want %+v", sample, i, f, got, before[f])
					}
					if l.InFlight != others.InFlight || l.Idle < idle-time.Second || l.Idle > idle+time.Second {
						t.Fatalf("sample %d, gateway %d, function %d: got %+v of the others, want %d in flight, idle for %v", sample, i, f, l, others.InFlight, idle)
					}
				}
			}
		}
		before, beforeAt = here, now
		for range random.IntN(3) {
			g, name := loads[random.IntN(gateways)], fmt.Sprint(random.IntN(functions))
			if l := g.loads[name]; l.InFlight > 0 && random.IntN(4) > 0 {
				g.call(name, -l.InFlight)
			} else {
				g.call(name, 1+random.IntN(5))
			}
		}
		if sample%200 > 120 { // all end, and rest
			for _, g := range loads {
				for name, l := range g.loads {
					if l.InFlight > 0 {
						g.call(name, -l.InFlight)
					}
				}
			}
		}
		now += askInterval
		for _, g := range loads {
			g.pass(askInterval)
		}
	}
	if least := gateways * functions * samples / 10; asleep < least {
		t.Errorf("sums slept %d times, want %d at least: the test shows nothing", asleep, least)
	}
	t.Logf("sums slept in %d of %d looks", asleep, gateways*functions*samples)
}

// Idle functions cost a sample nothing.
func TestIdleSumsSleep(t *testing.T) {
	w := newWorld(2)
	for i := range 1000 {
		name := fmt.Sprint("function-", i)
		w.loads[0][name], w.loads[1][name] = Load{Started: 1}, Load{Started: 1, Ready: 1}
	}
	w.pass(t, 5*time.Second)
	for i, b := range w.books {
		if got := len(b.awake); got > 1 {
			t.Errorf("gateway %d: %d sums are awake, want none but one that nobody has used", i, got)
		}
	}
	w.call(1, 1)
	w.pass(t, time.Second)
	if got := len(w.books[0].awake); got != 1 {
		t.Errorf("got %d sums awake, want the one that is used", got)
	}
	if got := w.books[0].Sum("f").Others(w.now).InFlight; got != 1 {
		t.Errorf("got %d in flight at the other, want 1", got)
	}
}

// A function that is removed and made again under its name counts from nothing, and
// the sum goes on.
func TestAFunctionMadeAgainMakesNoDip(t *testing.T) {
	w := newWorld(2)
	w.call(0, 4)
	w.call(1, 4)
	w.pass(t, 10*time.Second)
	w.call(0, -4)
	w.pass(t, 5*time.Second)
	before := w.total(0)
	delete(w.loads[0], "f")
	w.pass(t, 10*time.Second)
	w.loads[0]["f"] = Load{}
	w.call(0, 1)
	last := before
	for range 20 {
		w.pass(t, askInterval)
		got := w.total(0)
		if got.Busy < last.Busy || got.Started < last.Started {
			t.Fatalf("got %+v after %+v, want no less", got, last)
		}
		last = got
	}
	if got := last.Started - before.Started; got != 1 {
		t.Errorf("got %d started, want 1", got)
	}
}

// A sum that somebody has just asked for is not forgotten, though its function is in no
// snapshot yet.
func TestPruneKeepsWhatIsAboutToExist(t *testing.T) {
	w := newWorld(1)
	for i := range 5000 {
		w.books[0].sum(fmt.Sprint(i))
	}
	w.pass(t, time.Second)
	s := w.books[0].Sum("new")
	none := func(string) bool { return false }
	w.books[0].Prune(1, none)
	if got := w.books[0].Sum("new"); got != s {
		t.Error("the sum was forgotten")
	}
}

// An answer that is late says more than one in time. The sum is that of the sample all
// the same.
func TestALateAnswerIsNoSurge(t *testing.T) {
	const inflight = 60
	random := rand.New(rand.NewPCG(14, 4))
	peer := map[string]Load{"f": {}}
	other := NewBook(2, func(time.Duration, bool) iter.Seq2[string, Load] { return maps.All(peer) })
	b := NewBook(1, func(time.Duration, bool) iter.Seq2[string, Load] { return maps.All(map[string]Load{"f": {}}) })
	s := b.Sum("f")
	last := time.Duration(-1)
	for i := range 100 {
		now := time.Hour + time.Duration(i)*askInterval
		b.Sample(now)
		if sum, _, ok := s.Sampled(); ok {
			if grown := sum.Busy - last; i > 5 && (grown-inflight*askInterval).Abs() > time.Millisecond {
				t.Fatalf("sample %d: the sum grew by %v, want %v", i, grown, inflight*askInterval)
			}
			last = sum.Busy
		}
		answered := now + time.Duration(random.Int64N(int64(askInterval)))
		peer["f"] = Load{Busy: inflight * (answered - time.Hour), Started: inflight + uint64(i), InFlight: inflight}
		if err := b.Hear("2", other.Answer(b.Ask("2", now), answered), answered, now); err != nil {
			t.Fatal(err)
		}
	}
}
