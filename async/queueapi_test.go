package main

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"testing"
)

// Lanes with calls are told, the fullest first; empty ones and what else is
// counted are not.
func TestQueueStatus(t *testing.T) {
	m := newMetrics()
	m.calls.queued.WithLabelValues("b").Set(3)
	m.calls.queued.WithLabelValues("a").Set(7)
	m.calls.queued.WithLabelValues("c").Set(3)
	m.calls.queued.WithLabelValues("empty").Set(0)
	m.calls.running.WithLabelValues("a").Set(2)
	m.calls.oldest.WithLabelValues("a").Set(12.5)
	m.accepted.WithLabelValues("counted").Add(9)
	m.callBacks.queued.WithLabelValues("0").Set(1)
	m.callBacks.queued.WithLabelValues("1").Set(4)
	m.dead.Set(6)
	w := httptest.NewRecorder()
	m.queue(w, nil)
	var got queueStatus
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatalf("got %s: %v", w.Body, err)
	}
	if want := "{[{a 7 2 12.5} {b 3 0 0} {c 3 0 0}] 5 6}"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

// Over the way that callers take.
func TestQueueOverHTTP(t *testing.T) {
	g := newStandIn(t)
	s := startBoth(t, g)
	r := ask(t, "GET", s.url+"/system/async/queue", "")
	var got queueStatus
	if err := json.Unmarshal([]byte(r.body), &got); err != nil || r.code != 200 || got.Functions == nil {
		t.Errorf("got %d %s, want an empty queue", r.code, r.body)
	}
}
