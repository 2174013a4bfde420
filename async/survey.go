package main

// The survey: now and then each faas-async looks at what is in JetStream, for
// the metrics, for lanes that others have begun, and for those that nobody
// needs any more.

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	surveyEvery = 5 * time.Second
	// oldestEvery is how often the oldest message of each lane is fetched.
	oldestEvery = 15 * time.Second
	// unusedFor is how long a lane of a function that is gone is kept.
	unusedFor = time.Hour
	// strayAfter is how often in a row there have to be more messages than the
	// lanes have: once may be chance, as both change all the time.
	strayAfter = 3
)

type surveyor struct {
	store     *store
	queues    []*queue
	functions *functions
	metrics   *metrics
	log       *slog.Logger

	oldestAt time.Time
	gone     map[string]time.Time // lanes of functions that are gone, since when
	strays   map[*queue]int       // surveys in a row that saw more messages than the lanes have
}

// run surveys until ctx ends.
func (s *surveyor) run(ctx context.Context) error {
	last := ""
	for !s.store.ready.Load() {
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
	for {
		bounded, cancel := context.WithTimeout(ctx, 2*publishTimeout)
		err := s.survey(bounded)
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		up, text := 1.0, ""
		if err != nil {
			up, text = 0, err.Error()
			if text != last {
				s.log.Warn("JetStream does not answer the survey", "error", err)
			}
		}
		last = text
		s.metrics.up.Set(up)
		if err := sleep(ctx, surveyEvery); err != nil {
			return err
		}
	}
}

func (s *surveyor) survey(ctx context.Context) error {
	oldest := time.Since(s.oldestAt) >= oldestEvery
	if oldest {
		s.oldestAt = time.Now()
	}
	for _, q := range s.queues {
		if err := s.queue(ctx, q, oldest); err != nil {
			return err
		}
	}
	info, err := s.store.streams[streamDead].Info(ctx)
	if err != nil {
		return fmt.Errorf("survey: %w", err)
	}
	s.metrics.dead.Set(float64(info.State.Msgs))
	return nil
}

// queue surveys one queue.
func (s *surveyor) queue(ctx context.Context, q *queue, oldest bool) error {
	m, stream := s.metrics.callBacks, s.store.streams[q.stream]
	if q.stream == streamCalls {
		m = s.metrics.calls
	}
	began, total := time.Now(), uint64(0)
	before, err := stream.Info(ctx)
	if err != nil {
		return fmt.Errorf("survey: %w", err)
	}
	lister := stream.ListConsumers(ctx)
	lanes := map[string]bool{}
	for info := range lister.Info() {
		lane, ok := q.laneOf(info.Name)
		if !ok {
			continue
		}
		lanes[lane] = true
		n := info.NumPending + uint64(info.NumAckPending)
		total += n
		m.queued.WithLabelValues(lane).Set(float64(n))
		switch {
		case n == 0:
			m.oldest.WithLabelValues(lane).Set(0)
		case oldest:
			age, err := s.oldest(ctx, q, lane)
			if err != nil {
				return err
			}
			m.oldest.WithLabelValues(lane).Set(age.Seconds())
		}
		if q.stream == streamCalls && s.unused(lane, n) {
			if err := stream.DeleteConsumer(ctx, info.Name); err != nil {
				return fmt.Errorf("survey: %w", err)
			}
			delete(lanes, lane)
			q.forget(lane)
			m.queued.DeleteLabelValues(lane)
			m.oldest.DeleteLabelValues(lane)
			s.metrics.forget(lane)
			continue
		}
		q.start(lane, began)
	}
	if err := lister.Err(); err != nil {
		return fmt.Errorf("survey: %w", err)
	}
	after, err := stream.Info(ctx)
	if err != nil {
		return fmt.Errorf("survey: %w", err)
	}
	if min(before.State.Msgs, after.State.Msgs) <= total {
		s.strays[q] = 0
	} else if s.strays[q]++; s.strays[q] >= strayAfter {
		s.strays[q] = 0
		return s.adopt(ctx, q, lanes)
	}
	return nil
}

// oldest is the age of the oldest message of a lane.
func (s *surveyor) oldest(ctx context.Context, q *queue, lane string) (time.Duration, error) {
	m, err := s.store.streams[q.stream].GetMsg(ctx, 1, jetstream.WithGetMsgSubject("faas."+q.name+"."+token(lane)+".>"))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("survey: %w", err)
	}
	return time.Since(m.Time), nil
}

// unused tells whether a lane can go: its function is gone, and it has been
// empty for long.
func (s *surveyor) unused(lane string, n uint64) bool {
	if n > 0 || !s.functions.missing(lane) {
		delete(s.gone, lane)
		return false
	}
	since, ok := s.gone[lane]
	if !ok {
		s.gone[lane] = time.Now()
	}
	return ok && time.Since(since) > unusedFor
}

// adopt makes lanes for messages that have none: a call was accepted at the
// very moment in which its lane was removed. It lists all that waits, which is
// much, and so is done when nothing else explains the numbers.
func (s *surveyor) adopt(ctx context.Context, q *queue, lanes map[string]bool) error {
	info, err := s.store.streams[q.stream].Info(ctx, jetstream.WithSubjectFilter("faas."+q.name+".>"))
	if err != nil {
		return fmt.Errorf("survey: %w", err)
	}
	for subject := range info.State.Subjects {
		tokens := strings.Split(subject, ".")
		if len(tokens) < 3 {
			continue
		}
		lane, err := untoken(tokens[2])
		if err != nil || lanes[lane] {
			continue
		}
		lanes[lane] = true
		q.forget(lane) // it is not there, whatever was seen
		if err := q.ensure(ctx, lane); err != nil {
			return err
		}
		s.log.Info("lane adopted", "queue", q.name, "lane", lane)
	}
	return nil
}
