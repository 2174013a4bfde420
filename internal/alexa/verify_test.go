package alexa

import (
	"crypto/sha256"
	"crypto/x509"
	"strconv"
	"strings"
	"testing"
	"time"

	"faas/internal/alexa/alexatest"
)

// Every change after which a request is acceptable, and every forgery.
func TestVerify(t *testing.T) {
	a := alexatest.NewAmazon(t)
	v := verifierOf(t, a, func() time.Time { return alexatest.Now }, alexatest.Skill)
	seen := map[string]bool{"replayed": true} // below
	for i, tt := range append(alexatest.Acceptable(t), a.Forgeries(t)...) {
		t.Run(tt.Name, func(t *testing.T) {
			r := alexatest.SignedRequest(t)
			r.Set(t, "requestId", strconv.Itoa(i))
			tt.Change(r)
			req, ok := Parse(r.Body)
			if !ok {
				t.Fatal("no Alexa request")
			}
			forget, err := v.Verify(t.Context(), r.Header, r.Body, req)
			seen[tt.Reason] = true
			if got := reasonOf(t, err); got != tt.Reason {
				t.Fatalf("got %q, want %q (%v)", got, tt.Reason, err)
			}
			if err != nil {
				return
			}
			if _, err := v.Verify(t.Context(), r.Header, r.Body, req); reasonOf(t, err) != "replayed" {
				t.Errorf("again: got %v, want replayed", err)
			}
			forget()
			if _, err := v.Verify(t.Context(), r.Header, r.Body, req); err != nil {
				t.Errorf("after it was forgotten: got %v, want none", err)
			}
		})
	}
	for _, reason := range Reasons() {
		if !seen[reason] {
			t.Errorf("no forgery has the reason %q", reason)
		}
	}
}

func TestReplayGuard(t *testing.T) {
	const replayWindow = 300 * time.Second
	g := replayGuard{window: replayWindow}
	key := func(i int) (k [sha256.Size]byte) {
		k[0], k[1], k[2] = byte(i), byte(i>>8), byte(i>>16)
		return k
	}
	if !g.first(key(1), alexatest.Now) || g.first(key(1), alexatest.Now) {
		t.Error("got a wrong answer at once")
	}
	// A timestamp 150 s ahead stays good for 300 s. Others come in between.
	for s := range 301 {
		g.first(key(1000+s), alexatest.Now.Add(time.Duration(s)*time.Second))
	}
	if g.first(key(1), alexatest.Now.Add(replayWindow)) {
		t.Errorf("forgotten within %v", replayWindow)
	}
	for i := range 5 * maxReplays {
		g.first(key(10_000+i), alexatest.Now.Add(replayWindow))
	}
	if n := len(g.recent) + len(g.previous); n > 2*maxReplays {
		t.Errorf("got %d remembered, want %d at most", n, 2*maxReplays)
	}
	if g.first(key(10_000+5*maxReplays-1), alexatest.Now.Add(replayWindow)) {
		t.Error("the last one was forgotten")
	}
}

func TestNoAuthorities(t *testing.T) {
	_, err := NewVerifier(Options{Roots: x509.NewCertPool()})
	if err == nil || !strings.Contains(err.Error(), "ca-certificates") {
		t.Errorf("got %v, want an error that says what to install", err)
	}
}

func BenchmarkAlexaVerify(b *testing.B) {
	a := alexatest.NewAmazon(b)
	v := verifierOf(b, a, func() time.Time { return alexatest.Now }, alexatest.Skill)
	r := alexatest.SignedRequest(b)
	req, ok := Parse(r.Body)
	if !ok {
		b.Fatal("no Alexa request")
	}
	b.ReportAllocs()
	for b.Loop() {
		forget, err := v.Verify(b.Context(), r.Header, r.Body, req)
		if err != nil {
			b.Fatal(err)
		}
		forget()
	}
}

// verifierOf returns a verifier that asks a for chains, as it would ask Amazon.
func verifierOf(t testing.TB, a *alexatest.Amazon, now func() time.Time, skills ...string) *Verifier {
	t.Helper()
	transport := newChainTransport(a.Roots)
	transport.Proxy = nil
	transport.DialContext = a.Dial
	t.Cleanup(transport.CloseIdleConnections)
	v, err := NewVerifier(Options{Applications: skills, Roots: a.Roots, Transport: transport, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return v
}
