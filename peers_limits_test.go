package main

// What holds over several gateways: limits, and that an Alexa request is taken once.

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"faas/internal/alexa"
	"faas/internal/alexa/alexatest"
	"faas/internal/peers"
)

// max-inflight holds over all gateways once they have heard of each other's calls.
func TestMaxInflightHoldsOverGateways(t *testing.T) {
	p := newMemoryProvider()
	p.set("sleeper", func(d *definition) { d.timeout, d.maxInflight = time.Minute, 10 }, startReplica(t, sleeper))
	bases := startGateways(t, 3, p, nil)
	release := hold(t, bases[0], "sleeper", 4)
	hold(t, bases[1], "sleeper", 6)
	for _, b := range bases {
		awaitMetric(t, b, `gateway_scale_load{function_name="sleeper"} 10`)
	}
	refuses := func(base string) bool {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, "GET", base+"/function/sleeper", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusTooManyRequests
	}
	// The limit is set by the answer that the metric shows, just after it.
	await := func(base string, refused bool) {
		for end := time.Now().Add(time.Minute); refuses(base) != refused; {
			if time.Now().After(end) {
				t.Fatalf("%s: one more call is refused: %v, want %v", base, !refused, refused)
			}
		}
	}
	for _, b := range bases {
		await(b, true)
	}
	release()
	awaitMetric(t, bases[2], `gateway_scale_load{function_name="sleeper"} 6`)
	await(bases[2], false)
	awaitMetric(t, bases[2], `gateway_scale_load{function_name="sleeper"} 6`)
	hold(t, bases[2], "sleeper", 4)
	awaitMetric(t, bases[1], `gateway_scale_load{function_name="sleeper"} 10`)
}

// A gateway that does not hear the others keeps to its share.
func TestShareOfALimit(t *testing.T) {
	for _, tt := range []struct {
		limit, inflight int
		s               peers.Status
		want            int // that this gateway may have in flight
	}{
		{10, 0, peers.Status{}, 10},
		{10, 0, peers.Status{Heard: 2, Expected: 2}, 10},
		{10, 7, peers.Status{Heard: 2, Expected: 2}, 3},
		{10, 12, peers.Status{Heard: 2, Expected: 2}, -2},
		{10, 0, peers.Status{Expected: 2, Missing: 2}, 4},
		{10, 0, peers.Status{Expected: 2}, 4}, // for long
		{10, 0, peers.Status{Missing: 1}, 5},
		{10, 2, peers.Status{Heard: 1, Expected: 2, Missing: 1}, 5},
		{1, 0, peers.Status{Expected: 2, Missing: 2}, 1},
	} {
		if got := tt.limit - elsewhere(tt.limit, tt.inflight, tt.s); got != tt.want {
			t.Errorf("limit %d, %d in flight elsewhere, %+v: got %d, want %d", tt.limit, tt.inflight, tt.s, got, tt.want)
		}
	}
}

// startSkillGateways starts n gateways that check signatures, in front of a function
// that answers as it is told.
func startSkillGateways(t *testing.T, n int, f http.HandlerFunc) []string {
	t.Helper()
	a := alexatest.NewAmazon(t)
	p := newMemoryProvider()
	p.set("HostnameIntent", nil, startReplica(t, f))
	return startGateways(t, n, p, func() *alexa.Verifier {
		return gatewayVerifier(t, a, func() time.Time { return alexatest.Now })
	})
}

// hearing returns for how long the gateways have not heard each other, and how many
// checks for replays found a gateway unreachable. ok is false if one is not heard at all.
func hearing(t *testing.T, bases []string) (silence time.Duration, unreachable int, ok bool) {
	t.Helper()
	for _, b := range bases {
		_, text := call(t, "GET", b+"/metrics", "")
		if metricValue[int](t, text, "gateway_peers") != len(bases)-1 {
			return 0, 0, false
		}
		age := metricValue[float64](t, text, "gateway_peer_answer_age_seconds")
		silence = max(silence, time.Duration(age*float64(time.Second)))
		unreachable += metricValue[int](t, text, `gateway_alexa_replay_checks_total{outcome="unreachable"}`)
	}
	return silence, unreachable, true
}

// heardThroughout calls f and reports whether the gateways heard each other all the
// while. A gateway that has been silent for a second owns no request, and one that does
// not answer in half a second is not asked: a machine that stands still for so long
// makes a replay possible, and what f saw then is no verdict.
func heardThroughout(t *testing.T, bases []string, f func()) bool {
	t.Helper()
	begin := time.Now()
	silence, before, ok := hearing(t, bases)
	f()
	took := time.Since(begin)
	_, after, still := hearing(t, bases)
	return ok && still && silence+took < time.Second && before == after
}

// untilHeard calls f, with the number of the try, until the gateways have heard each
// other throughout, and then judge.
func untilHeard(t *testing.T, bases []string, f func(try int), judge func()) {
	t.Helper()
	for try := range 100 {
		if heardThroughout(t, bases, func() { f(try) }) {
			judge()
			return
		}
	}
	t.Fatal("the gateways did not hear each other throughout any of 100 tries")
}

// Of the same Alexa request at several gateways at once, at most one is accepted.
func TestAlexaRequestsAreTakenOnceByAllGateways(t *testing.T) {
	var reached atomic.Int64
	bases := startSkillGateways(t, 3, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		reached.Add(1)
	})
	tries := 0
	for race := range 20 {
		var accepted atomic.Int64
		later := 0 // of the replays after the race
		untilHeard(t, bases, func(try int) {
			r := alexatest.SignedRequest(t)
			r.Set(t, "requestId", fmt.Sprint("race-", race, "-", try))
			racers := max(100>>(try/5), 6) // fewer where 100 take a second
			tries++
			accepted.Store(0)
			reached.Store(0)
			begin := make(chan struct{})
			var wg sync.WaitGroup
			for i := range racers {
				wg.Go(func() {
					<-begin
					code, answer := (&skillGateway{base: bases[i%len(bases)]}).send(t, "/", r)
					switch {
					case code == http.StatusOK:
						accepted.Add(1)
					case code == http.StatusBadRequest && strings.Contains(answer, "replayed"):
					default:
						t.Errorf("got %d %q, want 200 or a refusal as a replay", code, answer)
					}
				})
				if race%2 == 1 && i == 0 { // later ones hit what is known already
					close(begin)
				}
			}
			if race%2 == 0 {
				close(begin)
			}
			wg.Wait()
			later = 0
			for _, b := range bases {
				if code, _ := (&skillGateway{base: b}).send(t, "/", r); code == http.StatusOK {
					later++
				}
			}
		}, func() {
			if accepted.Load() > 1 || reached.Load() > 1 {
				t.Fatalf("race %d: %d were accepted and %d reached the function, want at most one", race, accepted.Load(), reached.Load())
			}
			if accepted.Load() == 1 && later > 0 {
				t.Errorf("race %d: %d of 3 replays after it were accepted, want none", race, later)
			}
		})
	}
	// In the races a replay may always be refused before its owner is asked, so that a
	// gateway counts no check of its own. Of 40 new requests to each, it owns some.
	for i := range 40 {
		for g, b := range bases {
			r := alexatest.SignedRequest(t)
			r.Set(t, "requestId", fmt.Sprint("alone-", g, "-", i))
			if code, answer := (&skillGateway{base: b}).send(t, "/", r); code != http.StatusOK {
				t.Errorf("a request of its own at %s: got %d %q, want 200", b, code, answer)
			}
		}
	}
	total := 0
	for _, b := range bases {
		_, text := call(t, "GET", b+"/metrics", "")
		for _, outcome := range []string{peers.ByOwner, peers.Locally} {
			n := metricValue[int](t, text, fmt.Sprintf(`gateway_alexa_replay_checks_total{outcome=%q}`, outcome))
			if n == 0 {
				t.Errorf("%s: no check was counted as %s", b, outcome)
			}
			total += n
		}
	}
	t.Logf("%d races tried, %d checks", tries, total)
}

// What failed at one gateway may be repeated at another.
func TestAFailedAlexaRequestMayGoToAnotherGateway(t *testing.T) {
	var status atomic.Int64
	bases := startSkillGateways(t, 3, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(int(status.Load()))
	})
	for n := range 6 {
		failed, first, again := [3]int{}, 0, 0
		untilHeard(t, bases, func(try int) {
			r := alexatest.SignedRequest(t)
			r.Set(t, "requestId", fmt.Sprint("repeated-", n, "-", try))
			status.Store(500)
			for i := range bases {
				failed[i], _ = (&skillGateway{base: bases[i]}).send(t, "/", r)
			}
			status.Store(200)
			first, _ = (&skillGateway{base: bases[n%3]}).send(t, "/", r)
			again, _ = (&skillGateway{base: bases[(n+1)%3]}).send(t, "/", r)
		}, func() {
			if failed != [3]int{500, 500, 500} {
				t.Fatalf("a function that fails: got %d, want its 500 from each gateway", failed)
			}
			if first != 200 {
				t.Fatalf("got %d, want 200 after it has failed everywhere", first)
			}
			if again != 400 {
				t.Fatalf("got %d, want 400 after it succeeded elsewhere", again)
			}
		})
	}
}

// metricValue returns the number that text has for a series.
func metricValue[N int | float64](t *testing.T, text, series string) (n N) {
	t.Helper()
	_, rest, ok := strings.Cut(text, "\n"+series+" ")
	if !ok {
		t.Fatalf("no metric %s", series)
	}
	if _, err := fmt.Sscan(rest, &n); err != nil {
		t.Fatal(err)
	}
	return n
}
