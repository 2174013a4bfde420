package main

import (
	"net/http"
	"sync"
	"testing"
	"time"
)

// A call can be cancelled until it starts, and never runs then.
func TestCancel(t *testing.T) {
	g, got := newStandIn(t), &keep{}
	entered, release := make(chan struct{}, 100), make(chan struct{})
	g.function("fn", quick, func(w http.ResponseWriter, r *http.Request) {
		got.add(r)
		entered <- struct{}{}
		<-release
	})
	g.function("failing", with(quick, labelMinWait, "1h", labelMaxWait, "1h"), func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) })
	s := startBoth(t, g, "-workers", "2") // one at a time of one function
	running := s.call(t, "fn", "running")
	<-entered
	queued := s.call(t, "fn", "queued", "X-Call-Id", "my id=1")
	if st := s.status(t, "my%20id=1"); st.Status != "" {
		t.Errorf("got %+v for an ID that was not kept, want none", st)
	}
	before := s.status(t, queued)
	if before.Status != stateQueued || before.Function != "fn" {
		t.Errorf("got %+v, want queued", before)
	}
	for _, tt := range []struct {
		id   string
		want int
	}{{running, 409}, {queued, 202}, {queued, 202}} {
		if r := ask(t, "DELETE", s.url+"/async-function/"+tt.id, ""); r.code != tt.want {
			t.Errorf("got %d %s, want %d", r.code, r.body, tt.want)
		}
	}
	waiting := s.call(t, "failing", "x")
	within(t, soon, "waiting for another attempt", func() bool { return s.status(t, waiting).Attempts == 2 })
	if st := s.status(t, waiting); st.Status != stateQueued || st.Code != 500 || time.Until(st.NotBefore) < time.Minute {
		t.Errorf("got %+v, want queued for later", st)
	}
	if r := ask(t, "DELETE", s.url+"/async-function/"+waiting, ""); r.code != 202 {
		t.Errorf("got %d %s, want 202", r.code, r.body)
	}
	close(release)
	s.awaitStatus(t, running, stateDone)
	s.awaitStatus(t, s.call(t, "fn", "after"), stateDone)
	for _, id := range []string{queued, waiting} {
		if st := s.status(t, id); st.Status != stateCancelled {
			t.Errorf("got %+v, want cancelled", st)
		}
	}
	if after := s.status(t, queued); !after.Accepted.Equal(before.Accepted) {
		t.Errorf("got accepted at %s once it is cancelled, want %s", after.Accepted, before.Accepted)
	}
	if r := ask(t, "DELETE", s.url+"/async-function/"+running, ""); r.code != 409 {
		t.Errorf("a call that is done: got %d, want 409", r.code)
	}
	for _, c := range got.all() {
		if c.body == "queued" {
			t.Error("a cancelled call ran")
		}
	}
	within(t, soon, "nothing left", func() bool { return s.metric(t, `async_queued{function_name="failing"}`) == 0 })
}

// Whoever is first, the worker or DELETE, wins: a call that was cancelled
// never runs, one that could not be does.
func TestCancelRace(t *testing.T) {
	g, got := newStandIn(t), &keep{}
	g.function("fn", quick, got.ServeHTTP)
	s := startBoth(t, g)
	var mu sync.Mutex
	want := map[string]int{}
	var wg sync.WaitGroup
	for range 60 {
		wg.Go(func() {
			id := s.call(t, "fn", "x")
			runs := 1
			if r := ask(t, "DELETE", s.url+"/async-function/"+id, ""); r.code == 202 {
				runs = 0
			} else if r.code != 409 {
				t.Errorf("got %d %s", r.code, r.body)
			}
			mu.Lock()
			defer mu.Unlock()
			want[id] = runs
		})
	}
	wg.Wait()
	for id, runs := range want {
		s.awaitStatus(t, id, map[int]string{0: stateCancelled, 1: stateDone}[runs])
	}
	ran := map[string]int{}
	for _, c := range got.all() {
		ran[c.header.Get("X-Call-Id")]++
	}
	cancelled := 0
	for id, runs := range want {
		if ran[id] != runs {
			t.Errorf("call %s: got %d runs, want %d", id, ran[id], runs)
		}
		cancelled += 1 - runs
	}
	t.Logf("%d of %d cancelled", cancelled, len(want))
}

// Two calls of one ID, as from a function that passes its own on, both run;
// the ID tells of the newer one.
func TestSameCallID(t *testing.T) {
	g, got := newStandIn(t), &keep{}
	release := make(chan struct{})
	g.function("first", quick, got.ServeHTTP)
	g.function("second", quick, func(w http.ResponseWriter, r *http.Request) { <-release; got.add(r) })
	s := startBoth(t, g)
	s.call(t, "first", "1", "X-Call-Id", "same")
	if st := s.awaitStatus(t, "same", stateDone); st.Function != "first" {
		t.Errorf("got %+v", st)
	}
	s.call(t, "second", "2", "X-Call-Id", "same")
	within(t, soon, "the second one runs", func() bool {
		st := s.status(t, "same")
		return st.Function == "second" && st.Status == stateRunning
	})
	close(release)
	s.awaitStatus(t, "same", stateDone)
	if n := len(got.all()); n != 2 {
		t.Errorf("got %d runs, want 2", n)
	}
}

// A call that was stored although its caller got a 503 is taken back.
func TestWithdraw(t *testing.T) {
	g, got := newStandIn(t), &keep{}
	g.function("fn", quick, got.ServeHTTP)
	s := startBoth(t, g)
	s.calls.mu.Lock()
	s.calls.running["fn"] = true // as if: nothing runs yet
	s.calls.mu.Unlock()
	c := &call{id: "unsure", uid: newUID(), function: "fn", name: "fn", method: "POST", target: "/", header: http.Header{}, accepted: time.Now()}
	if _, err := s.acceptor.enqueue(t.Context(), c, ""); err != nil {
		t.Fatal(err)
	}
	s.acceptor.withdraw(c)
	s.awaitStatus(t, "unsure", stateCancelled)
	s.calls.mu.Lock()
	delete(s.calls.running, "fn")
	s.calls.mu.Unlock()
	s.calls.start("fn", time.Now())
	s.awaitStatus(t, s.call(t, "fn", "x"), stateDone)
	for _, c := range got.all() {
		if c.header.Get("X-Call-Id") == "unsure" {
			t.Error("it ran")
		}
	}
}
