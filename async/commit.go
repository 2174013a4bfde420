package main

// Group commit. The disk confirms a few hundred to a few thousand writes per
// second, whatever their size. So messages that come while one is being
// written wait, and go together: JetStream stores an atomic batch with a
// handful of writes.

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// leastBatch is the number of messages from which on a batch is cheaper
	// than single messages.
	leastBatch = 4

	maxBatch      = 256
	maxBatchBytes = 1 << 20
)

// A committer stores messages of one stream. Only what has no message ID goes
// through it: a batch with a duplicate is refused whole.
type committer struct {
	store    *store
	requests chan *commitRequest
}

type commitRequest struct {
	message *nats.Msg
	seq     uint64
	err     error
	done    chan struct{}
}

// commit returns when JetStream has m on disk. The message is not touched
// after that, nor may its caller touch it before.
func (c *committer) commit(ctx context.Context, m *nats.Msg) (seq uint64, err error) {
	r := &commitRequest{message: m, done: make(chan struct{})}
	select {
	case c.requests <- r:
		<-r.done // bounded by publishTimeout
		return r.seq, r.err
	case <-ctx.Done():
		return 0, fmt.Errorf("publish: %w", errNotSent)
	}
}

// run serves commits until ctx ends.
func (c *committer) run(ctx context.Context) error {
	for {
		var batch []*commitRequest
		select {
		case r := <-c.requests:
			batch = append(batch, r)
		case <-ctx.Done():
			return ctx.Err()
		}
		size := batch[0].message.Size()
	collect:
		for len(batch) < maxBatch && size < maxBatchBytes {
			select {
			case r := <-c.requests:
				batch = append(batch, r)
				size += r.message.Size()
			default:
				break collect
			}
		}
		c.store.commit(batch)
	}
}

// commit stores a batch, or its messages one by one, and answers each.
func (s *store) commit(batch []*commitRequest) {
	if len(batch) >= leastBatch {
		err := s.commitAtomically(batch)
		if err == nil || unsure(err) {
			for _, r := range batch {
				r.err = err
				close(r.done)
			}
			return
		}
		// Nothing of it was stored. One message alone may be to blame.
	}
	var wg sync.WaitGroup
	for _, r := range batch {
		wg.Go(func() {
			r.seq, _, r.err = s.publish(context.Background(), r.message)
			close(r.done)
		})
	}
	wg.Wait()
}

// commitAtomically sends the messages as one batch, which JetStream stores
// whole or not at all.
func (s *store) commitAtomically(batch []*commitRequest) error {
	id := newUID()
	for i, r := range batch {
		m := nats.NewMsg(r.message.Subject)
		for name, values := range r.message.Header {
			m.Header[name] = values
		}
		m.Header.Set("Nats-Batch-Id", id)
		m.Header.Set("Nats-Batch-Sequence", strconv.Itoa(i+1))
		m.Data = r.message.Data
		if i < len(batch)-1 {
			if err := s.nc.PublishMsg(m); err != nil {
				return fmt.Errorf("publish: %w", errNotSent)
			}
			continue
		}
		m.Header.Set("Nats-Batch-Commit", "1")
		ctx, cancel := context.WithTimeout(context.Background(), publishTimeout)
		defer cancel()
		reply, err := s.nc.RequestMsgWithContext(ctx, m)
		if err != nil {
			return fmt.Errorf("publish: %w", err)
		}
		var ack struct {
			Error *jetstream.APIError `json:"error"`
			Seq   uint64              `json:"seq"`
			Count int                 `json:"count"`
		}
		if err := json.Unmarshal(reply.Data, &ack); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
		if ack.Error != nil {
			return fmt.Errorf("publish: %w", ack.Error)
		}
		if ack.Count != len(batch) {
			return fmt.Errorf("publish: JetStream stored %d of %d messages", ack.Count, len(batch))
		}
		for i, r := range batch {
			r.seq = ack.Seq - uint64(len(batch)-1-i)
		}
	}
	return nil
}
