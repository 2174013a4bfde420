package peers

// What a gateway has heard of the others, and what follows from it.

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"iter"
	"sync"
	"sync/atomic"
	"time"
)

// A Book holds what a gateway says to others and what it has heard of them. All times
// are readings of one monotonic clock of this process. It is safe for concurrent use.
type Book struct {
	identity uint64 // random: a restarted gateway is another one
	speech

	hearing sync.Mutex        // of what follows
	began   time.Duration     // of the first call with a time; -1: none yet
	sampled time.Duration     // of the last Sample; -1: none yet
	named   bool              // the names have been looked up
	peers   map[string]*peer  // by address
	sums    map[string]*Sum   // by function
	awake   map[*Sum]struct{} // those that do not sleep

	sampledAll round // of Samples

	before atomic.Int64 // when the last but one Sample was; -1: there is none
	joined atomic.Int64 // the latest of all sums' joined
}

// A peer is what is known of the gateway at one address.
type peer struct {
	address string
	named   bool          // by DNS
	since   time.Duration // it is named or was last heard

	self     bool   // it is this gateway, or one that has another address, too
	identity uint64 // 0: not heard, and there are no entries
	sequence uint64
	leaving  bool
	passive  bool
	entries  map[string]*entry
}

// An entry is a peer's last word on a function.
type entry struct {
	Load
	at time.Duration // when it was said
}

// NewIdentity returns one at random.
func NewIdentity() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return binary.BigEndian.Uint64(b[:]) | 1
}

// NewBook makes a Book of the gateway with the identity, which is not 0. Its own loads
// are given by loads: of all functions, or of those whose load may have changed within
// the last ChangedTime.
func NewBook(identity uint64, loads func(now time.Duration, all bool) iter.Seq2[string, Load]) *Book {
	b := &Book{
		identity: identity,
		speech:   speech{loads: loads, saidAll: -1, said: map[string]*statement{}},
		began:    -1,
		sampled:  -1,
		peers:    map[string]*peer{},
		sums:     map[string]*Sum{},
		awake:    map[*Sum]struct{}{},

		sampledAll: -1,
	}
	b.before.Store(-1)
	b.joined.Store(-1)
	return b
}

// An Ask is what a gateway sends to a peer: the last word that it has heard.
type Ask struct{ Identity, Sequence uint64 }

// Ask returns what to ask the peer at address.
func (b *Book) Ask(address string, now time.Duration) Ask {
	b.hearing.Lock()
	defer b.hearing.Unlock()
	b.expire(now)
	if p := b.peers[address]; p != nil {
		return Ask{p.identity, p.sequence}
	}
	return Ask{}
}

// Answer returns what this gateway says to a.
func (b *Book) Answer(a Ask, now time.Duration) []byte {
	if a.Identity != b.identity {
		a.Sequence = 0
	}
	return b.answer(b.identity, a.Sequence, now)
}

// Name notes the addresses at which there should be gateways, as DNS has them.
func (b *Book) Name(addresses []string, now time.Duration) {
	b.hearing.Lock()
	defer b.hearing.Unlock()
	b.expire(now)
	b.named = true
	for _, p := range b.peers {
		p.named = false
	}
	for _, a := range addresses {
		b.at(a, now).named = true
	}
	for a, p := range b.peers {
		if !p.named && p.identity == 0 && (p.self || p.leaving || now-p.since >= goneAfter) {
			delete(b.peers, a)
		}
	}
}

func (b *Book) at(address string, now time.Duration) *peer {
	p := b.peers[address]
	if p == nil {
		p = &peer{address: address, since: now}
		b.peers[address] = p
	}
	return p
}

// Asked returns the addresses to ask: those named, and those still heard.
func (b *Book) Asked(now time.Duration) []string {
	b.hearing.Lock()
	defer b.hearing.Unlock()
	b.expire(now)
	var all []string
	for a, p := range b.peers {
		if p.named || p.identity != 0 {
			all = append(all, a)
		}
	}
	return all
}

// errOwn: an address is this gateway's own, or another address of a peer.
var errOwn = errors.New("the address is no other gateway's")

// Hear notes what the peer at address has answered, at the time answered, to the last
// Ask, which was sent at the Sample of the time now.
//
// The counters of an answer are totals of the process that sends it, so that an answer
// that is lost costs nothing: the next one has it all. Only differences of two totals
// of one process are added up. The first answer of a process is where its counting
// starts, and adds what is in flight and nothing else.
func (b *Book) Hear(address string, body []byte, answered, now time.Duration) error {
	a, err := parseAnswer(body)
	if err != nil {
		return err
	}
	b.hearing.Lock()
	defer b.hearing.Unlock()
	b.expire(now)
	p := b.at(address, now)
	if a.identity == b.identity || b.elsewhere(a.identity, p) {
		b.forget(p, now)
		p.self = true
		return errOwn
	}
	p.self = false
	if p.identity != a.identity || a.full {
		b.forget(p, now)
		p.entries = map[string]*entry{}
		if !a.full {
			return errGarbage // of a conversation that we did not have
		}
	}
	p.identity, p.sequence, p.leaving, p.passive, p.since = a.identity, a.sequence, a.leaving, a.passive, now
	for rest := a.entries; len(rest) > 0; {
		var name []byte
		var l Load
		if name, l, rest, err = nextEntry(rest); err == nil && len(p.entries) >= maxEntries {
			err = errGarbage
		}
		if err != nil {
			b.forget(p, now)
			return err
		}
		e := p.entries[string(name)]
		if e == nil {
			e = &entry{}
			p.entries[string(name)] = e
			b.sum(string(name)).add(e, l, a.full, now)
		}
		b.sums[string(name)].note(e, l, answered, now)
	}
	return nil
}

// elsewhere reports whether the identity is heard at another address than p's.
func (b *Book) elsewhere(identity uint64, p *peer) bool {
	for _, other := range b.peers {
		if other != p && other.identity == identity {
			return true
		}
	}
	return false
}

// expire forgets what peers said that have been silent for too long.
func (b *Book) expire(now time.Duration) {
	if b.began < 0 {
		b.began = now
	}
	for _, p := range b.peers {
		if p.identity != 0 && now-p.since > heardFor {
			b.forget(p, p.since) // as far as anybody knows
		}
	}
}

// forget ends what p has said, at the time until which it counts. What had been added
// to the sums stays.
func (b *Book) forget(p *peer, until time.Duration) {
	for name, e := range p.entries {
		b.sums[name].drop(e, until)
	}
	p.identity, p.sequence, p.entries = 0, 0, nil
}

// Prune drops what is known of functions that do not exist, of which there are count.
func (b *Book) Prune(count int, exists func(name string) bool) {
	b.hearing.Lock()
	defer b.hearing.Unlock()
	spare := 2*count + 1024
	if len(b.sums) <= spare {
		return
	}
	for _, p := range b.peers {
		if len(p.entries) > spare {
			p.sequence = 0 // it says all anew, of those that exist
		}
	}
	for name, s := range b.sums {
		if len(s.entries) == 0 && !exists(name) && (s.wanted < 0 || b.sampled-s.wanted > goneAfter) {
			delete(b.sums, name)
			delete(b.awake, s)
		}
	}
}

// weight orders the gateways for a key: the one with the largest owns it.
func weight(identity uint64, key Key) [sha256.Size]byte {
	return sha256.Sum256(binary.BigEndian.AppendUint64(key[:], identity))
}
