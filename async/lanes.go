package main

// Lanes. Each function has a lane of its own through a queue: a consumer in
// JetStream, and in each faas-async a loop that pulls from it, one message at
// a time and only when there is a slot. So what waits, waits in JetStream, and
// a flood for one function is in nobody else's way.

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// ackWait is how long JetStream waits for a sign of life before it gives
	// a message to somebody else.
	ackWait       = 8 * time.Second
	progressEvery = 2500 * time.Millisecond

	// maxPutOff is how many messages of one lane can be running or waiting
	// for another attempt at once. The rest of the lane waits behind them.
	maxPutOff = 10_000

	// maxLanes bounds the functions that can have calls waiting.
	maxLanes = 1000

	// ensureFor is how long a consumer that was seen is taken to be there.
	ensureFor = time.Minute

	pullFor = 30 * time.Second
)

var errTooManyLanes = fmt.Errorf("calls for %d functions are waiting already", maxLanes)

// A queue is a stream of messages and the lanes through it.
type queue struct {
	name   string // the second token of its subjects, and in consumers' names
	stream string
	store  *store
	slots  *slots
	handle func(ctx context.Context, lane string, m jetstream.Msg) verdict
	log    *slog.Logger

	pulling context.Context // ends when nothing more is to begin
	work    context.Context // ends when what runs is to be given back
	wg      sync.WaitGroup

	mu      sync.Mutex
	seen    map[string]time.Time // consumers, by lane
	running map[string]bool      // lanes that have a loop
	closed  bool
}

func (q *queue) subject(lane string, id, uid string) string {
	return "faas." + q.name + "." + token(lane) + "." + idToken(id) + "." + uid
}

func (q *queue) consumer(lane string) string { return q.name + "-" + token(lane) }

// laneOf is the inverse of consumer.
func (q *queue) laneOf(consumer string) (string, bool) {
	t, ok := strings.CutPrefix(consumer, q.name+"-")
	if !ok {
		return "", false
	}
	lane, err := untoken(t)
	return lane, err == nil
}

// ensure makes the consumer of a lane before the first message for it is
// published, and its loop.
func (q *queue) ensure(ctx context.Context, lane string) error {
	q.mu.Lock()
	at, ok := q.seen[lane]
	full := !ok && len(q.seen) >= maxLanes
	q.mu.Unlock()
	if ok && time.Since(at) < ensureFor {
		return nil
	}
	if full {
		return errTooManyLanes
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	_, err := q.store.js.CreateOrUpdateConsumer(ctx, q.stream, jetstream.ConsumerConfig{
		Durable:       q.consumer(lane),
		FilterSubject: "faas." + q.name + "." + token(lane) + ".>",
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       ackWait,
		MaxDeliver:    -1,
		MaxAckPending: maxPutOff,
		MaxWaiting:    512,
	})
	if err != nil {
		return fmt.Errorf("consumer of %s: %w", lane, err)
	}
	q.start(lane, time.Now())
	return nil
}

// start begins the loop of a lane whose consumer was there at the time.
func (q *queue) start(lane string, at time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	if at.After(q.seen[lane]) {
		q.seen[lane] = at
	}
	if !q.running[lane] {
		q.running[lane] = true
		q.wg.Go(func() {
			q.loop(lane)
			q.mu.Lock()
			defer q.mu.Unlock()
			delete(q.running, lane)
		})
	}
}

// forget drops what is known of a lane whose consumer has been removed.
func (q *queue) forget(lane string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.seen, lane)
}

// close waits for what runs, once pulling has ended.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.wg.Wait()
}

// loop takes messages of one lane, until pulling ends or there is no consumer
// any more.
func (q *queue) loop(lane string) {
	var c jetstream.Consumer
	idle := true
	for q.pulling.Err() == nil {
		if c == nil {
			found, err := q.find(lane)
			if errors.Is(err, jetstream.ErrConsumerNotFound) {
				q.forget(lane)
				return
			}
			if err != nil {
				q.log.Debug("consumer not found", "lane", lane, "error", err)
				sleep(q.pulling, 500*time.Millisecond)
				continue
			}
			c = found
		}
		var m jetstream.Msg
		var err error
		if idle {
			// Nothing was there: wait without a slot.
			if m, err = pull(q.pulling, c, pullFor); m != nil && !q.slots.tryAcquire(lane) {
				// Somebody else may have one; here it is in line again.
				m.Nak()
				m, idle = nil, false
			}
		} else {
			if q.slots.acquire(q.pulling, lane) != nil {
				return
			}
			if m, err = pull(q.pulling, c, 0); m == nil {
				q.slots.release(lane, unclear)
				idle = true
			}
		}
		if err != nil && q.pulling.Err() == nil {
			q.log.Debug("pulling failed", "lane", lane, "error", err)
			c = nil
			sleep(q.pulling, 100*time.Millisecond)
		}
		if m != nil {
			idle = false
			q.wg.Go(func() {
				stop := keepClaim(m)
				defer stop()
				q.slots.release(lane, q.handle(q.work, lane, m))
			})
		}
	}
}

func (q *queue) find(lane string) (jetstream.Consumer, error) {
	ctx, cancel := context.WithTimeout(q.pulling, publishTimeout)
	defer cancel()
	return q.store.streams[q.stream].Consumer(ctx, q.consumer(lane))
}

// pull asks for one message and waits for it as long; it returns nil if there
// is none.
func pull(ctx context.Context, c jetstream.Consumer, wait time.Duration) (jetstream.Msg, error) {
	var batch jetstream.MessageBatch
	var err error
	if wait == 0 {
		batch, err = c.FetchNoWait(1)
	} else {
		bounded, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		batch, err = c.Fetch(1, jetstream.FetchContext(bounded))
	}
	if err != nil {
		return nil, err
	}
	if m, ok := <-batch.Messages(); ok {
		return m, nil
	}
	if err := batch.Error(); err != nil && !errors.Is(err, nats.ErrTimeout) && !errors.Is(err, context.DeadlineExceeded) {
		return nil, err
	}
	return nil, nil
}

// keepClaim tells JetStream that m is being worked on, until stop.
func keepClaim(m jetstream.Msg) (stop func()) {
	ended := make(chan struct{})
	go func() {
		t := time.NewTicker(progressEvery)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				m.InProgress()
			case <-ended:
				return
			}
		}
	}()
	return sync.OnceFunc(func() { close(ended) })
}
