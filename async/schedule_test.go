package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestScheduleLabels(t *testing.T) {
	for _, tt := range []struct {
		name                string
		labels, annotations map[string]string
		want                []string
		grace               time.Duration
		problem             string
	}{
		{"none", nil, nil, nil, 0, ""},
		{"one", map[string]string{labelSchedule: "*/5 * * * *"}, nil, []string{"*/5 * * * *"}, time.Hour, ""},
		{"several", map[string]string{labelSchedule: "@hourly; CRON_TZ=Europe/Berlin 0 6 * * 1-5 ;"}, nil, []string{"@hourly", "CRON_TZ=Europe/Berlin 0 6 * * 1-5"}, time.Hour, ""},
		{"seconds", map[string]string{labelSchedule: "*/10 * * * * *", labelGrace: "10m"}, nil, []string{"*/10 * * * * *"}, 10 * time.Minute, ""},
		{"OpenFaaS's pair", nil, map[string]string{"topic": "cron-function", "schedule": "@daily"}, []string{"@daily"}, time.Hour, ""},
		{"the pair among topics", nil, map[string]string{"topic": "a, cron-function", "schedule": "@daily"}, []string{"@daily"}, time.Hour, ""},
		{"another topic", nil, map[string]string{"topic": "a", "schedule": "@daily"}, nil, 0, ""},
		{"half of the pair", nil, map[string]string{"topic": "cron-function"}, nil, 0, "needs an annotation schedule"},
		{"one bad", map[string]string{labelSchedule: "61 * * * *;@hourly"}, nil, []string{"@hourly"}, time.Hour, "is not a cron expression"},
		{"a zone that is none", map[string]string{labelSchedule: "CRON_TZ=Mars/Base 0 6 * * *"}, nil, nil, time.Hour, "is not a cron expression"},
		{"a zone alone", map[string]string{labelSchedule: "CRON_TZ=UTC"}, nil, nil, time.Hour, "is not a cron expression"},
		{"bad grace", map[string]string{labelSchedule: "@hourly", labelGrace: "long"}, nil, []string{"@hourly"}, time.Hour, "not a duration"},
		{"long grace", map[string]string{labelSchedule: "@hourly", labelGrace: "9999h"}, nil, []string{"@hourly"}, time.Hour, "more than"},
		{"too many", map[string]string{labelSchedule: strings.Repeat("@hourly;", 17)}, nil, slices.Repeat([]string{"@hourly"}, 16), time.Hour, "more than 16"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFunction("f", tt.labels, tt.annotations)
			var got []string
			for _, s := range f.schedules {
				got = append(got, s.text)
			}
			if !slices.Equal(got, tt.want) || f.grace != tt.grace {
				t.Errorf("got %q with grace %s, want %q with %s", got, f.grace, tt.want, tt.grace)
			}
			if p := strings.Join(f.problems, "; "); (p == "") != (tt.problem == "") || !strings.Contains(p, tt.problem) {
				t.Errorf("got problem %q, want %q", p, tt.problem)
			}
		})
	}
}

func TestDueTimes(t *testing.T) {
	at := func(s string) time.Time {
		v, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, tt := range []struct{ exprs, from, to, want string }{
		{"*/5 * * * *", "2026-03-01T00:00:00Z", "2026-03-01T00:11:00Z", "00:05 00:10"},
		{"0 * * * *;@hourly", "2026-03-01T00:00:00Z", "2026-03-01T02:00:00Z", "01:00 02:00"},
		{"30 1 * * *;0 2 * * *", "2026-03-01T00:00:00Z", "2026-03-01T12:00:00Z", "01:30 02:00"},
		// At multiples of the duration, whenever one looks.
		{"@every 15m", "2026-03-01T00:07:13Z", "2026-03-01T00:31:00Z", "00:15 00:30"},
		// Without a zone: UTC, whatever this machine has.
		{"0 6 * * *", "2026-07-01T00:00:00Z", "2026-07-01T12:00:00Z", "06:00"},
		{"CRON_TZ=Europe/Berlin 0 6 * * *", "2026-07-01T00:00:00Z", "2026-07-01T12:00:00Z", "04:00"},
		{"CRON_TZ=Europe/Berlin 0 6 * * *", "2026-01-01T00:00:00Z", "2026-01-01T12:00:00Z", "05:00"},
		// Day of month or day of week, as cron has it: the 13th and Fridays.
		{"0 0 13 * 5", "2026-03-11T12:00:00Z", "2026-03-14T12:00:00Z", "00:00"},
		{"0 0 14 * 5", "2026-03-12T12:00:00Z", "2026-03-14T12:00:00Z", "00:00 00:00"},
		// The hour that is missing in spring, and the one that is there twice
		// in autumn.
		{"CRON_TZ=Europe/Berlin 15 * * * *", "2026-03-29T00:00:00Z", "2026-03-29T02:30:00Z", "00:15 01:15 02:15"},
		{"0 0 30 2 *", "2026-03-01T00:00:00Z", "2026-12-01T00:00:00Z", ""},
	} {
		f := newFunction("f", map[string]string{labelSchedule: tt.exprs}, nil)
		if len(f.problems) > 0 {
			t.Fatal(f.problems)
		}
		var got []string
		for _, d := range due(f.schedules, at(tt.from), at(tt.to), 1000) {
			got = append(got, d.UTC().Format("15:04"))
		}
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("%s from %s to %s: got %q, want %q", tt.exprs, tt.from, tt.to, s, tt.want)
		}
	}
}

// A schedulerTest is a scheduler on a real store, with a clock of its own.
type schedulerTest struct {
	*scheduler
	t       *testing.T
	clock   time.Time
	calls   []string
	refuses bool
}

func newSchedulerTest(t *testing.T, s *testService) *schedulerTest {
	st := &schedulerTest{t: t, clock: time.Date(2030, 1, 1, 0, 0, 30, 0, time.UTC)}
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	fs := newFunctions(&config{gateway: mustURL(t, "http://none")}, nil, nil, newMetrics(), quiet)
	seen := map[string]bool{}
	st.scheduler = &scheduler{
		store: s.store, functions: fs, metrics: newMetrics(), now: func() time.Time { return st.clock }, log: quiet, known: map[string]*fired{},
		enqueue: func(_ context.Context, c *call, id string) (bool, error) {
			if st.refuses {
				return false, errors.New("JetStream is away")
			}
			if seen[id] {
				return true, nil
			}
			seen[id] = true
			due, _ := time.Parse(time.RFC3339, c.header.Get("X-Due"))
			st.calls = append(st.calls, due.Format("15:04:05"))
			return false, nil
		},
	}
	return st
}

func (st *schedulerTest) schedule(labels map[string]string) {
	l := &list{functions: map[string]*function{}, at: time.Now()}
	if labels != nil {
		l.functions["f"] = newFunction("f", labels, nil)
	}
	st.functions.current.Store(l)
}

// restart is another process on the same store.
func (st *schedulerTest) restart() { st.known = map[string]*fired{} }

// after lets time go by and returns the due times that were published.
func (st *schedulerTest) after(d time.Duration) string {
	st.t.Helper()
	st.clock = st.clock.Add(d)
	st.tick(st.t.Context(), st.clock)
	calls := strings.Join(st.calls, " ")
	st.calls = nil
	return calls
}

func TestScheduler(t *testing.T) {
	s := startBoth(t, newStandIn(t))
	minutely := map[string]string{labelSchedule: "* * * * *"}
	type step struct {
		do   func(*schedulerTest)
		wait time.Duration
		want string
	}
	for _, tt := range []struct {
		name  string
		steps []step
	}{
		{"in time", []step{{nil, 0, ""}, {nil, 30 * time.Second, "00:01:00"}, {nil, time.Second, ""}, {nil, time.Minute, "00:02:00"}}},
		{"missed while all were down: once", []step{{nil, 0, ""}, {(*schedulerTest).restart, 10 * time.Minute, "00:10:00"}, {nil, time.Minute, "00:11:00"}}},
		{"missed for too long: not at all, then on", []step{
			{func(st *schedulerTest) { st.schedule(with(minutely, labelSchedule, "0 0 * * *", labelGrace, "30m")) }, 0, ""},
			{(*schedulerTest).restart, 24*time.Hour + 45*time.Minute, ""}, {nil, 24 * time.Hour, ""}, {nil, 23*time.Hour + 15*time.Minute, "00:00:00"},
		}},
		{"a short hold-up: each", []step{
			{func(st *schedulerTest) { st.schedule(with(minutely, labelSchedule, "* * * * * *")) }, 0, ""},
			{nil, 3 * time.Second, "00:00:31 00:00:32 00:00:33"},
			{func(st *schedulerTest) { st.refuses = true }, 2 * time.Second, ""},
			{func(st *schedulerTest) { st.refuses = false }, 2 * time.Second, "00:00:34 00:00:35 00:00:36 00:00:37"},
			{nil, time.Minute, "00:01:37"},
		}},
		{"changed: nothing of before", []step{
			{nil, 0, ""}, {func(st *schedulerTest) { st.restart(); st.schedule(with(minutely, labelSchedule, "*/2 * * * *")) }, 10 * time.Minute, ""},
			{nil, 2 * time.Minute, "00:12:00"},
		}},
		{"removed and back: nothing of before", []step{
			{nil, 0, ""}, {func(st *schedulerTest) { st.schedule(nil) }, time.Minute, ""},
			{func(st *schedulerTest) { st.schedule(minutely) }, 10 * time.Minute, ""}, {nil, time.Minute, "00:12:00"},
		}},
		{"not known yet: nothing", []step{
			{func(st *schedulerTest) { st.functions.current.Store(&list{}) }, time.Hour, ""}, {func(st *schedulerTest) { st.schedule(minutely) }, 0, ""}, {nil, time.Minute, "01:01:00"},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			st := newSchedulerTest(t, s)
			st.schedule(minutely)
			for i, step := range tt.steps {
				if step.do != nil {
					step.do(st)
				}
				if got := st.after(step.wait); got != step.want {
					t.Errorf("step %d: got %q, want %q", i, got, step.want)
				}
			}
			st.schedule(nil)
			st.after(0)
			if m, err := s.store.last(t.Context(), streamSchedules, "faas.schedule.f"); m != nil || err != nil {
				t.Errorf("got %v, %v left, want nothing", m, err)
			}
		})
	}
}

// Two schedulers at once publish each time once, and a function runs for it as
// for OpenFaaS's cron-connector.
func TestScheduledCall(t *testing.T) {
	g, got := newStandIn(t), &keep{}
	g.function("fn", map[string]string{labelSchedule: "@every 1s"}, got.ServeHTTP)
	s := startBoth(t, g)
	other := &scheduler{store: s.store, functions: s.functions, enqueue: s.acceptor.enqueue, metrics: newMetrics(), now: time.Now, log: slog.New(slog.DiscardHandler), known: map[string]*fired{}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- other.run(ctx) }()
	within(t, soon, "run for 4 times", func() bool { return len(got.all()) >= 4 })
	cancel()
	<-ended
	times := map[string]int{}
	for _, c := range got.all() {
		if c.method != "POST" || c.uri != "/function/fn/" || c.body != "" || c.header.Get("X-Topic") != "cron-function" || c.header.Get("X-Connector") != "cron-connector" {
			t.Fatalf("got %+v", c)
		}
		times[c.header.Get("X-Due")]++
	}
	for due, n := range times {
		if n != 1 {
			t.Errorf("%s: got %d runs, want 1", due, n)
		}
	}
}
