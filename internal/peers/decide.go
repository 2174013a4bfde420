package peers

// What follows from what was heard: the sum of loads, who acts, who owns a key.

import (
	"bytes"
	"time"
)

// Sample takes a sample of the load of all functions: it notes what this gateway has
// now. The others are to be asked at once; at the next Sample their answers are in, and
// Sampled returns the sum of this moment.
//
// A sum of what is known at any moment would not do. A call that moves from one gateway
// to another would count twice, or not at all, until the next answer; and what was late
// would look like a surge. So the sum is exact, and one sample old.
func (b *Book) Sample(now time.Duration) {
	b.hearing.Lock()
	defer b.hearing.Unlock()
	b.expire(now)
	for s := range b.awake {
		s.take(b.sampled)
	}
	b.before.Store(int64(b.sampled))
	b.sampled = now
	for name, l := range b.loads(now, b.sampledAll.due(now)) {
		b.sum(name).measure(l, now)
	}
	for s := range b.awake {
		s.rest(now)
	}
}

// Set returns the number of replicas that a peer has set, if one has in the last few
// seconds.
func (b *Book) Set(name string, within, now time.Duration) (replicas int, ok bool) {
	b.hearing.Lock()
	defer b.hearing.Unlock()
	s := b.sums[name]
	if s == nil || s.setAt < 0 || now-s.setAt > within {
		return 0, false
	}
	return s.set, true
}

// Joined reports whether a peer that uses the function has only been heard for the time
// given: what it did before is in no Sample.
func (b *Book) Joined(name string, within, now time.Duration) bool {
	if any := time.Duration(b.joined.Load()); any < 0 || now-any > within {
		return false
	}
	b.hearing.Lock()
	defer b.hearing.Unlock()
	s := b.sums[name]
	return s != nil && s.joined >= 0 && now-s.joined <= within
}

// A Status is who there is.
type Status struct {
	Heard    int           // other gateways that answered within a second
	Expected int           // other gateways that DNS names
	Missing  int           // not heard, and not gone for long or by their own will
	Age      time.Duration // of the oldest of their last answers
	Acting   bool          // this gateway acts on load
	Actor    uint64        // the identity that acts
}

// Status returns who there is now.
func (b *Book) Status(now time.Duration) Status {
	b.hearing.Lock()
	defer b.hearing.Unlock()
	b.expire(now)
	var s Status
	if !b.named && now-b.began < goneAfter {
		s.Missing = 1 // nobody knows yet who there is
	}
	able := b.eligible()
	s.Actor = b.identity
	for _, p := range b.peers {
		if p.self {
			continue
		}
		if p.named {
			s.Expected++
		}
		if p.identity == 0 {
			if !p.leaving && now-p.since < goneAfter {
				s.Missing++
			}
			continue
		}
		s.Heard++
		s.Age = max(s.Age, now-p.since)
		switch can := !p.leaving && !p.passive; {
		case can && !able:
			s.Actor, able = p.identity, true
		case can == able:
			s.Actor = min(s.Actor, p.identity)
		}
	}
	// Who has just started has had no time to hear of the others.
	known := s.Heard > 0 || s.Missing == 0 || now-b.began >= heardFor
	s.Acting = known && s.Actor == b.identity
	return s
}

// Acting reports whether this gateway is the one that acts on load: the one with the
// lowest identity of those that can and are heard.
func (b *Book) Acting(now time.Duration) bool { return b.Status(now).Acting }

// Complete reports whether all gateways are heard that there may be, so that a low sum
// means that there is little load.
func (b *Book) Complete(now time.Duration) bool { return b.Status(now).Missing == 0 }

// A Key is what only one of the gateways may accept, as a hash.
type Key [32]byte

// owner returns the address of the peer that owns key, "" for this gateway. While the
// same gateways are heard by all, they agree on it.
func (b *Book) owner(key Key, now time.Duration) string {
	b.hearing.Lock()
	defer b.hearing.Unlock()
	b.expire(now)
	address, best := "", weight(b.identity, key)
	mine := b.leaving.Load() // its memory ends soon
	for _, p := range b.peers {
		if p.identity == 0 || p.leaving {
			continue
		}
		if w := weight(p.identity, key); mine || bytes.Compare(w[:], best[:]) > 0 {
			address, best, mine = p.address, w, false
		}
	}
	return address
}
