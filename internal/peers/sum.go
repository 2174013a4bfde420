package peers

// What all gateways have of one function.

import (
	"slices"
	"sync/atomic"
	"time"
)

const (
	// ChangedTime is how long a change of a load is a recent one. A peer that is heard
	// has heard of what is older.
	ChangedTime = 10 * time.Second

	// wholeInterval is how often all loads are read, for those that change without a call.
	wholeInterval = 5 * time.Second

	// sleepAfter is how long nothing has changed in a sum that goes to sleep.
	sleepAfter = 3 * time.Second
)

// A round is when all loads were last read; -1: never.
type round time.Duration

// due reports whether they are to be read again, at now.
func (r *round) due(now time.Duration) bool {
	if *r >= 0 && now-time.Duration(*r) < wholeInterval {
		return false
	}
	*r = round(now)
	return true
}

// A Sum adds up what this gateway and its peers ever reported of one function. It is safe
// for concurrent use.
//
// There may be thousands of functions, of which few are called at a time. A sum in which
// nothing changes sleeps: Sample passes over it, and its methods need no lock.
type Sum struct {
	book  *Book
	quiet atomic.Pointer[quiet] // nil: it is awake

	// The rest is under the lock of the book.
	own     Total         // of this gateway, at the last Sample
	here    bool          // own is known
	sample  Total         // of all, at the Sample before it
	at      time.Duration // when that was; -1: never
	changed time.Duration // when anything last did
	wanted  time.Duration // the last Sample before somebody asked for it; -1: nobody has

	entries []*entry // of the peers that are heard

	busy    time.Duration
	started uint64
	active  time.Duration // when there last was a request at a peer that is gone

	set   int           // replicas that a peer has set
	setAt time.Duration // when that was heard; -1: never

	joined time.Duration // when a peer was first heard that had used the function; -1: never
}

// quiet is what there is to say of a sum in which nothing changes.
type quiet struct {
	sample Total
	here   bool
	others Load          // but for Idle
	active time.Duration // when there last was a request at a peer
}

// Sum returns the sum of a function that exists or is about to.
func (b *Book) Sum(name string) *Sum {
	b.hearing.Lock()
	defer b.hearing.Unlock()
	s := b.sum(name)
	s.wanted = b.sampled
	return s
}

func (b *Book) sum(name string) *Sum {
	s := b.sums[name]
	if s == nil {
		s = &Sum{book: b, wanted: -1, setAt: -1, at: -1, joined: -1}
		b.sums[name] = s
		b.awake[s] = struct{}{}
	}
	return s
}

// Sampled returns the total of all gateways at the last but one Sample, and when that
// was. ok is false for a function that did not exist then.
func (s *Sum) Sampled() (t Total, at time.Duration, ok bool) {
	if q := s.quiet.Load(); q != nil {
		return q.sample, time.Duration(s.book.before.Load()), q.here
	}
	s.book.hearing.Lock()
	defer s.book.hearing.Unlock()
	if s.at < 0 {
		return Total{}, 0, false
	}
	return s.sample, s.at, true
}

// InUse is how long a gateway knows the ready replicas of a function after a request:
// it looks them up every second while the function is in use.
const InUse = 2 * time.Second

// Others returns what all peers that are heard said last of the function: InFlight, Idle,
// Ready and Alert. Ready is what the peers say that have just used the function, or all
// if none has. Alert says that an alert scales it, as one of them knows.
func (s *Sum) Others(now time.Duration) Load {
	if q := s.quiet.Load(); q != nil {
		l := q.others
		l.Idle = now - q.active
		return l
	}
	s.book.hearing.Lock()
	defer s.book.hearing.Unlock()
	s.book.expire(now)
	return s.others(now)
}

func (s *Sum) others(now time.Duration) Load {
	var l Load
	active, used := s.active, false
	for _, e := range s.entries {
		l.InFlight += e.InFlight
		l.Alert = l.Alert || e.Alert
		at := e.active(now)
		active = max(active, at)
		switch recent := now-at <= InUse; {
		case recent && !used:
			l.Ready, used = e.Ready, true
		case recent == used:
			l.Ready = max(l.Ready, e.Ready)
		}
	}
	l.Idle = now - active
	return l
}

// measure notes this gateway's own load at a Sample.
func (s *Sum) measure(l Load, now time.Duration) {
	t := Total{l.Busy, l.Started}
	if s.here && t == s.own {
		return
	}
	s.wake(now)
	if t.Busy < s.own.Busy || t.Started < s.own.Started { // another function took the name
		s.busy += s.own.Busy
		s.started += s.own.Started
	}
	s.own, s.here = t, true
}

// take has the sum be that of the time at.
func (s *Sum) take(at time.Duration) {
	if !s.here {
		return
	}
	s.at, s.sample = at, Total{s.own.Busy + s.busy, s.own.Started + s.started}
	for _, e := range s.entries {
		s.sample.Busy += e.grown(at)
	}
}

// add has a peer's entry count. In the first answer of a process it counts from what l is.
func (s *Sum) add(e *entry, l Load, first bool, now time.Duration) {
	s.entries = append(s.entries, e)
	if first {
		e.Load = l
		if l.Started > 0 && l.Idle < goneAfter {
			s.joined = now
			s.book.joined.Store(int64(now))
		}
	}
}

// note adds the differences between an entry and what it becomes, as of the time at.
func (s *Sum) note(e *entry, l Load, at, now time.Duration) {
	s.wake(now)
	if l.Busy < e.Busy || l.Started < e.Started {
		e.Load = l // another function took the name
	}
	s.busy += l.Busy - e.Busy
	s.started += l.Started - e.Started
	if l.Sets != e.Sets {
		s.set, s.setAt = l.Replicas, now
	}
	e.Load, e.at = l, at
}

// drop ends an entry at the time until which it counts.
func (s *Sum) drop(e *entry, until time.Duration) {
	s.wake(until)
	s.busy += e.grown(until)
	s.active = max(s.active, e.active(until))
	s.entries = slices.DeleteFunc(s.entries, func(other *entry) bool { return other == e })
}

// wake notes a change.
func (s *Sum) wake(now time.Duration) {
	s.changed = max(s.changed, now)
	if q := s.quiet.Load(); q != nil {
		if q.here {
			s.at = time.Duration(s.book.before.Load())
		}
		s.quiet.Store(nil)
		s.book.awake[s] = struct{}{}
	}
}

// rest lets the sum sleep if nothing changes in it.
func (s *Sum) rest(now time.Duration) {
	if now-s.changed < sleepAfter {
		return
	}
	for _, e := range s.entries {
		if now-e.active(now) <= InUse {
			return
		}
	}
	s.take(now)
	l := s.others(now)
	s.quiet.Store(&quiet{sample: s.sample, here: s.here, others: l, active: now - l.Idle})
	delete(s.book.awake, s)
}

// grown is by how much Busy is more at a time than what the entry says, or, at an earlier
// one, was less.
func (e *entry) grown(at time.Duration) time.Duration {
	return time.Duration(e.InFlight) * (at - e.at)
}

// active is when there last was a request.
func (e *entry) active(now time.Duration) time.Duration {
	if e.InFlight > 0 {
		return now
	}
	return e.at - e.Idle
}
