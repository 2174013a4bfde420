// Package peers makes several gateways one system: each asks the others four times a
// second what is in flight there, and knows the sum, who of them acts on it, and which
// of them remembers a key.
//
// Book is what a gateway says and has heard, without input and output. Node keeps it
// up to date over the network.
//
//	book := peers.NewBook(peers.NewIdentity(), loads) // loads are this gateway's own
//	book.Sum("thumbnail").Others(now)      // of all others together
//	book.Acting(now), book.Complete(now)   // may it scale, and may it scale down?
//	node := peers.NewNode(peers.Options{Book: book, Names: names, Listen: ":8081", …})
//	node.Run(ctx)
//	node.Claim(ctx, key)                   // is this the first of all to have seen key?
//
// Nothing absolute crosses the wire: neither a time of day nor a reading of a clock.
package peers

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

const (
	// Version is that of the protocol. A peer of another one is not heard.
	Version = 1

	askInterval = 250 * time.Millisecond

	// heardFor is how long a peer counts as heard after an answer.
	heardFor = time.Second

	// goneAfter is how long a peer may be silent until it no longer matters.
	goneAfter = 30 * time.Second

	maxAnswer  = 1 << 20 // bytes of an answer; more is not read
	maxName    = 63      // bytes of a function's name
	maxCount   = 1 << 20 // of calls in flight and of replicas; more is an error
	maxEntries = 1 << 14 // functions of one peer, which fit into an answer
)

// A Load is what a gateway knows of one function.
type Load struct {
	Busy     time.Duration // one for each request and second, up to now
	Started  uint64        // requests ever
	InFlight int           // waiting ones included
	Idle     time.Duration // since the last request ended; 0 if there is one
	Ready    int           // replicas that can be called
	Sets     uint64        // how often the gateway has set the replicas
	Replicas int           // what it last set
	Alert    bool          // an alert scales the function
}

// A Total is what counts of a load: only differences of two mean anything.
type Total struct {
	Busy    time.Duration
	Started uint64
}

// unused reports whether there is nothing to say.
func (l Load) unused() bool {
	return l.Started == 0 && l.InFlight == 0 && l.Ready == 0 && l.Sets == 0 && !l.Alert
}

// follows reports whether l is what an earlier reading becomes by the mere passing of
// time. A listener knows that by itself.
func (l Load) follows(earlier Load) bool {
	l.Busy, l.Idle, earlier.Busy, earlier.Idle = 0, 0, 0, 0
	return l == earlier
}

// An answer is the body of what a peer says, ahead of its entries:
//
//	version, identity, flags, sequence, full: one uvarint each
//
// and an entry for each function that has changed since the sequence that was asked
// for, or for each one if full is 1. An entry is the length of the name, the name, and
// the fields of a Load in their order, the times in micro- and milliseconds.
type answer struct {
	identity uint64
	leaving  bool // it is about to end
	passive  bool // it cannot act
	sequence uint64
	full     bool
	entries  []byte
}

const (
	flagLeaving = 1 << iota
	flagPassive
)

func appendHead(b []byte, a answer) []byte {
	flags, full := uint64(0), uint64(0)
	if a.leaving {
		flags |= flagLeaving
	}
	if a.passive {
		flags |= flagPassive
	}
	if a.full {
		full = 1
	}
	for _, v := range [...]uint64{Version, a.identity, flags, a.sequence, full} {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

func appendEntry(b []byte, name string, l Load) []byte {
	b = binary.AppendUvarint(b, uint64(len(name)))
	b = append(b, name...)
	alert := uint64(0)
	if l.Alert {
		alert = 1
	}
	for _, v := range [...]uint64{
		uint64(l.Busy / time.Microsecond), l.Started, uint64(l.InFlight), uint64(l.Idle / time.Millisecond),
		uint64(l.Ready), l.Sets, uint64(l.Replicas), alert,
	} {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

var (
	errGarbage = errors.New("not an answer of a peer")
	errVersion = errors.New("a peer of another version")
)

func parseAnswer(b []byte) (a answer, err error) {
	var head [5]uint64
	for i := range head {
		if head[i], b, err = uvarint(b); err != nil {
			return a, err
		}
		if i == 0 && head[0] != Version {
			return a, fmt.Errorf("%w: %d", errVersion, head[0])
		}
	}
	return answer{
		identity: head[1], leaving: head[2]&flagLeaving != 0, passive: head[2]&flagPassive != 0,
		sequence: head[3], full: head[4] == 1, entries: b,
	}, nil
}

// nextEntry takes one entry off b. The name is a part of b.
func nextEntry(b []byte) (name []byte, l Load, rest []byte, err error) {
	length, b, err := uvarint(b)
	if err != nil || length == 0 || length > maxName || length > uint64(len(b)) {
		return nil, l, nil, errGarbage
	}
	name, b = b[:length], b[length:]
	var v [8]uint64
	for i := range v {
		if v[i], b, err = uvarint(b); err != nil {
			return nil, l, nil, err
		}
	}
	const longest = uint64(1<<63-1) / uint64(time.Millisecond)
	if v[0] > longest || v[3] > longest || v[2] > maxCount || v[4] > maxCount || v[6] > maxCount {
		return nil, l, nil, errGarbage
	}
	return name, Load{
		Busy: time.Duration(v[0]) * time.Microsecond, Started: v[1], InFlight: int(v[2]), Idle: time.Duration(v[3]) * time.Millisecond,
		Ready: int(v[4]), Sets: v[5], Replicas: int(v[6]), Alert: v[7] == 1,
	}, b, nil
}

func uvarint(b []byte) (v uint64, rest []byte, err error) {
	v, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, nil, errGarbage
	}
	return v, b[n:], nil
}
