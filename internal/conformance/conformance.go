// Package conformance tests HTTP proxies: whether bodies arrive complete in both
// directions, whenever the server responds, and whether an incomplete one is an
// error and never a short 2xx.
package conformance

// The scenarios: who sends what, how, and the required outcome.

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// A Front starts a front end of the HTTP server at upstream (host:port) that
// gives up on a request after limit, and returns the URL below which it can be
// called: http://host:port with an optional path.
type Front func(t *testing.T, upstream string, limit time.Duration) (url string)

const (
	patience = 30 * time.Second       // limit of scenarios that are to end well
	short    = 300 * time.Millisecond // limit of scenarios that are to reach it
)

// When the server answers.
const (
	echo       = "echo"        // while it reads: each piece goes back at once
	late       = "late"        // when it has the whole body
	early      = "early"       // at once; it reads the body after that
	middle     = "middle"      // when it has half of the body; it reads the rest after that
	earlyClose = "early-close" // at once; it closes the connection with the body unread
	never      = "never"       // not at all
	vanish     = "vanish"      // not at all: it closes the connection when it has the body
	vanishHalf = "vanish-half" // not at all: it closes the connection when it has half of the body
)

// How a body's end is marked.
const (
	sized   = "sized"
	chunked = "chunked"
	closed  = "closed" // by the end of the connection; answers only
)

// How a body is sent.
const (
	atOnce   = "at once"
	pieces   = "in pieces"
	lockstep = "in lockstep" // each piece when the one before it has come back
	slowly   = "slowly"      // for a second, by a client that reads the answer only then
	halting  = "haltingly"   // half of it, and the rest when there is an answer
)

// The required outcome of a request.
const (
	whole  = "whole"  // 200 and every byte, in both directions
	answer = "answer" // 200 and every byte of the answer; the server has a part of the body, or all of it
	broken = "broken" // an answer that is cut short for all to see, or an error status
	either = "either" // answer or broken
)

// A scenario is one request and its answer.
type scenario struct {
	server  string // when it answers
	framing string // of the request's body; "": there is none
	reply   string // framing of the answer
	size    int    // of the request's body, and of the answer
	brief   bool   // the answer is of 100 bytes
	pace    string // of the request's body

	cut      int    // bytes of the body after which the client sends no more; 0: it sends all
	replyCut int    // bytes of the answer after which the server closes the connection; 0: it sends all
	reset    bool   // the server closes it with a reset
	method   string // "": POST with a body, else GET
	header   string // lines of the request's head
	http10   bool   // the client speaks HTTP/1.0

	want string // an outcome from above, or a status as 504
	keep bool   // the connection must be good for another request
}

func (s scenario) name() string {
	name := "server answers " + s.server
	if s.framing != "" {
		name += fmt.Sprintf(", %s body of %d %s", s.framing, s.size, s.pace)
	}
	if s.cut > 0 {
		name += fmt.Sprintf(", cut at %d", s.cut)
	}
	name += ", " + s.reply + " answer"
	if s.brief {
		name += " of 100"
	}
	if s.replyCut > 0 {
		name += fmt.Sprintf(" cut at %d", s.replyCut)
	}
	if s.reset {
		name += " by a reset"
	}
	if s.http10 {
		name += ", HTTP/1.0"
	}
	if s.header != "" {
		name += ", " + s.header
	}
	return name
}

const (
	pieceSize = 5000
	slowSize  = 64_000
	stepSize  = 700 // less than what is gathered on the way where nobody takes care
)

// echoes returns the scenarios in which a server answers while it reads.
func echoes(reply string) []scenario {
	var all []scenario
	for _, framing := range []string{sized, chunked} {
		want := whole
		if framing == chunked && reply == sized {
			want = answer // which is complete before the mark at the end of the body
		}
		for _, size := range []int{1, 4096, 32_000, 3 << 20} {
			all = append(all, scenario{server: echo, framing: framing, reply: reply, size: size, pace: atOnce, want: want})
		}
		for _, pace := range []string{pieces, lockstep} {
			all = append(all, scenario{server: echo, framing: framing, reply: reply, size: 32_000, pace: pace, want: want})
		}
	}
	return all
}

// scenarios returns all of them.
func scenarios() []scenario {
	var all []scenario
	for _, reply := range []string{sized, chunked, closed} {
		all = append(all, echoes(reply)...)
		for _, framing := range []string{sized, chunked} {
			for _, size := range []int{1, 32_000, 3 << 20} {
				for _, pace := range []string{atOnce, pieces} {
					if pace == pieces && size != 32_000 {
						continue
					}
					all = append(all,
						scenario{server: late, framing: framing, reply: reply, size: size, pace: pace, want: whole, keep: true},
						scenario{server: early, framing: framing, reply: reply, size: size, pace: pace, want: answer},
						scenario{server: middle, framing: framing, reply: reply, size: size, pace: pace, want: answer},
					)
				}
			}
			all = append(all,
				// What the client cuts short must neither look whole to the
				// server nor be answered as if it were.
				scenario{server: late, framing: framing, reply: reply, size: 32_000, pace: pieces, cut: 16_000, want: broken},
				scenario{server: late, framing: framing, reply: reply, size: 3000, pace: atOnce, cut: 1000, want: broken},
				scenario{server: echo, framing: framing, reply: reply, size: 32_000, pace: pieces, cut: 16_000, want: broken},
				scenario{server: early, framing: framing, reply: reply, size: 32_000, pace: pieces, cut: 16_000, want: answer},
				// What the server cuts short must not look whole to the client.
				scenario{server: early, framing: framing, reply: reply, size: 32_000, pace: pieces, replyCut: 16_000, reset: true, want: broken},
			)
			for _, server := range []string{early, middle} {
				all = append(all, scenario{server: server, framing: framing, reply: reply, size: 640_000, brief: true, pace: slowly, want: answer})
			}
			if reply != closed {
				all = append(all,
					scenario{server: late, framing: framing, reply: reply, size: 32_000, pace: pieces, replyCut: 16_000, want: broken},
					scenario{server: echo, framing: framing, reply: reply, size: 3 << 20, pace: atOnce, replyCut: 1 << 20, want: broken},
				)
			}
		}
		all = append(all,
			scenario{server: late, reply: reply, size: 32_000, want: whole, keep: true},
			scenario{server: late, reply: reply, size: 3 << 20, want: whole, keep: true},
			scenario{server: late, reply: reply, size: 32_000, http10: true, want: whole},
			scenario{server: late, reply: reply, size: 32_000, replyCut: 16_000, reset: true, want: broken},
			scenario{server: late, reply: reply, size: 32_000, replyCut: 16_000, reset: true, http10: true, want: broken},
			scenario{server: late, framing: sized, reply: reply, size: 32_000, pace: atOnce, header: "Expect: 100-continue", want: whole},
		)
	}
	for _, framing := range []string{sized, chunked} {
		all = append(all,
			scenario{server: earlyClose, framing: framing, reply: sized, size: 32_000, pace: pieces, want: answer},
			scenario{server: earlyClose, framing: framing, reply: sized, size: 32_000, pace: atOnce, want: answer},
			// What a system has not sent when a server closes like that is lost.
			scenario{server: earlyClose, framing: framing, reply: sized, size: 3 << 20, pace: atOnce, want: either},
			scenario{server: earlyClose, framing: framing, reply: sized, size: 3 << 20, brief: true, pace: atOnce, want: answer},
			scenario{server: never, framing: framing, size: 32_000, pace: atOnce, want: "504", keep: true},
			scenario{server: never, framing: framing, size: 32_000, pace: pieces, cut: 16_000, want: broken},
			scenario{server: vanish, framing: framing, size: 32_000, pace: atOnce, want: "502", keep: true},
			// Nobody waits for a client that pauses when the server has gone.
			scenario{server: vanishHalf, framing: framing, size: 32_000, pace: halting, want: "502"},
			scenario{server: vanishHalf, framing: framing, size: 32_000, pace: halting, reset: true, want: "502"},
			scenario{server: vanishHalf, framing: framing, size: 640_000, pace: halting, want: "502"},
		)
	}
	return append(all,
		scenario{server: never, want: "504", keep: true},
		scenario{server: vanish, want: "502", keep: true},
		scenario{server: vanish, method: "DELETE", want: "502", keep: true},
	)
}

// replySize returns the length of the answer.
func (s scenario) replySize() int {
	if s.brief {
		return 100
	}
	return s.size
}

// Run calls a front end in every scenario, with a server of its own behind it.
func Run(t *testing.T, front Front) { run(t, front, answer) }

// RunNetHTTP is Run for a front end on net/http's Transport: where a server
// answers and then closes the connection with the body unread, that may fail
// with what writing the body has failed with, and never see the answer.
func RunNetHTTP(t *testing.T, front Front) { run(t, front, either) }

func run(t *testing.T, front Front, earlyClosed string) {
	server := startServer(t)
	urls := map[time.Duration]string{}
	for _, limit := range []time.Duration{patience, short} {
		urls[limit] = front(t, server.address, limit)
	}
	for i, s := range scenarios() {
		t.Run(s.name(), func(t *testing.T) {
			if s.pace == slowly {
				t.Parallel()
			}
			if s.server == earlyClose && s.want == answer {
				s.want = earlyClosed
			}
			limit := patience
			if s.server == never && s.want == "504" {
				limit = short
			}
			s.run(t, urls[limit], fmt.Sprint("scenario-", i), server)
		})
	}
}

// RunEcho calls a front end in the scenarios of a server that is somebody
// else's, at upstream: it has to answer to every request with the body of it
// while it reads that, in chunks.
func RunEcho(t *testing.T, front Front, upstream string) {
	url := front(t, upstream, patience)
	for _, s := range echoes(chunked) {
		t.Run(s.name(), func(t *testing.T) { s.run(t, url, "", nil) })
	}
}

// content returns n bytes that are the same each time, and nowhere repeat.
func content(n int) []byte {
	b := make([]byte, n)
	source := rand.NewChaCha8([32]byte{1})
	source.Read(b)
	return b
}
