package main

// What became of a call, by its ID, and cancelling it.

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// errStarted says that a call can no longer be cancelled.
var errStarted = errors.New("the call has started")

// A found is a call that was looked up.
type found struct {
	function, uid string
	seq           uint64 // of its message; 0: it has none any more
	record        record
	rev           uint64 // of the record; 0: it has none yet
}

// lookUp finds the newest call of an ID. ok is false if there is none, or none
// that is remembered.
func (a *acceptor) lookUp(ctx context.Context, id string) (f found, ok bool, err error) {
	// The record first: a call that ends in between has both by then.
	r, rev, err := a.store.state(ctx, stateSubject(a.calls.name, id, "*"))
	if err != nil {
		return f, false, err
	}
	m, err := a.store.last(ctx, streamCalls, "faas."+a.calls.name+".*."+idToken(id)+".*")
	if err != nil {
		return f, false, err
	}
	if m != nil && (rev == 0 || m.Header.Get(headerUID) == r.UID || m.Time.After(r.Updated)) {
		f = found{function: m.Header.Get(headerFunction), uid: m.Header.Get(headerUID), seq: m.Sequence}
		if f.uid == r.UID {
			f.record, f.rev = r, rev
		} else if c, err := parseCall(m.Header, m.Data); err == nil {
			f.record = record{State: stateQueued, Function: c.function, Accepted: c.accepted, Updated: c.accepted}
		}
		return f, true, nil
	}
	if rev == 0 {
		// It may have begun since the record was looked for.
		r, rev, err = a.store.state(ctx, stateSubject(a.calls.name, id, "*"))
	}
	return found{function: r.Function, uid: r.UID, seq: r.Seq, record: r, rev: rev}, rev != 0, err
}

// byID answers GET and DELETE of a call's ID.
func (a *acceptor) byID(w http.ResponseWriter, r *http.Request, escaped string) {
	id, err := url.PathUnescape(escaped)
	if err != nil || !validCallID(id) {
		refuse(w, http.StatusNotFound, "no call can have this ID")
		return
	}
	if !a.store.ready.Load() {
		refuseUnready(w)
		return
	}
	f, ok, err := a.lookUp(r.Context(), id)
	if err == nil && !ok {
		refuse(w, http.StatusNotFound, fmt.Sprintf("call %q not found: outcomes are remembered for a day at most", id))
		return
	}
	if err == nil && r.Method == http.MethodDelete {
		switch err = a.cancel(r.Context(), f.function, id, f.uid, f.rev, f.record.Accepted); {
		case errors.Is(err, errStarted):
			refuse(w, http.StatusConflict, "the call has started, or is over")
			return
		case err == nil:
			a.log.Info("call cancelled", "function", f.function, "call_id", id)
			w.WriteHeader(http.StatusAccepted)
			return
		}
	}
	if err != nil {
		a.log.Warn("call not looked up", "call_id", id, "error", err)
		w.Header().Set("Retry-After", "1")
		refuse(w, http.StatusServiceUnavailable, "JetStream did not answer")
		return
	}
	writeJSON(w, http.StatusOK, struct {
		CallID string `json:"callId"`
		callStatus
	}{id, statusOf(f.record)})
}

// A callStatus is a record as callers see it.
type callStatus struct {
	Function  string    `json:"function"`
	Status    string    `json:"status"`
	Attempts  int       `json:"attempts,omitempty"`
	Code      int       `json:"code,omitempty"`
	Reason    string    `json:"reason,omitempty"`
	NotBefore time.Time `json:"notBefore,omitzero"`
	Accepted  time.Time `json:"accepted"`
	Updated   time.Time `json:"updated"`
}

func statusOf(r record) callStatus {
	return callStatus{r.Function, r.State, r.Attempt, r.Code, r.Reason, r.NotBefore, r.Accepted, r.Updated}
}

// cancel keeps a call from starting: by its record, on which workers agree,
// and then by removing its message. rev is the revision of the record of one
// that is queued between two attempts.
func (a *acceptor) cancel(ctx context.Context, function, id, uid string, rev uint64, accepted time.Time) error {
	subject := stateSubject(a.calls.name, id, uid)
	r := record{Function: function, UID: uid, Accepted: accepted}
	if rev != 0 {
		was, now, err := a.store.state(ctx, subject)
		switch {
		case err != nil:
			return err
		case now != rev:
			return errStarted // or has just changed; ask again
		case was.State == stateRunning || was.State == stateDone || was.State == stateDead:
			return errStarted
		}
		r = was
	}
	if r.State != stateCancelled {
		r.State, r.Seq, r.NotBefore = stateCancelled, 0, time.Time{}
		if _, err := a.store.setState(ctx, subject, r, rev); errors.Is(err, errChanged) {
			return errStarted
		} else if err != nil {
			return err
		}
		a.metrics.calls.ended.WithLabelValues(function, stateCancelled).Inc()
	}
	err := a.store.streams[streamCalls].Purge(ctx, jetstream.WithPurgeSubject(a.calls.subject(function, id, uid)))
	if err != nil {
		return fmt.Errorf("remove a cancelled call: %w", err)
	}
	return nil
}
