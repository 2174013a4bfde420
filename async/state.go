package main

// What is known of each call, and of each callback, besides its message: the
// record by which workers agree who runs it and how often it was tried.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// States of a call. A call that has a message and no record is queued.
const (
	stateQueued    = "queued" // also between two attempts
	stateRunning   = "running"
	stateDone      = "done"
	stateDead      = "dead"
	stateCancelled = "cancelled"
)

// A record is the last word on a call.
type record struct {
	State     string    `json:"state"`
	Function  string    `json:"function"`
	UID       string    `json:"uid"`
	Seq       uint64    `json:"seq,omitempty"`     // of the message that is being worked on
	Attempt   int       `json:"attempt,omitempty"` // the running one, or the next, from 1 on
	PutOff    int       `json:"putOff,omitempty"`  // times that it was put off: 429, 503, no gateway
	Code      int       `json:"code,omitempty"`    // the last answer's status
	Reason    string    `json:"reason,omitempty"`
	NotBefore time.Time `json:"notBefore,omitzero"`
	Accepted  time.Time `json:"accepted"`
	Updated   time.Time `json:"updated"`
}

func (r *record) over() bool {
	return r.State == stateDone || r.State == stateDead || r.State == stateCancelled
}

// errChanged says that somebody else has written the record since it was read.
var errChanged = errors.New("the record has changed")

func stateSubject(queue, id, uid string) string {
	return "faas.state." + queue + "." + idToken(id) + "." + uid
}

// state returns the record under subject and its revision; 0 if there is none.
func (s *store) state(ctx context.Context, subject string) (record, uint64, error) {
	m, err := s.last(ctx, streamStates, subject)
	if err != nil || m == nil {
		return record{}, 0, err
	}
	var r record
	if err := json.Unmarshal(m.Data, &r); err != nil {
		return record{}, 0, fmt.Errorf("record %s: %w", subject, err)
	}
	return r, m.Sequence, nil
}

// setState writes the record if its revision still is rev, and returns the new
// one. errChanged says that it is not.
func (s *store) setState(ctx context.Context, subject string, r record, rev uint64) (uint64, error) {
	return s.writeState(ctx, subject, r, func(h nats.Header) {
		h.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(rev, 10))
	})
}

// endState writes the record of a call that is over, whatever it was before.
func (s *store) endState(ctx context.Context, subject string, r record) error {
	_, err := s.writeState(ctx, subject, r, func(nats.Header) {})
	return err
}

func (s *store) writeState(ctx context.Context, subject string, r record, condition func(nats.Header)) (uint64, error) {
	r.Updated = time.Now()
	data, err := json.Marshal(r)
	if err != nil {
		return 0, fmt.Errorf("record %s: %w", subject, err)
	}
	m := nats.NewMsg(subject)
	m.Data = data
	condition(m.Header)
	seq, err := s.states.commit(ctx, m)
	if wrongLast(err) {
		return 0, errChanged
	}
	return seq, err
}

// What a worker is to do with a message.
type claim int

const (
	claimRun  claim = iota // it is the worker's
	claimWait              // not before record.NotBefore
	claimDrop              // it is over, or a copy of one that is not
)

// claim takes a message of the queue for this worker. fresh is the record for
// one that nobody has touched. The record that is returned is the one in
// force, rev its revision.
//
// The message with sequence seq may be the only one of its call, delivered
// again since its worker died; or a copy, made when the outcome of publishing
// the first was not known.
func (s *store) claim(ctx context.Context, subject string, seq uint64, first bool, fresh record, stream string) (r record, rev uint64, what claim, err error) {
	if first {
		fresh.State, fresh.Seq, fresh.Attempt = stateRunning, seq, 1
		rev, err = s.setState(ctx, subject, fresh, 0)
		if !errors.Is(err, errChanged) {
			return fresh, rev, claimRun, err
		}
	}
	for range 10 {
		r, rev, err = s.state(ctx, subject)
		switch {
		case err != nil:
			return r, 0, claimWait, err
		case rev == 0:
			r, r.Attempt = fresh, 1
		case r.over():
			return r, rev, claimDrop, nil
		case r.Seq != seq && r.Seq != 0:
			there, err := s.exists(ctx, stream, r.Seq)
			if err != nil {
				return r, rev, claimWait, err
			}
			if there {
				return r, rev, claimDrop, nil
			}
		case time.Now().Before(r.NotBefore):
			return r, rev, claimWait, nil
		}
		r.State, r.Seq, r.NotBefore = stateRunning, seq, time.Time{}
		rev, err = s.setState(ctx, subject, r, rev)
		if !errors.Is(err, errChanged) {
			return r, rev, claimRun, err
		}
	}
	return r, rev, claimWait, fmt.Errorf("record %s: %w", subject, errChanged)
}

// exists tells whether a stream still has a message.
func (s *store) exists(ctx context.Context, stream string, seq uint64) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	_, err := s.streams[stream].GetMsg(ctx, seq)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("stream %s: %w", stream, err)
	}
	return true, nil
}
