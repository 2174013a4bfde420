package alexa

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"faas/internal/alexa/alexatest"
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

// A transportFunc answers in the place of Amazon.
type transportFunc func(*http.Request) (*http.Response, error)

func (f transportFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// reasonOf returns the reason of a refusal, "" for nil.
func reasonOf(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	var refusal *Refusal
	if !errors.As(err, &refusal) {
		t.Fatalf("got %v, want a *Refusal", err)
	}
	return refusal.Reason
}

func TestChainOneDownloadForAll(t *testing.T) {
	a := alexatest.NewAmazon(t)
	good := alexatest.ChainPEM(alexatest.Issue(a.Between, alexatest.SigningKey(), alexatest.Signing()), a.Between)
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		s := newChainStore(a.Roots, g, func() time.Time { return alexatest.Now })
		first, leave := context.WithCancel(t.Context())
		impatient, giveUp := context.WithCancel(t.Context())
		errs := make(chan error, 20)
		ask := func(ctx context.Context) {
			_, err := s.key(ctx, alexatest.ChainURL)
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
		if key, err := s.key(t.Context(), alexatest.ChainURL); err != nil || !key.Equal(alexatest.SigningKey().Public()) {
			t.Errorf("got %v, %v, want the key from the store", key, err)
		}
	})
}

func TestChainDownloadEnds(t *testing.T) {
	a := alexatest.NewAmazon(t)
	synctest.Test(t, func(t *testing.T) {
		g := newGate() // never answers
		s := newChainStore(a.Roots, g, func() time.Time { return alexatest.Now })
		errs := make(chan error, 3*chainDownloads)
		began := time.Now()
		for i := range cap(errs) {
			go func() {
				_, err := s.key(t.Context(), fmt.Sprintf("%s%d", alexatest.ChainURL, i))
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
	a := alexatest.NewAmazon(t)
	now := alexatest.Now
	v := verifierOf(t, a, func() time.Time { return now })
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
	a.Serve("/echo.api/late.pem", alexatest.ChainPEM(alexatest.Issue(a.Between, alexatest.SigningKey(), alexatest.Signing()), a.Between))
	now = now.Add(chainPause - time.Nanosecond)
	if got := ask(); got != refusedUnavailable || len(a.Requests()) != 1 {
		t.Errorf("got %q after %d requests, want the failure remembered", got, len(a.Requests()))
	}
	now = now.Add(time.Nanosecond)
	if got := ask(); got != "" || len(a.Requests()) != 2 {
		t.Errorf("got %q after %d requests, want a second one that succeeds", got, len(a.Requests()))
	}
}

func TestChainIsKeptUntilItExpires(t *testing.T) {
	a := alexatest.NewAmazon(t)
	// The certificate between expires before the signing one does.
	end := alexatest.Now.Add(time.Hour)
	between := alexatest.Issue(a.Root, nil, func(c *x509.Certificate) {
		alexatest.Authority("short")(c)
		c.NotAfter = end
	})
	a.Serve("/echo.api/cert.pem", alexatest.ChainPEM(alexatest.Issue(between, alexatest.SigningKey(), alexatest.Signing()), between))
	now := alexatest.Now
	v := verifierOf(t, a, func() time.Time { return now })
	for _, step := range []struct {
		at      time.Time
		reason  string
		fetches int
	}{
		{alexatest.Now, "", 1},
		{alexatest.Now.Add(time.Minute), "", 1},
		{end, "", 1},
		{end.Add(time.Second), refusedExpired, 2},
	} {
		now = step.at
		_, err := v.chains.key(t.Context(), alexatest.ChainURL)
		if got := reasonOf(t, err); got != step.reason || len(a.Requests()) != step.fetches {
			t.Errorf("at %v: got %q and %d downloads, want %q and %d", now, got, len(a.Requests()), step.reason, step.fetches)
		}
	}
}

func TestChainsKeptAreFew(t *testing.T) {
	a := alexatest.NewAmazon(t)
	good := alexatest.ChainPEM(alexatest.Issue(a.Between, alexatest.SigningKey(), alexatest.Signing()), a.Between)
	v := verifierOf(t, a, func() time.Time { return alexatest.Now })
	get := func(i int) {
		t.Helper()
		path := fmt.Sprintf("/echo.api/%d.pem", i)
		a.Serve(path, good)
		if _, err := v.chains.key(t.Context(), "https://s3.amazonaws.com"+path); err != nil {
			t.Fatal(err)
		}
	}
	for i := range maxChains {
		get(i)
	}
	get(0) // used again, so 1 is the next to go
	get(maxChains)
	before := len(a.Requests())
	get(0)
	get(2)
	if n := len(a.Requests()); n != before {
		t.Errorf("got %d further downloads of chains in use, want none", n-before)
	}
	get(1)
	if n := len(a.Requests()); n != before+1 || len(v.chains.known) != maxChains {
		t.Errorf("got %d downloads and %d chains, want 1 and %d", n-before, len(v.chains.known), maxChains)
	}
}

// However many made-up URLs below /echo.api/ were asked for, the store holds a
// bounded number of failures, and gets the true chain when it is asked for.
func TestChainFlood(t *testing.T) {
	a := alexatest.NewAmazon(t)
	now := alexatest.Now
	v := verifierOf(t, a, func() time.Time { now = now.Add(1); return now })
	flood := func(from, to int) {
		t.Helper()
		for i := from; i < to; i++ {
			_, err := v.chains.key(t.Context(), fmt.Sprintf("https://s3.amazonaws.com/echo.api/%d", i))
			if reasonOf(t, err) != refusedUnavailable {
				t.Fatalf("got %v, want %s", err, refusedUnavailable)
			}
		}
	}
	flood(0, 3*maxChainTries)
	if n := len(v.chains.tries); n != maxChainTries {
		t.Errorf("got %d failures remembered, want %d", n, maxChainTries)
	}
	if _, err := v.chains.key(t.Context(), alexatest.ChainURL); err != nil {
		t.Fatalf("got %v for the true chain of a cold store, want its key", err)
	}
	before := len(a.Requests())
	flood(2*maxChainTries+1, 3*maxChainTries) // the one before gave way to the true chain
	if n := len(a.Requests()); n != before {
		t.Errorf("got %d requests for URLs that have just failed, want none", n-before)
	}
	flood(3*maxChainTries, 4*maxChainTries)
	before = len(a.Requests())
	if _, err := v.chains.key(t.Context(), alexatest.ChainURL); err != nil || len(a.Requests()) != before {
		t.Errorf("got %v and %d requests for the chain in use, want its key and none", err, len(a.Requests())-before)
	}
}

// Callers who never cease to ask for made-up URLs, one less than all tries
// that there are, cost the true chain its turn among them and no more.
func TestChainColdStoreUnderFlood(t *testing.T) {
	a := alexatest.NewAmazon(t)
	good := alexatest.ChainPEM(alexatest.Issue(a.Between, alexatest.SigningKey(), alexatest.Signing()), a.Between)
	const delay = 50 * time.Millisecond // of each answer
	synctest.Test(t, func(t *testing.T) {
		// The store's clock is alexatest.Now and as much as passes in the bubble.
		began := time.Now()
		now := func() time.Time { return alexatest.Now.Add(time.Since(began)) }
		s := newChainStore(a.Roots, transportFunc(func(r *http.Request) (*http.Response, error) {
			time.Sleep(delay)
			if r.URL.String() != alexatest.ChainURL {
				return &http.Response{StatusCode: http.StatusForbidden, Body: http.NoBody, Request: r}, nil
			}
			return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(bytes.NewReader(good)), Request: r}, nil
		}), now)
		ctx, stop := context.WithCancel(t.Context())
		var flood sync.WaitGroup
		var refusedOnes atomic.Int32
		for i := range maxChainTries - 1 {
			flood.Go(func() {
				for n := 0; ctx.Err() == nil; n++ {
					if _, err := s.key(ctx, fmt.Sprintf("%s-%d-%d", alexatest.ChainURL, i, n)); err != nil {
						refusedOnes.Add(1)
					}
					time.Sleep(time.Millisecond) // or a refusal at once would stop the bubble's clock
				}
			})
		}
		time.Sleep(2 * chainPause) // the flood is in full swing
		synctest.Wait()
		asked := time.Now()
		_, err := s.key(t.Context(), alexatest.ChainURL)
		took := time.Since(asked)
		stop()
		flood.Wait()
		if err != nil {
			t.Errorf("got %v, want the key", err)
		}
		if limit := (maxChainTries/chainDownloads + 1) * delay; took > limit {
			t.Errorf("got the key after %v, want it within %v", took, limit)
		}
		if n := refusedOnes.Load(); n < 2*maxChainTries {
			t.Errorf("got %d made-up URLs refused, want a flood", n)
		}
	})
}

// Only downloads under way use up the tries: while all are, another URL is
// refused at once, and taken as soon as one has failed.
func TestChainTriesUnderWay(t *testing.T) {
	a := alexatest.NewAmazon(t)
	good := alexatest.ChainPEM(alexatest.Issue(a.Between, alexatest.SigningKey(), alexatest.Signing()), a.Between)
	synctest.Test(t, func(t *testing.T) {
		fail := make(chan struct{})
		s := newChainStore(a.Roots, transportFunc(func(r *http.Request) (*http.Response, error) {
			if r.URL.String() == alexatest.ChainURL {
				return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(bytes.NewReader(good)), Request: r}, nil
			}
			<-fail
			return nil, errors.New("connection refused")
		}), func() time.Time { return alexatest.Now })
		ended := make(chan error, maxChainTries)
		for i := range maxChainTries {
			go func() {
				_, err := s.key(t.Context(), fmt.Sprintf("%s%d", alexatest.ChainURL, i))
				ended <- err
			}()
		}
		synctest.Wait()
		if _, err := s.key(t.Context(), alexatest.ChainURL); reasonOf(t, err) != refusedUnavailable {
			t.Errorf("got %v while all tries are under way, want %s", err, refusedUnavailable)
		}
		fail <- struct{}{}
		if err := <-ended; reasonOf(t, err) != refusedUnavailable {
			t.Errorf("got %v, want %s", err, refusedUnavailable)
		}
		got := make(chan error, 1)
		go func() {
			_, err := s.key(t.Context(), alexatest.ChainURL)
			got <- err
		}()
		synctest.Wait()
		close(fail)
		if err := <-got; err != nil {
			t.Errorf("got %v, want the key", err)
		}
		for range maxChainTries - 1 {
			<-ended
		}
	})
}

func TestChainTooLargeIsNotRead(t *testing.T) {
	a := alexatest.NewAmazon(t)
	written := make(chan int, 1)
	a.Handle("/echo.api/large.pem", func(w http.ResponseWriter, _ *http.Request) {
		total := 0
		for {
			n, err := io.WriteString(w, strings.Repeat("x", 64<<10))
			if total += n; err != nil || total > 1<<30 {
				written <- total
				return
			}
		}
	})
	v := verifierOf(t, a, func() time.Time { return alexatest.Now })
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
	a := alexatest.NewAmazon(t)
	s := newChainStore(a.Roots, panicking{}, func() time.Time { return alexatest.Now })
	func() {
		defer func() {
			if recover() == nil {
				t.Error("got no panic")
			}
		}()
		s.key(t.Context(), alexatest.ChainURL)
	}()
	if _, err := s.key(t.Context(), alexatest.ChainURL); reasonOf(t, err) != refusedUnavailable {
		t.Errorf("got %v, want %s", err, refusedUnavailable)
	}
}

type panicking struct{}

func (panicking) RoundTrip(*http.Request) (*http.Response, error) { panic("broken transport") }
