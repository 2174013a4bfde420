package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A gate is a transport that holds each request until it is told what to
// answer, or until the request's context ends.
type gate struct {
	arrived chan *http.Request
	answer  chan []byte // nil: 404
	total   atomic.Int32
}

func newGate() *gate {
	return &gate{arrived: make(chan *http.Request, 1000), answer: make(chan []byte)}
}

func (g *gate) RoundTrip(r *http.Request) (*http.Response, error) {
	g.total.Add(1)
	g.arrived <- r
	select {
	case text := <-g.answer:
		status := http.StatusOK
		if text == nil {
			status = http.StatusNotFound
		}
		return &http.Response{StatusCode: status, Status: http.StatusText(status), Body: io.NopCloser(bytes.NewReader(text)), Request: r}, nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

// reasonOf returns the reason of a refusal, "" for nil.
func reasonOf(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	var refusal *alexaRefusal
	if !errors.As(err, &refusal) {
		t.Fatalf("got %v, want an *alexaRefusal", err)
	}
	return refusal.reason
}

func TestChainOneDownloadForAll(t *testing.T) {
	a := newAmazon(t)
	good := chainPEM(issue(a.between, signingKey(), signing()), a.between)
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		s := newChainStore(a.roots, g, func() time.Time { return testNow })
		first, leave := context.WithCancel(t.Context())
		impatient, giveUp := context.WithCancel(t.Context())
		errs := make(chan error, 20)
		ask := func(ctx context.Context) {
			_, err := s.key(ctx, testChainURL)
			errs <- err
		}
		go ask(first)
		synctest.Wait()
		for range 18 {
			go ask(t.Context())
		}
		go ask(impatient)
		synctest.Wait()

		giveUp() // a waiter that goes away waits no longer
		if err := <-errs; reasonOf(t, err) != refusedUnavailable || !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want %s for a caller who went away", err, refusedUnavailable)
		}
		leave() // the download goes on for the others
		synctest.Wait()
		g.answer <- good
		for range 19 {
			if err := <-errs; err != nil {
				t.Errorf("got %v, want the key", err)
			}
		}
		if n := g.total.Load(); n != 1 {
			t.Errorf("got %d downloads, want 1", n)
		}
		if key, err := s.key(t.Context(), testChainURL); err != nil || !key.Equal(signingKey().Public()) {
			t.Errorf("got %v, %v, want the key from the store", key, err)
		}
	})
}

func TestChainDownloadEnds(t *testing.T) {
	a := newAmazon(t)
	synctest.Test(t, func(t *testing.T) {
		g := newGate() // never answers
		s := newChainStore(a.roots, g, func() time.Time { return testNow })
		errs := make(chan error, 3*chainDownloads)
		began := time.Now()
		for i := range cap(errs) {
			go func() {
				_, err := s.key(t.Context(), fmt.Sprintf("%s%d", testChainURL, i))
				errs <- err
			}()
		}
		synctest.Wait()
		if n := g.total.Load(); n != chainDownloads {
			t.Errorf("got %d downloads at once, want %d", n, chainDownloads)
		}
		for range cap(errs) {
			if err := <-errs; reasonOf(t, err) != refusedUnavailable || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want the deadline's end", err)
			}
		}
		if d := time.Since(began); d != chainTimeout {
			t.Errorf("got an end after %v, want %v, waiting included", d, chainTimeout)
		}
	})
}

func TestChainFailureIsRemembered(t *testing.T) {
	a := newAmazon(t)
	now := testNow
	v := a.verifier(t, func() time.Time { return now })
	const url = "https://s3.amazonaws.com/echo.api/late.pem"
	ask := func() string {
		_, err := v.chains.key(t.Context(), url)
		return reasonOf(t, err)
	}
	for range 3 {
		if got := ask(); got != refusedUnavailable {
			t.Fatalf("got %q, want %q", got, refusedUnavailable)
		}
	}
	a.serve("/echo.api/late.pem", chainPEM(issue(a.between, signingKey(), signing()), a.between))
	now = now.Add(chainPause - time.Nanosecond)
	if got := ask(); got != refusedUnavailable || len(a.requests()) != 1 {
		t.Errorf("got %q after %d requests, want the failure remembered", got, len(a.requests()))
	}
	now = now.Add(time.Nanosecond)
	if got := ask(); got != "" || len(a.requests()) != 2 {
		t.Errorf("got %q after %d requests, want a second one that succeeds", got, len(a.requests()))
	}
}

func TestChainIsKeptUntilItExpires(t *testing.T) {
	a := newAmazon(t)
	// The certificate between expires before the signing one does.
	end := testNow.Add(time.Hour)
	between := issue(a.root, nil, func(c *x509.Certificate) {
		authority("short")(c)
		c.NotAfter = end
	})
	a.serve("/echo.api/cert.pem", chainPEM(issue(between, signingKey(), signing()), between))
	now := testNow
	v := a.verifier(t, func() time.Time { return now })
	for _, step := range []struct {
		at      time.Time
		reason  string
		fetches int
	}{
		{testNow, "", 1},
		{testNow.Add(time.Minute), "", 1},
		{end, "", 1},
		{end.Add(time.Second), refusedExpired, 2},
	} {
		now = step.at
		_, err := v.chains.key(t.Context(), testChainURL)
		if got := reasonOf(t, err); got != step.reason || len(a.requests()) != step.fetches {
			t.Errorf("at %v: got %q and %d downloads, want %q and %d", now, got, len(a.requests()), step.reason, step.fetches)
		}
	}
}

func TestChainsKeptAreFew(t *testing.T) {
	a := newAmazon(t)
	good := chainPEM(issue(a.between, signingKey(), signing()), a.between)
	v := a.verifier(t, func() time.Time { return testNow })
	get := func(i int) {
		t.Helper()
		path := fmt.Sprintf("/echo.api/%d.pem", i)
		a.serve(path, good)
		if _, err := v.chains.key(t.Context(), "https://s3.amazonaws.com"+path); err != nil {
			t.Fatal(err)
		}
	}
	for i := range maxChains {
		get(i)
	}
	get(0) // used again, so 1 is the next to go
	get(maxChains)
	before := len(a.requests())
	get(0)
	get(2)
	if n := len(a.requests()); n != before {
		t.Errorf("got %d further downloads of chains in use, want none", n-before)
	}
	get(1)
	if n := len(a.requests()); n != before+1 || len(v.chains.known) != maxChains {
		t.Errorf("got %d downloads and %d chains, want 1 and %d", n-before, len(v.chains.known), maxChains)
	}
}

// A thousand made-up URLs below /echo.api/ cost maxChainTries requests, and
// the chain in use stays in use.
func TestChainFlood(t *testing.T) {
	a := newAmazon(t)
	now := testNow
	v := a.verifier(t, func() time.Time { return now })
	if _, err := v.chains.key(t.Context(), testChainURL); err != nil {
		t.Fatal(err)
	}
	flood := func() {
		for i := range 1000 {
			_, err := v.chains.key(t.Context(), fmt.Sprintf("https://s3.amazonaws.com/echo.api/%d", i))
			if reasonOf(t, err) != refusedUnavailable {
				t.Fatalf("got %v, want %s", err, refusedUnavailable)
			}
		}
	}
	flood()
	if n := len(a.requests()); n != 1+maxChainTries {
		t.Errorf("got %d requests, want %d", n, 1+maxChainTries)
	}
	if _, err := v.chains.key(t.Context(), testChainURL); err != nil {
		t.Errorf("got %v for the chain in use", err)
	}
	now = now.Add(chainPause)
	flood()
	if n := len(a.requests()); n != 1+2*maxChainTries || len(v.chains.tries) != maxChainTries {
		t.Errorf("got %d requests and %d remembered, want %d and %d", n, len(v.chains.tries), 1+2*maxChainTries, maxChainTries)
	}
}

func TestChainTooLargeIsNotRead(t *testing.T) {
	a := newAmazon(t)
	written := make(chan int, 1)
	a.handle("/echo.api/large.pem", func(w http.ResponseWriter, _ *http.Request) {
		total := 0
		for {
			n, err := io.WriteString(w, strings.Repeat("x", 64<<10))
			if total += n; err != nil || total > 1<<30 {
				written <- total
				return
			}
		}
	})
	v := a.verifier(t, func() time.Time { return testNow })
	_, err := v.chains.key(t.Context(), "https://s3.amazonaws.com/echo.api/large.pem")
	if reasonOf(t, err) != refusedChain {
		t.Errorf("got %v, want %s", err, refusedChain)
	}
	if n := <-written; n > 64<<20 {
		t.Errorf("got %d bytes sent, want the connection cut", n)
	}
}

// Should a download panic, whoever waits for it is not left waiting.
func TestChainPanic(t *testing.T) {
	a := newAmazon(t)
	s := newChainStore(a.roots, panicking{}, func() time.Time { return testNow })
	func() {
		defer func() {
			if recover() == nil {
				t.Error("got no panic")
			}
		}()
		s.key(t.Context(), testChainURL)
	}()
	if _, err := s.key(t.Context(), testChainURL); reasonOf(t, err) != refusedUnavailable {
		t.Errorf("got %v, want %s", err, refusedUnavailable)
	}
}

type panicking struct{}

func (panicking) RoundTrip(*http.Request) (*http.Response, error) { panic("broken transport") }
