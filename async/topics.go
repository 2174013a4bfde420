package main

// Topics: a message that any NATS client publishes on faas.topic.NAME becomes
// a call of every function whose label lists NAME.

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	labelTopic   = "topic"
	topicPrefix  = "faas.topic."
	topicsName   = "topics" // the consumer, shared by all faas-async
	maxTopics    = 32       // per function
	topicsAtOnce = 16
	maxTypeLen   = 256 // of a Content-Type that goes along
)

// parseTopics reads a function's label: names, separated by commas.
func parseTopics(get func(string) (string, bool), problem func(string, error)) []string {
	text, _ := get(labelTopic)
	var topics []string
	for _, name := range splitList(text) {
		switch {
		case name == cronTopic: // a schedule
		case !isVisible(name) || strings.ContainsAny(name, "*>") || strings.HasPrefix(name, ".") || strings.HasSuffix(name, ".") || strings.Contains(name, ".."):
			problem(labelTopic, fmt.Errorf("%q is not the end of a NATS subject", name))
		case len(topics) == maxTopics:
			problem(labelTopic, fmt.Errorf("more than %d topics", maxTopics))
			return topics
		default:
			topics = append(topics, name)
		}
	}
	return topics
}

// topics turns messages into calls.
type topics struct {
	store     *store
	functions *functions
	enqueue   func(ctx context.Context, c *call, id string) (duplicate bool, err error)
	metrics   *metrics
	log       *slog.Logger
}

// run serves messages until ctx ends.
func (t *topics) run(ctx context.Context) error {
	for {
		err := t.serve(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		t.log.Debug("topics interrupted", "error", err)
		if err := sleep(ctx, time.Second); err != nil {
			return err
		}
	}
}

func (t *topics) serve(ctx context.Context) error {
	if !t.store.ready.Load() {
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	c, err := t.store.streams[streamTopics].CreateOrUpdateConsumer(bounded, jetstream.ConsumerConfig{
		Durable: topicsName, AckPolicy: jetstream.AckExplicitPolicy, AckWait: ackWait, MaxDeliver: -1,
	})
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		// Which functions listen has to be known first.
		if t.functions.current.Load().at.IsZero() {
			if err := sleep(ctx, time.Second); err != nil {
				return err
			}
			continue
		}
		wait, cancel := context.WithTimeout(ctx, pullFor)
		batch, err := c.Fetch(topicsAtOnce, jetstream.FetchContext(wait))
		if err != nil {
			cancel()
			return err
		}
		for m := range batch.Messages() {
			t.spread(ctx, m)
		}
		cancel()
		if err := batch.Error(); err != nil && wait.Err() == nil {
			return err
		}
	}
	return ctx.Err()
}

// spread makes the calls for one message.
func (t *topics) spread(ctx context.Context, m jetstream.Msg) {
	meta, err := m.Metadata()
	if err != nil {
		t.log.Error("message without metadata", "error", err)
		return
	}
	name := strings.TrimPrefix(m.Subject(), topicPrefix)
	for _, f := range t.functions.current.Load().functions {
		if !slices.Contains(f.topics, name) {
			continue
		}
		// The same for every delivery of this message.
		id := []string{"topic", strconv.FormatUint(meta.Sequence.Stream, 10), strconv.FormatInt(meta.Timestamp.UnixNano(), 10), f.name}
		c := &call{
			id: callIDOf(id...), uid: "topic", function: f.name, name: f.name, accepted: time.Now(),
			method: "POST", target: "/", body: m.Data(),
			header: http.Header{"X-Topic": {name}, "X-Connector": {"faas-async"}},
		}
		if kind := m.Headers().Get("Content-Type"); kind != "" && len(kind) <= maxTypeLen && isVisible(strings.ReplaceAll(kind, " ", "")) {
			c.header.Set("Content-Type", kind)
		}
		duplicate, err := t.enqueue(ctx, c, strings.Join(id, "."))
		if err != nil {
			t.log.Warn("message of a topic not queued, trying again", "function", f.name, "error", err)
			m.NakWithDelay(time.Second)
			return
		}
		if !duplicate {
			t.metrics.topics.WithLabelValues(f.name).Inc()
		}
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	if err := m.DoubleAck(ctx); err != nil {
		t.log.Debug("not acknowledged, it comes again", "error", err)
	}
}
