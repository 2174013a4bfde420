package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

var quick = map[string]string{labelMinWait: "10ms", labelMaxWait: "20ms", labelAttempts: "4"}

// with returns labels and more.
func with(labels map[string]string, more ...string) map[string]string {
	m := map[string]string{}
	for k, v := range labels {
		m[k] = v
	}
	for i := 0; i < len(more); i += 2 {
		m[more[i]] = more[i+1]
	}
	return m
}

// Each answer does to a call what docs/async.md says.
func TestOutcomes(t *testing.T) {
	g := newStandIn(t)
	s := startBoth(t, g, "-workers", "8")
	answers := func(codes ...int) http.HandlerFunc {
		var n atomic.Int32
		return func(w http.ResponseWriter, r *http.Request) {
			code := codes[min(int(n.Add(1)), len(codes))-1]
			if code == 0 {
				panic(http.ErrAbortHandler)
			}
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(code)
		}
	}
	for _, tt := range []struct {
		name     string
		codes    []int
		labels   map[string]string
		status   string
		attempts int
		code     int
	}{
		{"success", []int{200}, quick, stateDone, 1, 200},
		{"failure, then success", []int{500, 502, 504, 200}, quick, stateDone, 4, 200},
		{"failures only", []int{500}, quick, stateDead, 4, 500},
		{"one attempt", []int{500}, with(quick, labelAttempts, "1"), stateDead, 1, 500},
		{"an answer that is no failure", []int{404}, quick, stateDone, 1, 404},
		{"a status of its own list", []int{418, 200}, with(quick, labelCodes, "418"), stateDone, 2, 200},
		{"a status that left the list", []int{500}, with(quick, labelCodes, "418"), stateDone, 1, 500},
		{"busy is no attempt", []int{429, 503, 429, 200}, with(quick, labelAttempts, "1"), stateDone, 1, 200},
		{"broken off", []int{0, 200}, quick, stateDone, 2, 200},
		{"redirect", []int{302}, quick, stateDone, 1, 302},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			name := "f" + fmt.Sprint(len(tt.name)) + strings.ReplaceAll(strings.ReplaceAll(tt.name, " ", "-"), ",", "")
			g.function(name, tt.labels, answers(tt.codes...))
			within(t, soon, "known", func() bool { return s.functions.current.Load().functions[name] != nil })
			st := s.awaitStatus(t, s.call(t, name, "x"), tt.status)
			if st.Attempts != tt.attempts || st.Code != tt.code || st.Function != name {
				t.Errorf("got %+v, want %d attempts and code %d", st, tt.attempts, tt.code)
			}
		})
	}
}

// A gateway that is not there is waited for: that is no attempt.
func TestGatewayAway(t *testing.T) {
	g, got := newStandIn(t), &keep{}
	g.function("fn", with(quick, labelAttempts, "1"), got.ServeHTTP)
	s := startBoth(t, g)
	address := g.Listener.Addr().String()
	g.Close()
	id := s.call(t, "fn", "x")
	within(t, soon, "put off twice", func() bool { return s.metric(t, `async_put_off_total{function_name="fn"}`) >= 2 })
	if st := s.status(t, id); st.Attempts != 1 || st.Reason != "the gateway cannot be reached" {
		t.Errorf("got %+v, want the first attempt", st)
	}
	ln, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	again := &httptest.Server{Listener: ln, Config: &http.Server{Handler: http.HandlerFunc(g.serve)}}
	again.Start()
	defer again.Close()
	s.awaitStatus(t, id, stateDone)
	if n := len(got.all()); n != 1 {
		t.Errorf("got %d runs, want 1", n)
	}
}

// A call that is put off for longer than -max-age is given up.
func TestMaxAge(t *testing.T) {
	g := newStandIn(t)
	g.function("busy", nil, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(429) })
	s := startBoth(t, g, "-max-age", "2s")
	st := s.awaitStatus(t, s.call(t, "busy", "x"), stateDead)
	if !strings.Contains(st.Reason, "still put off after 2s: status 429") {
		t.Errorf("got reason %q", st.Reason)
	}
}

// A function that is deleted while calls wait keeps them, until it is back.
func TestFunctionGoneForAWhile(t *testing.T) {
	g, got := newStandIn(t), &keep{}
	entered, release := make(chan struct{}), make(chan struct{})
	g.function("fn", quick, func(w http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		<-release
		w.WriteHeader(404)
	})
	s := startBoth(t, g)
	id := s.call(t, "fn", "x")
	<-entered
	g.remove("fn")
	within(t, soon, "known to be gone", func() bool { return s.functions.missing("fn") })
	close(release)
	within(t, soon, "put off", func() bool { return s.metric(t, `async_put_off_total{function_name="fn"}`) >= 1 })
	g.function("fn", quick, got.ServeHTTP)
	s.awaitStatus(t, id, stateDone)
	if n := len(got.all()); n != 1 {
		t.Errorf("got %d runs, want 1", n)
	}
}

// A call whose worker died is run again within 10 s, one that only takes long
// is not.
func TestClaims(t *testing.T) {
	g, got := newStandIn(t), &keep{}
	var long atomic.Bool
	g.function("fn", quick, func(w http.ResponseWriter, r *http.Request) {
		got.add(r)
		if long.Load() {
			time.Sleep(ackWait + ackWait/2)
		}
	})
	s := startBoth(t, g)

	// orphan returns after how long a call of the function is done whose worker takes the
	// message and the record, and is gone.
	orphan := func(t *testing.T, function, id string) time.Duration {
		t.Helper()
		s.calls.mu.Lock()
		s.calls.running[function] = true // as if: no loop is begun
		s.calls.mu.Unlock()
		g.function(function, quick, got.ServeHTTP)
		c := &call{id: id, uid: "u", function: function, name: function, method: "POST", target: "/", header: http.Header{}, accepted: time.Now()}
		if _, err := s.acceptor.enqueue(t.Context(), c, ""); err != nil {
			t.Fatal(err)
		}
		m := pullOne(t, s, function)
		meta, err := m.Metadata()
		if err != nil {
			t.Fatal(err)
		}
		fresh := record{Function: function, UID: "u", Accepted: c.accepted}
		_, _, what, err := s.store.claim(t.Context(), stateSubject("call", id, "u"), meta.Sequence.Stream, true, fresh, streamCalls)
		if what != claimRun || err != nil {
			t.Fatalf("got %v, %v, want the claim", what, err)
		}
		if st := s.status(t, id); st.Status != stateRunning {
			t.Errorf("got %+v, want running", st)
		}
		died := time.Now()
		s.calls.mu.Lock()
		delete(s.calls.running, function)
		s.calls.mu.Unlock()
		s.calls.start(function, died)
		s.awaitStatus(t, id, stateDone)
		return time.Since(died)
	}
	t.Run("a dead worker", func(t *testing.T) {
		took := time.Hour
		for try := 0; try < 3 && took > 10*time.Second; try++ { // this machine may be busy
			took = min(took, orphan(t, fmt.Sprint("gone", try), fmt.Sprint("orphan", try)))
		}
		if took > 10*time.Second {
			t.Errorf("run again after %s, want within 10 s", took)
		}
	})
	t.Run("long work", func(t *testing.T) {
		before := len(got.all())
		long.Store(true)
		s.awaitStatus(t, s.call(t, "fn", "x"), stateDone)
		if n := len(got.all()) - before; n != 1 {
			t.Errorf("got %d runs, want 1", n)
		}
	})
}

// What a worker makes of a record decides whether a call runs.
func TestClaimRules(t *testing.T) {
	g := newStandIn(t)
	s := startBoth(t, g)
	st, ctx := s.store, t.Context()
	fresh := record{Function: "fn", UID: "u", Accepted: time.Now()}
	// A message that is in the stream, for records that refer to it.
	there, _, err := st.publish(ctx, (&call{id: "i", uid: "u", function: "fn", name: "fn", method: "POST", target: "/", accepted: time.Now()}).message("faas.call.none.i.u"))
	if err != nil {
		t.Fatal(err)
	}
	for i, tt := range []struct {
		name   string
		record *record
		seq    uint64
		first  bool
		want   claim
	}{
		{"nobody touched it", nil, 7, true, claimRun},
		{"delivered again before anybody touched it", nil, 7, false, claimRun},
		{"its worker died", &record{State: stateRunning, Seq: 7}, 7, false, claimRun},
		{"delivered for the first time, as JetStream forgot", &record{State: stateRunning, Seq: 7}, 7, true, claimRun},
		{"a copy of one that runs", &record{State: stateRunning, Seq: there}, 7, true, claimDrop},
		{"a copy of one whose message is lost", &record{State: stateRunning, Seq: 1 << 40}, 7, true, claimRun},
		{"too early", &record{State: stateQueued, Seq: 7, NotBefore: time.Now().Add(time.Hour)}, 7, false, claimWait},
		{"time for another attempt", &record{State: stateQueued, Seq: 7, Attempt: 3, NotBefore: time.Now().Add(-time.Second)}, 7, false, claimRun},
		{"done", &record{State: stateDone}, 7, true, claimDrop},
		{"dead", &record{State: stateDead}, 7, false, claimDrop},
		{"cancelled", &record{State: stateCancelled}, 7, true, claimDrop},
	} {
		t.Run(tt.name, func(t *testing.T) {
			subject := stateSubject("call", fmt.Sprint("rule", i), "u")
			if tt.record != nil {
				if err := st.endState(ctx, subject, *tt.record); err != nil {
					t.Fatal(err)
				}
			}
			r, rev, what, err := st.claim(ctx, subject, tt.seq, tt.first, fresh, streamCalls)
			if what != tt.want || err != nil {
				t.Fatalf("got %v, %v, want %v", what, err, tt.want)
			}
			if now, nowRev, _ := st.state(ctx, subject); what == claimRun && (now.State != stateRunning || now.Seq != tt.seq || nowRev != rev || now.Attempt != r.Attempt) {
				t.Errorf("got record %+v at %d, want what claim returned, %+v at %d", now, nowRev, r, rev)
			}
			if tt.record != nil && tt.record.Attempt != r.Attempt {
				t.Errorf("got attempt %d, want %d", r.Attempt, tt.record.Attempt)
			}
		})
	}
}

// SIGTERM lets what runs end, within -shutdown-timeout; what takes longer goes
// back and is run at once by the next one.
func TestStop(t *testing.T) {
	g, got := newStandIn(t), &keep{}
	entered, release := make(chan string, 10), make(chan struct{})
	var second atomic.Bool
	g.function("fn", quick, func(w http.ResponseWriter, r *http.Request) {
		call := got.add(r)
		if second.Load() {
			return
		}
		entered <- call.body
		if call.body == "short" {
			<-release
		} else {
			<-r.Context().Done()
		}
	})
	c := testConfig(t, g.URL, "-shutdown-timeout", "5s")
	s := startService(t, c)
	short, long := s.call(t, "fn", "short"), s.call(t, "fn", "long")
	<-entered
	<-entered
	address := s.address.String()
	go func() {
		for { // until it has begun to stop
			conn, err := net.Dial("tcp", address)
			if err != nil {
				close(release)
				return
			}
			conn.Close()
		}
	}()
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	second.Store(true)
	s = startService(t, c)
	if st := s.status(t, short); st.Status != stateDone {
		t.Errorf("the short one: got %+v, want done", st)
	}
	if st := s.awaitStatus(t, long, stateDone); st.Attempts != 1 {
		t.Errorf("the long one: got %+v, want done with the first attempt that counts", st)
	}
	if n := len(got.all()); n != 3 {
		t.Errorf("got %d runs, want 3", n)
	}
}

// Who has connected in time learns that the call is not taken.
func TestTheLastCallIsRefused(t *testing.T) {
	g := newStandIn(t)
	g.function("fn", nil, func(http.ResponseWriter, *http.Request) {})
	s := startBoth(t, g)
	last, err := net.Dial("tcp", s.address.String())
	if err != nil {
		t.Fatal(err)
	}
	defer last.Close()
	stopped := make(chan error, 1)
	go func() { stopped <- s.stop() }()
	for {
		c, err := net.Dial("tcp", s.address.String())
		if err != nil {
			break // the listener is closed
		}
		c.Close()
	}
	fmt.Fprint(last, "POST /async-function/fn HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi")
	resp, err := http.ReadResponse(bufio.NewReader(last), nil)
	if err != nil {
		t.Fatalf("got no answer: %v", err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("got status %d, Retry-After %q, want 503 and one", resp.StatusCode, resp.Header.Get("Retry-After"))
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func pullOne(t *testing.T, s *testService, lane string) jetstream.Msg {
	t.Helper()
	c, err := s.calls.find(lane)
	if err != nil {
		t.Fatal(err)
	}
	m, err := pull(t.Context(), c, soon)
	if m == nil || err != nil {
		t.Fatalf("pull: got %v, %v, want a message", m, err)
	}
	return m
}
