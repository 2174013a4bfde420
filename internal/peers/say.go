package peers

// What a gateway says: its own loads, those that changed since it was last asked.

import (
	"iter"
	"sync"
	"sync/atomic"
	"time"
)

// A speech remembers when what it said of each function last changed, so that it need
// not remember who has heard what.
type speech struct {
	loads func(now time.Duration, all bool) iter.Seq2[string, Load]

	mu       sync.Mutex
	sequence uint64 // of the last answer
	saidAll  round  // of answers
	said     map[string]*statement

	leaving, passive atomic.Bool
}

type statement struct {
	load    Load
	changed uint64 // in which answer
	seen    uint64 // in which answer the function last existed
}

// Leave has the others know that this gateway is about to end.
func (s *speech) Leave() { s.leaving.Store(true) }

// SetPassive says whether this gateway is unable to act: another one does, if there is
// one.
func (s *speech) SetPassive(passive bool) { s.passive.Store(passive) }

// eligible reports whether this gateway may act where others can, too.
func (s *speech) eligible() bool { return !s.leaving.Load() && !s.passive.Load() }

// answer returns what a peer is told that last heard sequence since; 0 is none.
func (s *speech) answer(identity, since uint64, now time.Duration) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sequence++
	b := appendHead(make([]byte, 0, 256), answer{
		identity: identity, leaving: s.leaving.Load(), passive: s.passive.Load(), sequence: s.sequence, full: since == 0,
	})
	all := s.saidAll.due(now) || since == 0
	there := 0
	for name, l := range s.loads(now, all) {
		there++
		m := s.said[name]
		if m == nil {
			m = &statement{}
			s.said[name] = m
			if !l.unused() {
				m.changed = s.sequence
			}
		} else if !l.follows(m.load) {
			m.changed = s.sequence
		}
		m.load, m.seen = l, s.sequence
		// What does not fit is left out: some 12,000 functions with the longest names.
		if m.changed > since && len(b)+maxName+80 < maxAnswer {
			b = appendEntry(b, name, l)
		}
	}
	if all && len(s.said) > there {
		for name, m := range s.said {
			if m.seen != s.sequence {
				delete(s.said, name)
			}
		}
	}
	return b
}
