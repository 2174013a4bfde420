package main

// What callers notice of a replica that is not as its siblings are: three
// replicas behind an upstream, in the virtual time of synctest. With -v the
// test prints the table of docs/reliability.md.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"faas/internal/transport"
)

const (
	oddLength = 20 * time.Second
	oddWarm   = 2 * time.Second // "later" is after it
	oddAddr   = "odd:8080"      // the replica that is unlike the two others

	breaksBefore = -1 // the connection breaks in place of an answer
	breaksWithin = -2 // a 200 breaks off after its headers
)

// A behaviour says how the replica at addr answers the call number n, which it
// gets at that time of the simulation.
type behaviour func(addr string, n int, at time.Duration) (took time.Duration, status int)

func always(took time.Duration, status int) behaviour {
	return func(string, int, time.Duration) (time.Duration, int) { return took, status }
}

// failsAThird fails every third call, after took.
func failsAThird(took time.Duration) behaviour {
	return func(_ string, n int, _ time.Duration) (time.Duration, int) {
		if n%3 == 0 {
			return took, 500
		}
		return 50 * time.Millisecond, 200
	}
}

// failsWhile fails at once as long as ill says so.
func failsWhile(ill func(at time.Duration) bool) behaviour {
	return func(_ string, _ int, at time.Duration) (time.Duration, int) {
		if ill(at) {
			return 0, 500
		}
		return 50 * time.Millisecond, 200
	}
}

// sheds has room for 4 calls in each replica and answers others with 503.
func sheds() behaviour {
	var mu sync.Mutex
	inside := map[string][]time.Duration{} // when they end
	return func(addr string, _ int, at time.Duration) (time.Duration, int) {
		mu.Lock()
		defer mu.Unlock()
		inside[addr] = slices.DeleteFunc(inside[addr], func(end time.Duration) bool { return end <= at })
		if len(inside[addr]) == 4 {
			return 0, 503
		}
		inside[addr] = append(inside[addr], at+50*time.Millisecond)
		return 50 * time.Millisecond, 200
	}
}

// An oddShare is what three replicas made of some calls; shares are of 1.
type oddShare struct {
	calls                    int
	toOdd, toOddLast         float64 // share of the calls, and of those of the last 5 s
	failed, failedLater      float64
	failures, leftAlone, odd int
}

type oddCallKey struct{}

// shareOf sends POSTs at random times, rate per second on average, to two
// replicas that behave as siblings and one as odd.
func shareOf(t *testing.T, rate int, siblings, odd behaviour) (s oddShare) {
	var later, last, failuresLater, oddLast int
	var mu sync.Mutex
	count := func(at time.Duration, odd, failed bool) {
		mu.Lock()
		defer mu.Unlock()
		one := map[bool]int{true: 1}
		s.calls++
		s.odd += one[odd]
		s.failures += one[failed]
		later += one[at >= oddWarm]
		failuresLater += one[at >= oddWarm && failed]
		last += one[at >= oddLength-5*time.Second]
		oddLast += one[at >= oddLength-5*time.Second && odd]
	}
	synctest.Test(t, func(t *testing.T) {
		r := manyFunctions(t, 1)
		f := r.function("f0")
		f.balancer.update([]string{"a:8080", oddAddr, "b:8080"})
		began := time.Now()
		u := &upstream{log: r.log, refresh: func(*function) {}, transport: roundTripper(func(req *http.Request) (*http.Response, error) {
			answer := siblings
			if req.URL.Host == oddAddr {
				answer = odd
			}
			took, status := answer(req.URL.Host, req.Context().Value(oddCallKey{}).(int), time.Since(began))
			time.Sleep(took)
			resp := emptyAnswer(req)
			switch status {
			case breaksBefore:
				return nil, &transport.Error{Stage: transport.StageSent, Err: errors.New("broke")}
			case breaksWithin:
				resp.Body = io.NopCloser(iotest.ErrReader(io.ErrUnexpectedEOF))
			default:
				resp.StatusCode = status
			}
			return resp, nil
		})}
		arrivals := rand.New(rand.NewPCG(1, uint64(rate)))
		var wg sync.WaitGroup
		for n := 0; time.Since(began) < oddLength; n++ {
			wg.Go(func() {
				inv := &invocation{f: f, start: time.Now(), guard: guard{deadline: time.Now().Add(time.Minute)}}
				ctx := context.WithValue(context.WithValue(t.Context(), invocationKey{}, inv), oddCallKey{}, n)
				req, err := http.NewRequestWithContext(ctx, "POST", "http://f0/", nil)
				if err != nil {
					t.Error(err)
					return
				}
				resp, err := u.RoundTrip(req)
				failed := err != nil || resp.StatusCode >= 500
				if !failed {
					_, err = io.ReadAll(resp.Body)
					failed = err != nil
				}
				inv.release()
				count(inv.start.Sub(began), req.URL.Host == oddAddr, failed)
			})
			time.Sleep(time.Duration(arrivals.ExpFloat64() * float64(time.Second) / float64(rate)))
		}
		wg.Wait()
		for _, r := range f.balancer.replicas() {
			s.leftAlone += r.strikes
		}
	})
	s.toOdd, s.toOddLast = float64(s.odd)/float64(s.calls), float64(oddLast)/float64(last)
	s.failed, s.failedLater = float64(s.failures)/float64(s.calls), float64(failuresLater)/float64(later)
	return s
}

func TestSharesOfAnOddReplica(t *testing.T) {
	well, fails := always(50*time.Millisecond, 200), always(0, 500)
	eachOtherSecond := func(at time.Duration) bool { return at/time.Second%2 == 0 }
	isNot := func(limit float64) func(oddShare) bool {
		return func(s oddShare) bool { return s.failedLater < limit }
	}
	// Where all are alike, exactly those calls fail that would fail anywhere.
	equal := func(failures func(calls int) int) func(oddShare) bool {
		return func(s oddShare) bool {
			return s.failures == failures(s.calls) && s.toOdd > .2 && s.toOdd < .5 && s.leftAlone <= 20
		}
	}
	var ill atomic.Int64
	allFlap := failsWhile(func(at time.Duration) bool {
		if eachOtherSecond(at) {
			ill.Add(1)
		}
		return eachOtherSecond(at)
	})
	var table strings.Builder
	for _, c := range []struct {
		name          string
		siblings, odd behaviour
		holds         func(oddShare) bool
	}{
		{"all well", well, well, equal(func(int) int { return 0 })},
		{"all fail at once", fails, fails, equal(func(calls int) int { return calls })},
		{"all fail a third", failsAThird(0), failsAThird(0), equal(func(calls int) int { return (calls + 2) / 3 })},
		{"all flap each second", allFlap, allFlap, equal(func(int) int { return int(ill.Swap(0)) })},
		{"one takes 3 s", well, always(3*time.Second, 200), func(s oddShare) bool { return s.toOdd < .05 && s.leftAlone == 0 && s.failures == 0 }},
		{"one fails at once", well, fails, isNot(.05)},
		{"one fails at once, one takes 3 s", func(addr string, n int, at time.Duration) (time.Duration, int) {
			if addr == "a:8080" {
				return 3 * time.Second, 200
			}
			return 50 * time.Millisecond, 200
		}, fails, isNot(.05)},
		{"two fail at once", fails, well, isNot(.15)},
		{"one fails after 50 ms", well, always(50*time.Millisecond, 500), isNot(.05)},
		{"one fails after 3 s", well, always(3*time.Second, 500), isNot(.05)},
		{"one breaks the connection", well, always(0, breaksBefore), isNot(.05)},
		{"one breaks its answers off", well, always(0, breaksWithin), isNot(.1)},
		{"one fails a third", well, failsAThird(0), isNot(.1)},
		{"one flaps each second", well, failsWhile(eachOtherSecond), isNot(.1)},
		{"one is well after 5 s", well, failsWhile(func(at time.Duration) bool { return at < 5*time.Second }), func(s oddShare) bool { return s.failedLater < .05 && s.toOddLast > .2 }},
	} {
		for _, rate := range []int{20, 100, 200} {
			s := shareOf(t, rate, c.siblings, c.odd)
			fmt.Fprintf(&table, "| %s | %d | %.1f %% | %.1f %% | %.1f %% | %.1f %% | %d |\n", c.name, rate, 100*s.toOdd, 100*s.toOddLast, 100*s.failed, 100*s.failedLater, s.leftAlone)
			if !c.holds(s) {
				t.Errorf("%s, %d per second: got %+v", c.name, rate, s)
			}
		}
	}
	// Those that have no room must not be taken for ill by chance.
	if s := shareOf(t, 200, sheds(), sheds()); s.failures == 0 || s.leftAlone > 20 {
		t.Errorf("all shed load: got %+v, want failures and none ejected", s)
	}
	t.Logf("shares of the calls: to the odd replica, the same in the last 5 s, failed, failed after 2 s; times ejected\n%s", &table)
}
