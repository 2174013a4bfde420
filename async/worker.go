package main

// What a worker does with a message of a queue, be it a call or a callback:
// claim it, try it, and then finish it, have it tried again, or give it up.

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/semaphore"
)

const (
	// bodiesInMemory bounds what all running calls hold, and all callbacks.
	bodiesInMemory = 256 << 20

	// keptAnswer is how much of a last answer a dead letter keeps.
	keptAnswer = 64 << 10

	// insistFor is how long a worker tries to write down how a call ended.
	// Then the call goes back and runs again.
	insistFor = time.Minute
)

// An outcome is what an attempt came to.
type outcome int

const (
	succeeded outcome = iota // or at least: there is an answer that counts
	later                    // told to come back, or nobody was there: no attempt
	failed                   // an attempt that counts
	hopeless                 // no attempt will ever succeed
	forbidden                // must not be tried at all
	givenBack                // this worker stops
)

// A result is an attempt's outcome, with the answer if there was one.
type result struct {
	outcome outcome
	answer  *answer
	reason  string // why it did not succeed
}

// An answer is what a function, or a callback's receiver, said.
type answer struct {
	code     int
	header   http.Header
	body     []byte
	cut      bool // the body was longer
	duration time.Duration
}

func (r *result) code() int {
	if r.answer == nil {
		return 0
	}
	return r.answer.code
}

// A worker serves one queue.
type worker struct {
	queue     *queue
	store     *store
	functions *functions
	metrics   *queueMetrics
	memory    *semaphore.Weighted
	maxAge    time.Duration
	log       *slog.Logger

	// weigh is the memory that an attempt may take.
	weigh func(c *call, message int) int64
	// attempt tries a call once.
	attempt func(ctx context.Context, c *call, r record) result
	// ended is told how a call ended, before that is written down, and more
	// than once where writing fails.
	ended func(ctx context.Context, c *call, r record, res result) error
}

// handle works on one message, and has settled it when it returns.
func (w *worker) handle(ctx context.Context, lane string, m jetstream.Msg) verdict {
	meta, err := m.Metadata()
	if err != nil {
		w.log.Error("message without metadata", "error", err)
		return unclear
	}
	c, err := parseCall(m.Headers(), m.Data())
	if err != nil {
		w.log.Error("message dropped", "subject", m.Subject(), "error", err)
		m.Term()
		return unclear
	}
	weight := min(w.weigh(c, len(m.Data())), bodiesInMemory)
	if !w.memory.TryAcquire(weight) {
		m.NakWithDelay(time.Second)
		return unclear
	}
	defer w.memory.Release(weight)

	subject := stateSubject(w.queue.name, c.id, c.uid)
	fresh := record{Function: c.function, UID: c.uid, Accepted: c.accepted}
	r, rev, what, err := w.store.claim(ctx, subject, meta.Sequence.Stream, meta.NumDelivered == 1, fresh, w.queue.stream)
	switch {
	case err != nil:
		w.log.Warn("call not claimed, trying again", "queue", w.queue.name, "call_id", c.id, "error", err)
		m.NakWithDelay(time.Second)
		return unclear
	case what == claimWait:
		m.NakWithDelay(time.Until(r.NotBefore))
		return unclear
	case what == claimDrop:
		w.drop(ctx, m)
		return unclear
	}

	w.metrics.running.WithLabelValues(c.function).Inc()
	defer w.metrics.running.WithLabelValues(c.function).Dec()
	if r.Attempt == 1 && r.PutOff == 0 {
		w.metrics.waited.WithLabelValues(c.function).Observe(time.Since(c.accepted).Seconds())
	}
	res := w.attempt(ctx, c, r)
	return w.settle(ctx, m, c, subject, r, rev, res)
}

// drop acknowledges what needs no work. That it came at all means that an
// acknowledgement was lost, so this one is made sure of.
func (w *worker) drop(ctx context.Context, m jetstream.Msg) {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	if err := m.DoubleAck(ctx); err != nil {
		w.log.Debug("not acknowledged, it comes again", "error", err)
	}
}

// settle writes down what an attempt came to.
func (w *worker) settle(ctx context.Context, m jetstream.Msg, c *call, subject string, r record, rev uint64, res result) verdict {
	rules := w.functions.find(c.function).rules
	r.Code, r.Reason = res.code(), res.reason
	var v verdict
	switch res.outcome {
	case givenBack:
		w.again(m, subject, r, rev, 0)
		return unclear
	case later:
		v = toldWait
		if time.Since(c.accepted) < w.maxAge {
			var h http.Header
			if res.answer != nil {
				h = res.answer.header
			}
			wait := putOff(r.PutOff, h, time.Now())
			r.PutOff++
			w.metrics.putOff.WithLabelValues(c.function).Inc()
			w.again(m, subject, r, rev, wait)
			return v
		}
		res.outcome = failed
		r.Reason = fmt.Sprintf("still put off after %s: %s", w.maxAge, res.reason)
	case failed:
		if r.Attempt < rules.attempts && time.Since(c.accepted) < w.maxAge {
			wait := rules.wait(r.Attempt)
			r.Attempt++
			w.metrics.retried.WithLabelValues(c.function).Inc()
			w.again(m, subject, r, rev, wait)
			return v
		}
	}

	r.State, r.Seq = stateDone, 0
	if res.outcome == failed || res.outcome == hopeless {
		r.State = stateDead
	}
	err := insist(ctx, func() error {
		if r.State == stateDead {
			if err := w.store.bury(ctx, w.queue.name, c, r, res.answer); err != nil {
				return err
			}
		}
		if err := w.ended(ctx, c, r, res); err != nil {
			return err
		}
		return w.store.endState(ctx, subject, r)
	})
	if err != nil {
		w.log.Error("a call ran, and how it ended could not be stored: it runs again", "queue", w.queue.name, "function", c.function, "call_id", c.id, "error", err)
		m.NakWithDelay(time.Second)
		return v
	}
	m.Ack()
	w.metrics.ended.WithLabelValues(c.function, r.State).Inc()
	switch {
	case res.outcome == forbidden:
		w.log.Warn("refused", "queue", w.queue.name, "function", c.function, "call_id", c.id, "reason", r.Reason)
	case r.State == stateDead:
		w.log.Warn("given up", "queue", w.queue.name, "function", c.function, "call_id", c.id, "attempts", r.Attempt, "status", r.Code, "reason", r.Reason)
	}
	return v
}

// again gives a message back, to be worked on after wait.
func (w *worker) again(m jetstream.Msg, subject string, r record, rev uint64, wait time.Duration) {
	r.State = stateQueued
	if wait > 0 {
		r.NotBefore = time.Now().Add(wait)
	}
	// Not the context of the work, which may be over.
	_, err := w.store.setState(context.Background(), subject, r, rev)
	switch {
	case errors.Is(err, errChanged):
		// This worker was taken for dead; the message has another.
	case err != nil:
		w.log.Warn("record not written, the attempt is not counted", "error", err)
		m.NakWithDelay(max(wait, time.Second))
	default:
		// JetStream forgets a Nak without a delay when it is started anew.
		m.NakWithDelay(max(wait, time.Millisecond))
	}
}

// insist repeats what fails, for a while.
func insist(ctx context.Context, do func() error) error {
	ctx, cancel := context.WithTimeout(ctx, insistFor)
	defer cancel()
	for {
		err := do()
		if err == nil {
			return nil
		}
		if sleep(ctx, 500*time.Millisecond) != nil {
			return err
		}
	}
}
