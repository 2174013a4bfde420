package peers

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"testing"
	"time"
)

// A world is Books that ask each other, in virtual time.
type world struct {
	now   time.Duration
	books []*Book
	loads []map[string]Load // Busy and Idle are kept by pass
}

func newWorld(n int) *world {
	w := &world{now: time.Hour}
	for i := range n {
		w.loads = append(w.loads, map[string]Load{"f": {}})
		w.books = append(w.books, w.book(i, uint64(i+1)))
	}
	return w
}

func (w *world) book(i int, identity uint64) *Book {
	return NewBook(identity, func(time.Duration, bool) iter.Seq2[string, Load] { return maps.All(w.loads[i]) })
}

// call has so many more requests of f in flight at gateway i.
func (w *world) call(i, delta int) {
	l := w.loads[i]["f"]
	l.InFlight += delta
	l.Started += uint64(max(delta, 0))
	l.Idle = 0
	w.loads[i]["f"] = l
}

// pass lets time pass, in which everybody asks everybody but those that are cut.
func (w *world) pass(t *testing.T, length time.Duration, cut ...int) {
	t.Helper()
	gone := func(i int) bool {
		for _, c := range cut {
			if c == i {
				return true
			}
		}
		return false
	}
	for end := w.now + length; w.now < end; w.now += askInterval {
		for i, b := range w.books {
			var named []string
			for j := range w.books {
				named = append(named, fmt.Sprint(j)) // its own address, too
			}
			b.Name(named, w.now)
			b.Sample(w.now)
			for _, a := range b.Asked(w.now) {
				var j int
				fmt.Sscan(a, &j)
				if gone(i) || gone(j) {
					continue
				}
				err := b.Hear(a, w.books[j].Answer(b.Ask(a, w.now), w.now), w.now, w.now)
				if (i == j) != errors.Is(err, errOwn) || i != j && err != nil {
					t.Fatalf("%d hears %d: %v", i, j, err)
				}
			}
		}
		for _, loads := range w.loads {
			for name, l := range loads {
				l.Busy += time.Duration(l.InFlight) * askInterval
				if l.InFlight == 0 {
					l.Idle += askInterval
				}
				loads[name] = l
			}
		}
	}
}

// total is what gateway i takes the load of all to have been.
func (w *world) total(i int) Total {
	t, _, _ := w.books[i].Sum("f").Sampled()
	return t
}

func TestTheSumIsExact(t *testing.T) {
	w := newWorld(3)
	w.call(0, 1)
	w.pass(t, time.Second)
	before := make([]Total, 3)
	for i := range before {
		before[i] = w.total(i)
	}
	w.call(1, 10)
	w.pass(t, 2*time.Second)
	w.call(1, -10) // they move
	w.call(2, 10)
	w.pass(t, 2*time.Second)
	w.call(2, -10)
	w.pass(t, time.Second)
	for i := range w.books {
		got := w.total(i)
		got.Busy -= before[i].Busy
		got.Started -= before[i].Started
		if want := (Total{Busy: 45 * time.Second, Started: 20}); got != want {
			t.Errorf("gateway %d: got %+v in 5 s, want %+v", i, got, want)
		}
	}
}

// An answer that is lost costs nothing, as long as the peer is heard.
func TestALostAnswerIsMadeUpFor(t *testing.T) {
	w := newWorld(2)
	w.call(0, 1)
	w.call(1, 1)
	w.pass(t, time.Second)
	before := w.total(0)
	w.pass(t, 500*time.Millisecond, 1)
	w.call(1, 5)
	w.pass(t, 250*time.Millisecond, 1)
	w.pass(t, time.Second)
	got := w.total(0) // of two samples ago, as was before
	if busy, want := got.Busy-before.Busy, 3500*time.Millisecond+5*750*time.Millisecond; busy != want || got.Started-before.Started != 5 {
		t.Errorf("got %v and %d started more, want %v and 5", busy, got.Started-before.Started, want)
	}
}

// A peer that is cut off, or restarts, makes no dip and no surge: from sample to sample,
// the sum grows by what is in flight at those that are heard.
func TestComingAndGoingMakesNoJump(t *testing.T) {
	w := newWorld(3)
	w.call(0, 2)
	w.call(1, 3)
	w.call(2, 5)
	w.pass(t, 10*time.Second)
	last := w.total(0)
	growth := func(cut ...int) (least, most time.Duration) {
		least = time.Hour
		for range 12 {
			w.pass(t, askInterval, cut...)
			sum := w.total(0)
			least, most = min(least, sum.Busy-last.Busy), max(most, sum.Busy-last.Busy)
			last = sum
		}
		return least, most
	}
	if least, most := growth(); least != 2500*time.Millisecond || most != least {
		t.Errorf("all: got %v to %v a sample, want 2.5s", least, most)
	}
	growth(2)
	if least, most := growth(2); least != 1250*time.Millisecond || most != least {
		t.Errorf("one is cut off: got %v to %v a sample, want 1.25s", least, most)
	}
	if least, most := growth(); least < 1250*time.Millisecond || most != 2500*time.Millisecond {
		t.Errorf("it is back: got %v to %v a sample, want at most 2.5s", least, most)
	}
	w.loads[1] = map[string]Load{"f": {InFlight: 3, Started: 3}}
	w.books[1] = w.book(1, 77)
	if least, most := growth(); least < 0 || most != 2500*time.Millisecond {
		t.Errorf("one restarts: got %v to %v a sample, want at most 2.5s", least, most)
	}
	if s := w.books[0].Status(w.now); s.Heard != 2 || s.Missing != 0 {
		t.Errorf("got %+v, want 2 heard, none missing", s)
	}
}

// Exactly one acts, whatever happens, but for a second after a change.
func TestOneActs(t *testing.T) {
	w := newWorld(3)
	acting := func(want ...int) {
		t.Helper()
		w.pass(t, 1500*time.Millisecond)
		var got []int
		for i, b := range w.books {
			if b.Acting(w.now) {
				got = append(got, i)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%v: %v act, want %v", w.now, got, want)
		}
	}
	acting(0)
	w.books[0].SetPassive(true)
	acting(1)
	w.books[1].Leave()
	acting(2)
	w.books[2].SetPassive(true)
	acting(0) // nobody can do better
	w.books[0].SetPassive(false)
	acting(0)
}

// Who does not answer keeps the others from lowering for 30 s, and who has said that it
// leaves does not.
func TestWhoIsMissed(t *testing.T) {
	w := newWorld(3)
	if w.books[0].Complete(w.now) {
		t.Error("complete before it knows who there is")
	}
	w.pass(t, 2*time.Second)
	if s := w.books[0].Status(w.now); s.Heard != 2 || s.Expected != 2 || s.Missing != 0 {
		t.Errorf("got %+v, want 2 heard of 2", s)
	}
	w.pass(t, 28*time.Second, 2)
	if s := w.books[0].Status(w.now); s.Heard != 1 || s.Expected != 2 || s.Missing != 1 {
		t.Errorf("28 s without one: got %+v, want 1 heard of 2, 1 missing", s)
	}
	w.pass(t, 3*time.Second, 2)
	if !w.books[0].Complete(w.now) {
		t.Error("31 s without one: it is still missed")
	}
	w.books[1].Leave()
	w.pass(t, time.Second, 2)
	w.pass(t, 2*time.Second, 1, 2)
	if s := w.books[0].Status(w.now); s.Heard != 0 || s.Missing != 0 {
		t.Errorf("one has left: got %+v, want none heard and none missing", s)
	}
}

// Who knows a function's replicas is who has just used it.
func TestReadyIsOfWhoUsesTheFunction(t *testing.T) {
	w := newWorld(3)
	w.loads[1]["f"] = Load{Started: 1, Idle: time.Minute, Ready: 4}
	w.loads[2]["f"] = Load{Started: 1, InFlight: 1}
	w.pass(t, time.Second)
	if got := w.books[0].Sum("f").Others(w.now).Ready; got != 0 {
		t.Errorf("got %d ready replicas, want none, as who calls it sees", got)
	}
	w.loads[2]["f"] = Load{Started: 1, Idle: 30 * time.Second, Ready: 1}
	w.pass(t, time.Second)
	if got := w.books[0].Sum("f").Others(w.now); got.Ready != 4 || got.Idle < 30*time.Second || got.Idle > 32*time.Second {
		t.Errorf("nobody has used it: got %+v, want 4 ready, idle for 31 s", got)
	}
}

func TestPruneForgetsWhatIsGone(t *testing.T) {
	w := newWorld(2)
	for round := range 5 {
		w.loads[1] = map[string]Load{}
		for i := range 1000 {
			w.loads[1][fmt.Sprintf("f-%d-%d", round, i)] = Load{Started: 1}
		}
		w.pass(t, 2*time.Second)
		w.books[0].Prune(10, func(string) bool { return false })
		w.pass(t, time.Second)
		w.books[0].Prune(10, func(string) bool { return false })
	}
	b := w.books[0]
	if entries, sums := len(b.peers["1"].entries), len(b.sums); entries > 2100 || sums > 2100 {
		t.Errorf("got %d entries and %d sums, want at most 2 rounds of 1000", entries, sums)
	}
}

// What does not change is not said again: an idle exchange is a few bytes.
func TestOnlyChangesAreSaid(t *testing.T) {
	w := newWorld(2)
	for i := range 1000 {
		w.loads[1][fmt.Sprint("function-", i)] = Load{Started: 5, InFlight: i % 2, Ready: 1}
	}
	w.pass(t, time.Second)
	if got := len(w.books[1].Answer(w.books[0].Ask("1", w.now), w.now)); got > 30 {
		t.Errorf("got an answer of %d bytes without a change, want at most 30", got)
	}
	l := w.loads[1]["function-7"]
	l.Started++
	w.loads[1]["function-7"] = l
	if got := len(w.books[1].Answer(w.books[0].Ask("1", w.now), w.now)); got > 80 {
		t.Errorf("got an answer of %d bytes for one change, want at most 80", got)
	}
}

func FuzzHear(f *testing.F) {
	w := newWorld(2)
	w.loads[1]["f"] = Load{Started: 3, InFlight: 1, Ready: 1, Busy: time.Hour}
	f.Add(w.books[1].Answer(Ask{}, 0))
	f.Add([]byte("HTTP/1.1 200 OK\r\n\r\n"))
	f.Fuzz(func(t *testing.T, body []byte) {
		b := newWorld(1).books[0]
		b.Sample(0)
		for i := range 3 {
			b.Hear("x", body, time.Duration(i)*askInterval, time.Duration(i)*askInterval)
		}
		l := b.Sum("f").Others(time.Second)
		if l.InFlight < 0 || l.Ready < 0 {
			t.Errorf("got %+v of %q", l, body)
		}
	})
}
