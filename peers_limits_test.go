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

// Of the same Alexa request at several gateways at once, at most one is accepted.
func TestAlexaRequestsAreTakenOnceByAllGateways(t *testing.T) {
	var accepted atomic.Int64
	bases := startSkillGateways(t, 3, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		accepted.Add(1)
	})
	for race := range 20 {
		r := alexatest.SignedRequest(t)
		r.Set(t, "requestId", fmt.Sprint("race-", race))
		accepted.Store(0)
		begin := make(chan struct{})
		var ok, refused atomic.Int64
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				<-begin
				code, answer := (&skillGateway{base: bases[i%len(bases)]}).send(t, "/", r)
				switch {
				case code == http.StatusOK:
					ok.Add(1)
				case code == http.StatusBadRequest && strings.Contains(answer, "replayed"):
					refused.Add(1)
				default:
					t.Errorf("got %d %q, want 200 or a refusal as a replay", code, answer)
				}
			})
			if race%2 == 1 { // later ones hit what is known already
				if i == 0 {
					close(begin)
				}
			}
		}
		if race%2 == 0 {
			close(begin)
		}
		wg.Wait()
		if ok.Load() > 1 || accepted.Load() > 1 {
			t.Fatalf("race %d: %d of 100 were accepted and %d reached the function, want at most one", race, ok.Load(), accepted.Load())
		}
		for _, b := range bases {
			if code, _ := (&skillGateway{base: b}).send(t, "/", r); ok.Load() == 1 && code != http.StatusBadRequest {
				t.Errorf("race %d, replayed later: got %d, want 400", race, code)
			}
		}
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
			n := metricValue(t, text, fmt.Sprintf(`gateway_alexa_replay_checks_total{outcome=%q}`, outcome))
			if n == 0 {
				t.Errorf("%s: no check was counted as %s", b, outcome)
			}
			total += n
		}
		if n := metricValue(t, text, `gateway_alexa_replay_checks_total{outcome="unreachable"}`); n != 0 {
			t.Errorf("%s: %d checks found the owner unreachable", b, n)
		}
	}
	t.Logf("%d checks", total)
}

// What failed at one gateway may be repeated at another.
func TestAFailedAlexaRequestMayGoToAnotherGateway(t *testing.T) {
	var status atomic.Int64
	bases := startSkillGateways(t, 3, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(int(status.Load()))
	})
	for n := range 6 {
		r := alexatest.SignedRequest(t)
		r.Set(t, "requestId", fmt.Sprint("repeated-", n))
		status.Store(500)
		for i := range bases {
			if code, answer := (&skillGateway{base: bases[i]}).send(t, "/", r); code != 500 {
				t.Fatalf("gateway %d: got %d %q, want the function's 500", i, code, answer)
			}
		}
		status.Store(200)
		if code, answer := (&skillGateway{base: bases[n%3]}).send(t, "/", r); code != 200 {
			t.Fatalf("got %d %q, want 200 after it has failed everywhere", code, answer)
		}
		if code, _ := (&skillGateway{base: bases[(n+1)%3]}).send(t, "/", r); code != 400 {
			t.Fatalf("got %d, want 400 after it succeeded elsewhere", code)
		}
	}
}

// metricValue returns the whole number that text has for a series.
func metricValue(t *testing.T, text, series string) (n int) {
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
