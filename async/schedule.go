package main

// Schedules: what functions' labels say, and when they are due.

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // the image has no time zones of its own

	"github.com/netresearch/go-cron"
)

const (
	labelSchedule = "faas.schedule"
	labelGrace    = "faas.schedule-grace"

	// OpenFaaS's pair of annotations.
	cronTopic          = "cron-function"
	annotationTopic    = "topic"
	annotationSchedule = "schedule"

	defaultGrace = time.Hour
	maxGrace     = 7 * 24 * time.Hour
	maxSchedules = 16 // per function
)

// A schedule is one cron expression.
type schedule struct {
	text string
	cron.Schedule
}

// cronParser takes what OpenFaaS's cron-connector takes, and seconds as a
// sixth field in front.
func cronParser() cron.Parser {
	return cron.MustNewParser(cron.SecondOptional | cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor | cron.DowOrDom)
}

// parseSchedules reads a function's labels. A bad expression is reported, the
// others hold.
func parseSchedules(get func(string) (string, bool), problem func(string, error)) ([]schedule, time.Duration) {
	label := labelSchedule
	text, ok := get(labelSchedule)
	if !ok {
		label = annotationSchedule
		topics, _ := get(annotationTopic)
		if !slices.Contains(splitList(topics), cronTopic) {
			return nil, 0
		}
		if text, ok = get(annotationSchedule); !ok {
			problem(annotationTopic, fmt.Errorf("%s needs an annotation %s", cronTopic, annotationSchedule))
			return nil, 0
		}
	}
	grace := defaultGrace
	if s, ok := get(labelGrace); ok {
		d, err := parseDuration(s)
		switch {
		case err != nil:
			problem(labelGrace, err)
		case d > maxGrace:
			problem(labelGrace, fmt.Errorf("%s is more than %s", d, maxGrace))
		default:
			grace = d
		}
	}
	var list []schedule
	for expr := range strings.SplitSeq(text, ";") {
		if expr = strings.TrimSpace(expr); expr == "" {
			continue
		}
		if len(list) == maxSchedules {
			problem(label, fmt.Errorf("more than %d expressions", maxSchedules))
			break
		}
		s, err := parseSchedule(expr)
		if err != nil {
			problem(label, err)
			continue
		}
		list = append(list, s)
	}
	return list, grace
}

func parseSchedule(expr string) (schedule, error) {
	if len(expr) > 256 {
		return schedule{}, errors.New("an expression is longer than 256 bytes")
	}
	s, err := cronParser().Parse(expr)
	if err != nil {
		return schedule{}, fmt.Errorf("%q is not a cron expression: %w", expr, err)
	}
	if every, ok := s.(cron.ConstantDelaySchedule); ok {
		s = aligned(every.Delay)
	}
	return schedule{expr, s}, nil
}

// aligned is @every, at multiples of the duration: so its times are the same
// in every process, whenever that was started.
type aligned time.Duration

func (d aligned) Next(t time.Time) time.Time {
	return t.Truncate(time.Duration(d)).Add(time.Duration(d))
}

// due returns the due times of all schedules after from, up to and including
// to, without duplicates and in order; if more than most, then the newest.
func due(list []schedule, from, to time.Time, most int) []time.Time {
	var times []time.Time
	t := from.UTC()
	for {
		next := nextDue(list, t)
		if next.IsZero() || next.After(to) {
			return times
		}
		if times = append(times, next); len(times) > most {
			times = times[1:]
		}
		t = next
	}
}

// nextDue returns the first due time after t; zero if there is none.
func nextDue(list []schedule, t time.Time) time.Time {
	var first time.Time
	for _, s := range list {
		if n := s.Next(t.UTC()); !n.IsZero() && (first.IsZero() || n.Before(first)) {
			first = n
		}
	}
	return first
}
