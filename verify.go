package main

// Whether an Alexa request is Amazon's: the rules of "Host a Custom Skill as a
// Web Service" in Amazon's documentation of the Alexa Skills Kit, each with a
// reason of its own for a refusal.

import (
	"context"
	"crypto"
	"crypto/rsa"
	_ "crypto/sha1" // for Amazon's older signature header
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync"
	"time"
)

const (
	alexaTolerance = 150 * time.Second // of request.timestamp, either way

	alexaChainHost = "s3.amazonaws.com"
	alexaChainPath = "/echo.api/"
	alexaSAN       = "echo-api.amazon.com"
	maxChainURL    = 2 << 10 // bytes
)

// An alexaRefusal says which rule a request broke.
type alexaRefusal struct {
	reason string // one of alexaReasons
	err    error  // the particulars, for the log
}

func (r *alexaRefusal) Error() string {
	return "alexa request refused: " + r.reason + ": " + r.err.Error()
}

func (r *alexaRefusal) Unwrap() error { return r.err }

func refused(reason, format string, args ...any) error {
	return &alexaRefusal{reason, fmt.Errorf(format, args...)}
}

const (
	refusedSkill       = "skill"
	refusedTimestamp   = "timestamp_malformed"
	refusedOld         = "timestamp_old"
	refusedFuture      = "timestamp_future"
	refusedNoURL       = "url_missing"
	refusedURL         = "url_malformed"
	refusedScheme      = "url_scheme"
	refusedHost        = "url_host"
	refusedPort        = "url_port"
	refusedPath        = "url_path"
	refusedNoSignature = "signature_missing"
	refusedEncoding    = "signature_malformed"
	refusedSignature   = "signature_wrong"
	refusedUnavailable = "chain_unavailable"
	refusedChain       = "chain_malformed"
	refusedExpired     = "chain_expired"
	refusedNotYet      = "chain_not_yet_valid"
	refusedSAN         = "chain_name"
	refusedUntrusted   = "chain_untrusted"
	refusedKey         = "chain_key"
	refusedReplay      = "replayed"
)

// alexaReasons returns every reason that a refusal can have.
func alexaReasons() []string {
	return []string{
		refusedSkill, refusedTimestamp, refusedOld, refusedFuture,
		refusedNoURL, refusedURL, refusedScheme, refusedHost, refusedPort, refusedPath,
		refusedNoSignature, refusedEncoding, refusedSignature,
		refusedUnavailable, refusedChain, refusedExpired, refusedNotYet, refusedSAN, refusedUntrusted, refusedKey,
		refusedReplay,
	}
}

// An alexaVerifier tells Amazon's requests from all others. It may be used by
// many goroutines at once.
type alexaVerifier struct {
	applications map[string]bool // skill IDs that are accepted; empty: any
	chains       *chainStore
	seen         replayGuard
	now          func() time.Time
}

// newAlexaVerifier returns a verifier that accepts the given skills, or any
// if there are none. roots are the certificate authorities to trust, nil for
// the system's; transport fetches Amazon's certificates, nil for one that
// trusts the same roots.
func newAlexaVerifier(applications []string, roots *x509.CertPool, transport http.RoundTripper, now func() time.Time) (*alexaVerifier, error) {
	if roots == nil {
		var err error
		if roots, err = x509.SystemCertPool(); err != nil {
			return nil, fmt.Errorf("load the system's certificate authorities: %w", err)
		}
	}
	if roots.Equal(x509.NewCertPool()) {
		return nil, errors.New("no certificate authorities on this system to check Alexa's signatures with:" +
			" install ca-certificates, or set SSL_CERT_FILE")
	}
	if transport == nil {
		transport = newChainTransport(roots)
	}
	v := &alexaVerifier{
		applications: map[string]bool{},
		chains:       newChainStore(roots, transport, now),
		now:          now,
	}
	for _, a := range applications {
		v.applications[a] = true
	}
	return v, nil
}

// verify returns nil if req, read off body, is a request that Amazon signed
// lately, for a skill that is accepted, and that was not here before. Any
// other error is an *alexaRefusal. It may download a certificate chain, which
// ends with ctx or by chainTimeout. What costs nothing is checked first.
func (v *alexaVerifier) verify(ctx context.Context, h http.Header, body []byte, req alexaRequest) error {
	if len(v.applications) > 0 && !v.applications[req.application] {
		return refused(refusedSkill, "skill %q is not accepted", shown(req.application))
	}
	if err := v.checkTimestamp(req.timestamp); err != nil {
		return err
	}
	signature, hash, err := alexaSignature(h)
	if err != nil {
		return err
	}
	urls := h.Values("SignatureCertChainUrl")
	if len(urls) == 0 || urls[0] == "" {
		return refused(refusedNoURL, "no SignatureCertChainUrl")
	}
	if len(urls) > 1 {
		return refused(refusedURL, "%d headers SignatureCertChainUrl", len(urls))
	}
	chainURL, err := alexaChainURL(urls[0])
	if err != nil {
		return err
	}
	key, err := v.chains.key(ctx, chainURL)
	if err != nil {
		return err
	}
	digest := hash.New()
	digest.Write(body)
	if err := rsa.VerifyPKCS1v15(key, hash, digest.Sum(nil), signature); err != nil {
		return refused(refusedSignature, "%v of the body: %w", hash, err)
	}
	if !v.seen.first(sha256.Sum256(body), v.now()) {
		return refused(refusedReplay, "request %q was here before", shown(req.requestID))
	}
	return nil
}

func (v *alexaVerifier) checkTimestamp(s string) error {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return refused(refusedTimestamp, "request.timestamp: %q is not a time", shown(s))
	}
	switch age := v.now().Sub(t); {
	case age > alexaTolerance:
		return refused(refusedOld, "%v old, %v at most", age, alexaTolerance)
	case age < -alexaTolerance:
		return refused(refusedFuture, "%v ahead, %v at most", -age, alexaTolerance)
	}
	return nil
}

// alexaSignature returns the signature among the headers and the hash that it
// was made with. Where there is a Signature-256 it decides alone, so nobody
// can have the weaker Signature looked at instead by breaking the other one.
func alexaSignature(h http.Header) ([]byte, crypto.Hash, error) {
	name, hash := "Signature-256", crypto.SHA256
	values := h.Values(name)
	if len(values) == 0 {
		name, hash = "Signature", crypto.SHA1
		values = h.Values(name)
	}
	if len(values) == 0 || values[0] == "" {
		return nil, 0, refused(refusedNoSignature, "no %s", name)
	}
	if len(values) > 1 {
		return nil, 0, refused(refusedEncoding, "%d headers %s", len(values), name)
	}
	signature, err := base64.StdEncoding.Strict().DecodeString(values[0])
	if err != nil {
		return nil, 0, refused(refusedEncoding, "%s: %w", name, err)
	}
	return signature, hash, nil
}

// alexaChainURL returns the URL to get the certificate chain from, if raw is
// one that Amazon uses. It is put together anew from what was checked, so that
// nothing else is fetched, however another parser would read raw.
func alexaChainURL(raw string) (string, error) {
	if len(raw) > maxChainURL {
		return "", refused(refusedURL, "%d bytes, %d at most", len(raw), maxChainURL)
	}
	u, err := url.Parse(raw)
	if err != nil {
		return "", refused(refusedURL, "%w", err)
	}
	switch {
	case u.Scheme != "https": // Parse made it lower case
		return "", refused(refusedScheme, "%q", shown(u.Scheme))
	case u.Opaque != "" || u.User != nil || strings.ContainsAny(raw, "?#"):
		return "", refused(refusedURL, "%q has more than a host and a path", shown(raw))
	case !strings.EqualFold(u.Hostname(), alexaChainHost):
		return "", refused(refusedHost, "%q", shown(u.Hostname()))
	case u.Port() != "" && u.Port() != "443":
		return "", refused(refusedPort, "%q", shown(u.Port()))
	}
	// u.Path is unescaped. What is an escape still, a slash in disguise or a
	// backslash is read in more than one way, and Amazon has none of it.
	if strings.ContainsAny(u.Path, `%\`) || strings.Contains(strings.ToLower(u.EscapedPath()), "%2f") ||
		strings.ContainsFunc(u.Path, notPrintable) {
		return "", refused(refusedPath, "%q", shown(u.Path))
	}
	clean := path.Clean("/" + u.Path)
	if !strings.HasPrefix(clean, alexaChainPath) {
		return "", refused(refusedPath, "%q is not below %s", shown(clean), alexaChainPath)
	}
	return (&url.URL{Scheme: "https", Host: alexaChainHost, Path: clean}).String(), nil
}

const (
	// A request can be timed alexaTolerance ahead and stay good until it is
	// as old.
	replayWindow = 2 * alexaTolerance
	maxReplays   = 1 << 15 // twice so many are remembered, 32 bytes each
)

// A replayGuard remembers the requests that were accepted, until they are too
// old to be accepted again. Only what Amazon signed gets in, so nobody else
// can fill it; past maxReplays in a replayWindow, 109 requests per second, the
// oldest are forgotten early. The zero value is ready.
//
// It knows them by their whole body, which has the request's ID, its time and
// the skill's ID, and not by their signature: the same body has two, one in
// each header. If Amazon repeats a request it makes a new timestamp.
type replayGuard struct {
	mu       sync.Mutex
	began    time.Time // when recent was empty
	recent   map[[sha256.Size]byte]struct{}
	previous map[[sha256.Size]byte]struct{} // recent of the window before
}

// first reports whether body is new, and remembers it.
func (g *replayGuard) first(body [sha256.Size]byte, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.recent == nil || now.Sub(g.began) > replayWindow || len(g.recent) >= maxReplays {
		g.previous, g.recent, g.began = g.recent, map[[sha256.Size]byte]struct{}{}, now
	}
	if _, ok := g.recent[body]; ok {
		return false
	}
	if _, ok := g.previous[body]; ok {
		return false
	}
	g.recent[body] = struct{}{}
	return true
}
