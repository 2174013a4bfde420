package main

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// A lane is removed when its function has been gone for long, and one that has
// messages and no consumer gets one again.
func TestLanesComeAndGo(t *testing.T) {
	g, got := newStandIn(t), &keep{}
	g.function("fn", quick, got.ServeHTTP)
	s := startBoth(t, g)
	s.awaitStatus(t, s.call(t, "fn", "1"), stateDone)
	survey := &surveyor{store: s.store, queues: []*queue{s.calls, s.callbacks}, functions: s.functions, metrics: s.metrics, log: s.acceptor.log, gone: map[string]time.Time{}, strays: map[*queue]int{}}
	lane := func() bool {
		_, err := s.calls.find("fn")
		return err == nil
	}
	look := func() {
		t.Helper()
		if err := survey.survey(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	look()
	g.remove("fn")
	within(t, soon, "gone", func() bool { return s.functions.missing("fn") })
	look()
	if !lane() {
		t.Fatal("the lane was removed at once")
	}
	survey.gone["fn"] = time.Now().Add(-2 * unusedFor)
	look()
	if lane() {
		t.Fatal("the lane is still there")
	}
	if text := ask(t, "GET", s.url+"/metrics", "").body; strings.Contains(text, `function_name="fn"`) {
		t.Errorf("what was counted of a function that is gone is still there:\n%s", text)
	}
	// A call that was accepted meanwhile.
	c := &call{id: "stray", uid: "u", function: "fn", name: "fn", method: "POST", target: "/", header: http.Header{}, accepted: time.Now()}
	if _, err := s.store.calls.commit(t.Context(), c.message(s.calls.subject("fn", c.id, c.uid))); err != nil {
		t.Fatal(err)
	}
	g.function("fn", quick, got.ServeHTTP)
	for range strayAfter {
		look()
	}
	s.awaitStatus(t, "stray", stateDone)
	// What there is to see of it.
	g.function("waits", with(quick, labelMinWait, "1h", labelMaxWait, "1h"), func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) })
	within(t, soon, "listed", func() bool { return s.functions.current.Load().functions["waits"] != nil })
	s.call(t, "waits", "x")
	survey.oldestAt = time.Time{}
	look()
	if n := s.metric(t, `async_queued{function_name="waits"}`); n != 1 {
		t.Errorf("got %v queued, want 1", n)
	}
	if age := s.metric(t, `async_oldest_seconds{function_name="waits"}`); age <= 0 || age > 60 {
		t.Errorf("got an age of %v, want a little", age)
	}
	if up := s.metric(t, "async_jetstream_up"); up != 1 {
		t.Errorf("got %v, want 1", up)
	}
}
