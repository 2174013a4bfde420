package alexa

// Amazon's certificate chains: fetched once, checked, and kept until they expire.
// The sender of a request chooses the URL, so everything here is bounded.

import (
	"context"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	chainTimeout   = 5 * time.Second // of a download, including the wait for its turn
	maxChainBytes  = 64 << 10
	maxChainCerts  = 8
	chainDownloads = 4 // at once

	maxChains = 16 // kept; Amazon has one or two in use

	// A URL that failed is not retried for chainPause. Failures and downloads in
	// progress are limited to maxChainTries, and the oldest failures are dropped
	// first. A flood of invented URLs can make the store forget failures, which
	// costs Amazon no more than chainDownloads requests at once, but it must not
	// keep the real chain from being fetched.
	chainPause    = 5 * time.Second
	maxChainTries = 64
)

// A chainStore holds the public keys of Amazon's certificate chains by URL.
type chainStore struct {
	client *http.Client
	roots  *x509.CertPool
	now    func() time.Time
	turn   chan struct{} // holds a token per download under way

	mu    sync.Mutex
	known map[string]*knownChain
	tries map[string]*chainTry
	uses  uint64
}

// A knownChain is a verified chain. It is valid from notBefore to notAfter, while
// all its certificates are.
type knownChain struct {
	key                 *rsa.PublicKey
	notBefore, notAfter time.Time
	lastUse             uint64
}

// A chainTry is a download in progress, or one that failed.
type chainTry struct {
	done  chan struct{} // closed at its end; the fields below are set then
	chain *knownChain   // nil: failed
	err   error
	until time.Time // failed: the URL is not tried again before
}

func newChainStore(roots *x509.CertPool, transport http.RoundTripper, now func() time.Time) *chainStore {
	return &chainStore{
		client: &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		roots: roots,
		now:   now,
		turn:  make(chan struct{}, chainDownloads),
		known: map[string]*knownChain{},
		tries: map[string]*chainTry{},
	}
}

// newChainTransport returns a transport that trusts roots.
func newChainTransport(roots *x509.CertPool) *http.Transport {
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: chainTimeout}).DialContext,
		TLSClientConfig:     &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: chainTimeout,
		MaxIdleConns:        1,
		IdleConnTimeout:     chainTimeout,
		ForceAttemptHTTP2:   true,

		MaxResponseHeaderBytes: maxChainBytes,
	}
}

// key returns the public key of the chain at url, which must come from checkedURL.
// If several callers need the same download, one makes it and the others wait, each
// until its own ctx ends. An error is a *Refusal.
func (s *chainStore) key(ctx context.Context, url string) (*rsa.PublicKey, error) {
	s.mu.Lock()
	now := s.now()
	if c := s.known[url]; c != nil {
		if !now.Before(c.notBefore) && !now.After(c.notAfter) {
			s.uses++
			c.lastUse = s.uses
			s.mu.Unlock()
			return c.key, nil
		}
		delete(s.known, url)
	}
	oldest := s.forgetTries(now)
	if try := s.tries[url]; try != nil {
		s.mu.Unlock()
		select {
		case <-try.done:
			if try.err != nil {
				return nil, try.err
			}
			return try.chain.key, nil
		case <-ctx.Done():
			return nil, refused(refusedUnavailable, "wait for %s: %w", url, ctx.Err())
		}
	}
	if len(s.tries) >= maxChainTries {
		if oldest == "" {
			s.mu.Unlock()
			return nil, refused(refusedUnavailable, "%s: too many chains are being downloaded", url)
		}
		delete(s.tries, oldest)
	}
	try := &chainTry{done: make(chan struct{})}
	s.tries[url] = try
	s.mu.Unlock()

	try.err = refused(refusedUnavailable, "the download of %s broke off", url) // should fetch panic
	defer s.finish(url, try)
	// The download goes on if this caller goes away: others may wait for it, and a
	// failure is remembered.
	chain, err := s.fetch(context.WithoutCancel(ctx), url)
	if try.err = err; err == nil {
		try.chain = chain
		return chain.key, nil
	}
	return nil, err
}

// finish ends a try and keeps its chain or its failure.
func (s *chainStore) finish(url string, try *chainTry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if try.chain != nil {
		delete(s.tries, url)
		s.keep(url, try.chain)
	} else {
		try.until = s.now().Add(chainPause)
	}
	close(try.done)
}

// forgetTries drops the failures whose pause is over, and returns the URL of the
// oldest remaining one, or "".
func (s *chainStore) forgetTries(now time.Time) (oldest string) {
	for url, try := range s.tries {
		select {
		case <-try.done:
			if !now.Before(try.until) {
				delete(s.tries, url)
			} else if oldest == "" || try.until.Before(s.tries[oldest].until) {
				oldest = url
			}
		default:
		}
	}
	return oldest
}

// keep adds a chain in place of the least recently used one.
func (s *chainStore) keep(url string, chain *knownChain) {
	if len(s.known) >= maxChains {
		oldest := ""
		for u, c := range s.known {
			if oldest == "" || c.lastUse < s.known[oldest].lastUse {
				oldest = u
			}
		}
		delete(s.known, oldest)
	}
	s.uses++
	chain.lastUse = s.uses
	s.known[url] = chain
}

// fetch downloads the chain at url and checks it.
func (s *chainStore) fetch(ctx context.Context, url string) (*knownChain, error) {
	ctx, cancel := context.WithTimeout(ctx, chainTimeout)
	defer cancel()
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return nil, refused(refusedUnavailable, "wait to get %s: %w", url, ctx.Err())
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, refused(refusedUnavailable, "%w", err)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, refused(refusedUnavailable, "%w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, refused(refusedUnavailable, "get %s: %.128s", url, resp.Status)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxChainBytes+1))
	if err != nil {
		return nil, refused(refusedUnavailable, "get %s: %w", url, err)
	}
	certs, err := parseChain(text)
	if err != nil {
		return nil, err
	}
	return checkChain(certs, s.roots, s.now())
}

// parseChain returns the certificates of a PEM file, the signing one first.
func parseChain(text []byte) ([]*x509.Certificate, error) {
	if len(text) > maxChainBytes {
		return nil, refused(refusedChain, "more than %d bytes", maxChainBytes)
	}
	var certs []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return nil, refused(refusedChain, "a PEM block %.128q", block.Type)
		}
		if len(certs) == maxChainCerts {
			return nil, refused(refusedChain, "more than %d certificates", maxChainCerts)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, refused(refusedChain, "certificate %d: %w", len(certs)+1, err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, refused(refusedChain, "no certificate")
	}
	return certs, nil
}

// checkChain checks that certs[0] is a certificate for signing Alexa requests
// that the others connect to one of roots.
func checkChain(certs []*x509.Certificate, roots *x509.CertPool, now time.Time) (*knownChain, error) {
	leaf := certs[0]
	if now.Before(leaf.NotBefore) {
		return nil, refused(refusedNotYet, "valid from %v", leaf.NotBefore)
	}
	if now.After(leaf.NotAfter) {
		return nil, refused(refusedExpired, "valid until %v", leaf.NotAfter)
	}
	named := false // a wildcard that covers the name is not the name
	for _, name := range leaf.DNSNames {
		named = named || strings.EqualFold(name, chainName)
	}
	if !named {
		return nil, refused(refusedSAN, "%s is not among its names", chainName)
	}
	between := x509.NewCertPool()
	for _, cert := range certs[1:] {
		between.AddCert(cert)
	}
	chains, err := leaf.Verify(x509.VerifyOptions{
		Roots:         roots,
		Intermediates: between,
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, // Amazon signs with a TLS certificate
	})
	if err != nil {
		var invalid x509.CertificateInvalidError
		if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
			return nil, refused(refusedExpired, "%w", err)
		}
		return nil, refused(refusedUntrusted, "%w", err)
	}
	key, ok := leaf.PublicKey.(*rsa.PublicKey)
	if !ok {
		return nil, refused(refusedKey, "%T, not RSA", leaf.PublicKey)
	}
	c := &knownChain{key: key, notBefore: leaf.NotBefore, notAfter: leaf.NotAfter}
	for _, cert := range chains[0][1:] {
		if cert.NotBefore.After(c.notBefore) {
			c.notBefore = cert.NotBefore
		}
		if cert.NotAfter.Before(c.notAfter) {
			c.notAfter = cert.NotAfter
		}
	}
	return c, nil
}
