package main

// Firing schedules. Every faas-async publishes every due time, under an ID
// made of the function and the time: JetStream drops all but the first, and
// should it have forgotten, a worker finds that the call of that ID is over.

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// catchUp is how far this process may be behind and still publish each due
// time. What is older was missed: then the newest stands for all.
const catchUp = 30 * time.Second

// A fired is what is kept per function: up to when its due times have been
// published, and of which expressions.
type fired struct {
	Schedules string    `json:"schedules"`
	Until     time.Time `json:"until"`
}

// A scheduler publishes what is due.
type scheduler struct {
	store     *store
	functions *functions
	enqueue   func(ctx context.Context, c *call, id string) (duplicate bool, err error)
	metrics   *metrics
	now       func() time.Time
	log       *slog.Logger

	known map[string]*fired // by function
}

// run publishes what is due until ctx ends.
func (s *scheduler) run(ctx context.Context) error {
	for {
		now := s.now()
		next := now.Add(time.Second)
		if s.store.ready.Load() {
			if n := s.tick(ctx, now); n.Before(next) {
				next = n
			}
		}
		if err := sleep(ctx, max(next.Sub(s.now()), time.Millisecond)); err != nil {
			return err
		}
	}
}

// tick publishes what is due at now, and returns a time by which something may
// be due again.
func (s *scheduler) tick(ctx context.Context, now time.Time) time.Time {
	soon := now.Add(time.Second)
	l := s.functions.current.Load()
	if l.at.IsZero() {
		return soon
	}
	for name := range s.known {
		if f := l.functions[name]; f == nil || len(f.schedules) == 0 {
			if err := s.erase(ctx, name); err != nil {
				s.log.Warn("schedule not forgotten, trying again", "function", name, "error", err)
			}
		}
	}
	for name, f := range l.functions {
		if len(f.schedules) == 0 {
			continue
		}
		if err := s.publish(ctx, f, now); err != nil {
			if ctx.Err() == nil && !inProcess(err) {
				s.log.Warn("schedule not published, trying again", "function", name, "error", err)
			}
			continue
		}
		if n := nextDue(f.schedules, now); !n.IsZero() && n.Before(soon) {
			soon = n
		}
	}
	return soon
}

// publish puts what is due of one function into the queue.
func (s *scheduler) publish(ctx context.Context, f *function, now time.Time) error {
	var texts []string
	for _, sc := range f.schedules {
		texts = append(texts, sc.text)
	}
	text := strings.Join(texts, ";")
	was, started := s.known[f.name], false
	if was == nil {
		stored, err := s.load(ctx, f.name)
		if err != nil {
			return err
		}
		was, started = stored, true
	}
	if was == nil || was.Schedules != text || was.Until.After(now.Add(time.Minute)) {
		// New, or changed: what would have been due before was not asked for.
		was = &fired{Schedules: text, Until: now}
		if err := s.save(ctx, f.name, was); err != nil {
			return err
		}
		s.known[f.name] = was
		return nil
	}
	from := was.Until
	if oldest := now.Add(-f.grace); from.Before(oldest) {
		from = oldest
	}
	most := int(catchUp/time.Second) + 1
	if started || now.Sub(nextDue(f.schedules, from)) > catchUp {
		most = 1 // for all that was missed
	}
	s.known[f.name] = was
	for _, t := range due(f.schedules, from, now, most) {
		if err := s.fire(ctx, f.name, t); err != nil {
			return err
		}
		was = &fired{Schedules: text, Until: t}
		s.known[f.name] = was
	}
	return nil
}

// fire publishes one due time.
func (s *scheduler) fire(ctx context.Context, name string, t time.Time) error {
	unix := strconv.FormatInt(t.Unix(), 10)
	c := &call{
		id: callIDOf("schedule", name, unix), uid: "schedule", function: name, name: name, accepted: s.now(),
		method: "POST", target: "/",
		header: map[string][]string{"X-Topic": {cronTopic}, "X-Connector": {"cron-connector"}, "X-Due": {t.UTC().Format(time.RFC3339)}},
	}
	duplicate, err := s.enqueue(ctx, c, "schedule."+name+"."+unix)
	if err != nil || duplicate {
		return err
	}
	s.metrics.fired.WithLabelValues(name).Inc()
	// Should this fail, the next one writes it; should there be no next one,
	// the same due time comes again under the same ID.
	if f := s.known[name]; f != nil {
		if err := s.save(ctx, name, &fired{Schedules: f.Schedules, Until: t}); err != nil {
			s.log.Warn("due time not noted", "function", name, "error", err)
		}
	}
	return nil
}

func (s *scheduler) subject(name string) string { return "faas.schedule." + token(name) }

func (s *scheduler) load(ctx context.Context, name string) (*fired, error) {
	m, err := s.store.last(ctx, streamSchedules, s.subject(name))
	if err != nil || m == nil {
		return nil, err
	}
	var f fired
	if err := json.Unmarshal(m.Data, &f); err != nil {
		return nil, nil // as if there were none
	}
	return &f, nil
}

func (s *scheduler) save(ctx context.Context, name string, f *fired) error {
	data, err := json.Marshal(f)
	if err != nil {
		return err
	}
	m := nats.NewMsg(s.subject(name))
	m.Data = data
	_, _, err = s.store.publish(ctx, m)
	return err
}

// erase forgets a function that has no schedule any more.
func (s *scheduler) erase(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	if err := s.store.streams[streamSchedules].Purge(ctx, jetstream.WithPurgeSubject(s.subject(name))); err != nil {
		return fmt.Errorf("purge: %w", err)
	}
	delete(s.known, name)
	return nil
}
