package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"faas/internal/transport"
)

// A troubledProvider is a memoryProvider that knows of a trouble.
type troubledProvider struct {
	*memoryProvider
	mu    sync.Mutex
	why   *trouble
	err   error
	asked []time.Time
}

func (p *troubledProvider) trouble(context.Context, definition) (*trouble, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, time.Now())
	return p.why, p.err
}

func (p *troubledProvider) say(why *trouble) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.why = why
}

func (p *troubledProvider) questions() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.asked)
}

var crashes = &trouble{reason: "its process ends with exit code 1", detail: "task x: failed: task: non-zero exit (1)", failing: true}

// A troubledFunction is f of a registry that runs, and a way to call it.
type troubledFunction struct {
	*function
	t        *testing.T
	provider *troubledProvider
	registry *registry
	log      *logBuffer
	up       *upstream
}

// testTroubled runs test in a bubble, with a function that wants one replica and
// has none.
func testTroubled(t *testing.T, change func(*definition), test func(t *testing.T, f *troubledFunction)) {
	synctest.Test(t, func(t *testing.T) {
		p := &troubledProvider{memoryProvider: newMemoryProvider()}
		p.set("f", func(d *definition) {
			d.replicas, d.timeout = 1, time.Minute
			d.scale.Max = 20
			if change != nil {
				change(d)
			}
		})
		r, logged := newTestRegistry(p, accepts)
		stop := runRegistry(t, r)
		defer stop()
		synctest.Wait()
		up := &upstream{refresh: r.refresh, wake: func(string) {}, queue: 100, queueTimeout: 30 * time.Second}
		test(t, &troubledFunction{r.function("f"), t, p, r, logged, up})
	})
}

// A waitResult is how a caller's wait ended, and after how long.
type waitResult struct {
	err  error
	took time.Duration
}

// call waits for a replica, in the background.
func (f *troubledFunction) call() <-chan waitResult {
	done := make(chan waitResult, 1)
	began := time.Now()
	go func() {
		err := f.up.await(f.t.Context(), f.function)
		done <- waitResult{err, time.Since(began)}
	}()
	synctest.Wait()
	return done
}

func (f *troubledFunction) gauge() string {
	_, value, _ := strings.Cut(exposed(f.registry.metrics), `gateway_function_trouble{function_name="f"} `)
	value, _, _ = strings.Cut(value, "\n")
	return value
}

// Every caller of a function that cannot start was held for 30 s.
func TestCallersOfAFunctionThatKeepsFailingAreTurnedAway(t *testing.T) {
	testTroubled(t, nil, func(t *testing.T, f *troubledFunction) {
		f.provider.say(crashes)
		wantTurnedAway := func(who string, done <-chan waitResult, least, most time.Duration) {
			t.Helper()
			got := <-done
			why, ok := errors.AsType[*trouble](got.err)
			if !ok || why.reason != crashes.reason || !errors.Is(got.err, errNoReplica) {
				t.Errorf("%s: got %v, want %v as errNoReplica", who, got.err, crashes)
			}
			if got.took < least || got.took > most {
				t.Errorf("%s: turned away after %v, want %v to %v", who, got.took, least, most)
			}
		}
		first, second := f.call(), f.call()
		time.Sleep(5 * time.Second)
		third, fourth := f.call(), f.call()
		wantTurnedAway("who came first", first, troubleAfter, troubleAfter+troublePause)
		wantTurnedAway("who came with it", second, troubleAfter, troubleAfter+troublePause)
		synctest.Wait()
		if len(third) > 0 {
			t.Fatal("the first of those who came later is not held as the probe")
		}
		wantTurnedAway("who came after that", fourth, 5*time.Second, 5*time.Second+troublePause)
		for range 50 {
			wantTurnedAway("a new caller", f.call(), 0, 0)
		}
		wantTurnedAway("the probe", third, troubleAfter, troubleAfter+troublePause)

		probe := f.call() // long after: the next one in its place
		wantTurnedAway("a new caller", f.call(), 0, 0)
		if got := f.gauge(); got != "1" {
			t.Errorf("the gauge is %s, want 1", got)
		}
		began := time.Now()
		f.provider.setAddrs("f", "10.0.0.1:8080")
		got := <-probe
		if got.err != nil || time.Since(began) > 2*time.Second {
			t.Errorf("the probe went on with %v %v after the first replica was ready, want none within 2s", got.err, time.Since(began))
		}
		synctest.Wait()
		if got := f.gauge(); got != "0" {
			t.Errorf("once a replica is ready the gauge is %s, want 0", got)
		}
		for line, want := range map[string]int{"level=WARN": 1, "function can start again": 1} {
			if got := f.log.count(line); got != want {
				t.Errorf("got %d lines with %q, want %d", got, line, want)
			}
		}
		if f.log.count("level=WARN", "function cannot start", "exit code 1", "task x: failed") != 1 {
			t.Error("the log does not say why")
		}
	})
}

// A function that has been broken for long is known to be at the first call.
func TestALongBrokenFunctionHoldsNobodyButTheProbe(t *testing.T) {
	testTroubled(t, nil, func(t *testing.T, f *troubledFunction) {
		f.provider.say(crashes)
		time.Sleep(time.Hour)
		if got := f.provider.questions(); got != 0 {
			t.Errorf("got %d questions without a caller, want none", got)
		}
		probe := f.call()
		time.Sleep(time.Second)
		if got := <-f.call(); got.took != 0 || !errors.Is(got.err, errNoReplica) {
			t.Errorf("got %v after %v, want to be turned away at once", got.err, got.took)
		}
		if got := <-probe; got.took > troubleAfter+troublePause {
			t.Errorf("the probe was held for %v, want %v", got.took, troubleAfter)
		}
		// It starts to work, and nobody is there to see it.
		time.Sleep(time.Second)
		f.provider.setAddrs("f", "10.0.0.1:8080")
		if got := <-f.call(); got.err != nil || got.took > 2*time.Second {
			t.Errorf("got %v after %v, want to go on within 2s", got.err, got.took)
		}
	})
}

// Who waits for a start that takes long is not turned away, but told at the end
// what it was that took so long.
func TestASlowStartTurnsNobodyAway(t *testing.T) {
	testTroubled(t, nil, func(t *testing.T, f *troubledFunction) {
		f.provider.say(&trouble{reason: "its image is being pulled"})
		callers := []<-chan waitResult{f.call(), f.call()}
		for _, done := range callers {
			got := <-done
			if got.took != f.up.queueTimeout || !errors.Is(got.err, errNoReplica) || !strings.Contains(got.err.Error(), "being pulled") {
				t.Errorf("got %v after %v, want the reason after %v", got.err, got.took, f.up.queueTimeout)
			}
		}
		if f.log.count("level=WARN") != 0 || f.gauge() != "0" {
			t.Error("log or metric say that it cannot start")
		}
		if got := f.provider.questions(); got < 15 || got > 21 {
			t.Errorf("got %d questions in 20 s, want one a second", got)
		}
	})
}

// A new version that is being started after one that kept failing deserves its
// time. Between two tries of a failing one it does not look like that.
func TestANewVersionIsWaitedFor(t *testing.T) {
	testTroubled(t, nil, func(t *testing.T, f *troubledFunction) {
		f.provider.say(crashes)
		<-f.call()
		for range 3 {
			probe := f.call()
			time.Sleep(2 * time.Second)
			f.provider.say(nil) // just another try
			time.Sleep(3 * time.Second)
			if got := <-f.call(); got.took != 0 {
				t.Errorf("during another try: got %v after %v, want to be turned away", got.err, got.took)
			}
			f.provider.say(crashes)
			<-probe
		}
		f.provider.say(nil)
		probe := f.call()
		time.Sleep(troubleAfter + 2*troublePause)
		waiting := f.call()
		time.Sleep(15 * time.Second)
		if len(probe)+len(waiting) > 0 {
			t.Fatal("callers of a version that is being started were turned away")
		}
		f.provider.setAddrs("f", "10.0.0.1:8080")
		if got := <-waiting; got.err != nil {
			t.Errorf("got %v, want none", got.err)
		}
		if got := f.log.count("function cannot start"); got != 1 {
			t.Errorf("logged %d times, want once", got)
		}
	})
}

// A crash loop is in DNS for a moment each time. That does not make it ready.
func TestAReplicaThatAcceptsNothingIsNotReady(t *testing.T) {
	testTroubled(t, nil, func(t *testing.T, f *troubledFunction) {
		f.registry.dial = func(context.Context, string, string) (net.Conn, error) { return nil, syscall.ECONNREFUSED }
		f.provider.say(crashes)
		f.provider.setAddrs("f", "10.0.0.1:8080")
		<-f.call()
		f.registry.refresh(f.function) // nobody waits now
		time.Sleep(time.Second)
		if f.Ready() != 0 || !f.admission.failing() {
			t.Errorf("got %d ready and failing %v, want none and true", f.Ready(), f.admission.failing())
		}
	})
}

// Nor is it for the autoscaler, which would order more of them for the load.
func TestAReplicaThatWasNeverReachedIsNotReady(t *testing.T) {
	testTroubled(t, nil, func(t *testing.T, f *troubledFunction) {
		look := func(name string, ready int, addrs ...string) {
			t.Helper()
			f.provider.setAddrs("f", addrs...)
			f.registry.refresh(f.function)
			time.Sleep(time.Second)
			if got := len(f.balancer.replicas()); f.Ready() != ready || got != len(addrs) {
				t.Errorf("%s: got %d ready of %d, want %d of %d", name, f.Ready(), got, ready, len(addrs))
			}
		}
		call := func(dial transport.DialFunc) {
			ctx := invocationContext{&invocation{guard: guard{request: t.Context()}, f: f.function}}
			if conn, err := noteReached(dial)(ctx, "tcp", "10.0.0.1:1"); err == nil {
				conn.Close()
			}
		}
		look("in DNS", 0, "10.0.0.1:1")
		call(func(context.Context, string, string) (net.Conn, error) { return nil, syscall.ECONNREFUSED })
		look("and does not accept a call", 0, "10.0.0.1:1")
		call(accepts)
		look("accepted a call", 1, "10.0.0.1:1")
		look("gone", 0)
		look("another, in DNS", 0, "10.0.0.2:1")
		look("gone", 0)

		waiting := f.call()
		f.provider.setAddrs("f", "10.0.0.3:1", "10.0.0.4:1")
		if got := <-waiting; got.err != nil || f.Ready() != 2 {
			t.Errorf("two that callers waited for: got %v and %d ready, want none and 2", got.err, f.Ready())
		}
	})
}

// Nobody starts it, so nobody is to wait for it.
func TestAFunctionWithoutReplicasThatIsNotScaled(t *testing.T) {
	testTroubled(t, func(d *definition) { d.replicas, d.scale.Max = 0, d.scale.Min }, func(t *testing.T, f *troubledFunction) {
		got := <-f.call()
		if !errors.Is(got.err, errNoReplica) || !strings.Contains(got.err.Error(), "is not scaled") || got.took > troubleAfter+troublePause {
			t.Errorf("got %v after %v, want to be told that it is not scaled", got.err, got.took)
		}
		probe := f.call()
		time.Sleep(time.Second)
		if got := <-f.call(); got.took != 0 {
			t.Errorf("the next: got %v after %v, want to be turned away at once", got.err, got.took)
		}
		<-probe
		if got := f.provider.questions(); got != 0 {
			t.Errorf("the provider was asked %d times, want never", got)
		}
	})
}

// Back to no replica, the next start is a new one.
func TestAFunctionThatIsAsleepIsInNoTrouble(t *testing.T) {
	testTroubled(t, nil, func(t *testing.T, f *troubledFunction) {
		f.provider.say(crashes)
		<-f.call()
		f.provider.set("f", func(d *definition) { d.replicas, d.scale.Max = 0, 20 })
		time.Sleep(time.Second)
		if f.gauge() != "0" {
			t.Error("the gauge is 1 for a function with no replica wanted")
		}
		f.provider.say(nil)
		if got := <-f.call(); got.took != f.up.queueTimeout {
			t.Errorf("got %v after %v, want a wait of %v", got.err, got.took, f.up.queueTimeout)
		}
	})
}

// Without an answer nothing is known, and callers wait as ever.
func TestTroubleIsUnknownWithoutTheProvider(t *testing.T) {
	testTroubled(t, nil, func(t *testing.T, f *troubledFunction) {
		f.provider.err = errors.New("forbidden by a proxy")
		if got := <-f.call(); got.took != f.up.queueTimeout || got.err != errNoReplica {
			t.Errorf("got %v after %v, want %v after %v", got.err, got.took, errNoReplica, f.up.queueTimeout)
		}
		f.provider.memoryProvider.mu.Lock()
		f.provider.listErr = errors.New("no quorum")
		f.provider.memoryProvider.mu.Unlock()
		time.Sleep(resyncInterval)
		if got := <-f.call(); got.took != f.up.queueTimeout || !strings.Contains(got.err.Error(), "does not answer") {
			t.Errorf("in an outage: got %v after %v, want to be told of it after %v", got.err, got.took, f.up.queueTimeout)
		}
		if got := f.log.count("level=WARN"); got != 1 {
			t.Errorf("got %d warnings, want the one about the outage", got)
		}
	})
}

// What callers are told, and that their number does not show in the log.
func TestTheAnswerSaysWhyNoReplicaIsReady(t *testing.T) {
	testTroubled(t, nil, func(t *testing.T, f *troubledFunction) {
		f.provider.say(crashes)
		c, err := parseConfig(nil, func(string) string { return "" }, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		g := newGateway(&c, f.registry, f.up, f.registry.metrics, f.registry.log)
		call := func() *httptest.ResponseRecorder {
			w := httptest.NewRecorder()
			g.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/function/f", nil))
			return w
		}
		f.up.transport, f.up.log = alwaysAnswers{}, f.registry.log
		want := fmt.Sprintf("function %q: no replica became ready in time: %s\n", "f", crashes.reason)
		call()
		go call() // the probe
		time.Sleep(time.Second)
		for range 20 {
			w := call()
			if w.Code != http.StatusServiceUnavailable || w.Body.String() != want || w.Header().Get("Retry-After") == "" {
				t.Fatalf("got %d %q with Retry-After %q, want 503 %q", w.Code, w.Body, w.Header().Get("Retry-After"), want)
			}
		}
		if got := f.log.count("level=WARN"); got != 1 {
			t.Errorf("got %d warnings for 21 callers, want 1", got)
		}
		f.provider.setAddrs("f", "10.0.0.1:8080")
		time.Sleep(2 * time.Second)
		if w := call(); w.Code != http.StatusOK {
			t.Errorf("2 s after the first replica was ready: got %d, want 200", w.Code)
		}
	})
}

// alwaysAnswers is a transport to replicas that answer 200.
type alwaysAnswers struct{}

func (alwaysAnswers) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
}
