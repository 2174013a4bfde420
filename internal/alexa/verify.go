package alexa

// Verification that Amazon sent a request: the rules of "Host a Custom Skill as a
// Web Service" in Amazon's documentation of the Alexa Skills Kit, each with its own
// Refusal reason. The maximum age of a skill event is from "Use Skill Events",
// section "Delivery of events to the skill"
// (developer.amazon.com/en-US/docs/alexa/smapi/skill-events-in-alexa-skills.html).

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
	"unicode"
	"unicode/utf8"
)

const (
	tolerance = 150 * time.Second // of request.timestamp, either way

	// Amazon repeats a skill event until it is accepted, for up to an hour, with
	// the original timestamp.
	eventPrefix = "AlexaSkillEvent."
	eventAge    = time.Hour

	chainHost   = "s3.amazonaws.com"
	chainPath   = "/echo.api/"
	chainName   = "echo-api.amazon.com"
	maxChainURL = 2 << 10 // bytes
)

// A Refusal is the error of Verify: it says which rule a request broke.
type Refusal struct {
	Reason string // one of Reasons
	Err    error  // the particulars, for the log
}

// Error is for the log.
func (r *Refusal) Error() string {
	return "alexa request refused: " + r.Reason + ": " + r.Err.Error()
}

// Unwrap returns r.Err.
func (r *Refusal) Unwrap() error { return r.Err }

func refused(reason, format string, args ...any) error {
	return &Refusal{reason, fmt.Errorf(format, args...)}
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

// Reasons returns every possible Reason of a Refusal.
func Reasons() []string {
	return []string{
		refusedSkill, refusedTimestamp, refusedOld, refusedFuture,
		refusedNoURL, refusedURL, refusedScheme, refusedHost, refusedPort, refusedPath,
		refusedNoSignature, refusedEncoding, refusedSignature,
		refusedUnavailable, refusedChain, refusedExpired, refusedNotYet, refusedSAN, refusedUntrusted, refusedKey,
		refusedReplay,
	}
}

// A Verifier checks that requests are Amazon's. It is safe for concurrent use.
type Verifier struct {
	applications map[string]bool // skill IDs that are accepted; empty: any
	chains       *chainStore
	elsewhere    Sharer       // nil: nobody else remembers
	seen         *replayGuard // requests
	seenEvents   *replayGuard // skill events, which are good for longer
	now          func() time.Time
}

// Options configure a Verifier. The zero value is for the real Amazon.
type Options struct {
	Applications []string          // skill IDs that are accepted; none: any
	Roots        *x509.CertPool    // certificate authorities to trust; nil: the system's
	Transport    http.RoundTripper // fetches Amazon's certificates; nil: one that trusts Roots
	Now          func() time.Time  // nil: time.Now
}

// NewVerifier returns a Verifier. It fails if there are no certificate authorities
// to check signatures with.
func NewVerifier(o Options) (*Verifier, error) {
	roots, transport, now := o.Roots, o.Transport, o.Now
	if now == nil {
		now = time.Now
	}
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
	v := &Verifier{
		applications: map[string]bool{},
		chains:       newChainStore(roots, transport, now),
		seen:         &replayGuard{window: tolerance + tolerance},
		seenEvents:   &replayGuard{window: tolerance + eventAge},
		now:          now,
	}
	for _, a := range o.Applications {
		v.applications[a] = true
	}
	return v, nil
}

// Verify returns no error if req, parsed from body, was recently signed by Amazon,
// is for an accepted skill, and is not a replay. Every error is a *Refusal. Verify
// may download a certificate chain, which ends with ctx or after chainTimeout.
// Cheap checks come first.
//
// Once accepted, the same request is rejected as a replay. If it did not succeed,
// call forget to accept it once more.
func (v *Verifier) Verify(ctx context.Context, h http.Header, body []byte, req Request) (forget func(), err error) {
	if len(v.applications) > 0 && !v.applications[req.Application] {
		return nil, refused(refusedSkill, "skill %.128q is not accepted", req.Application)
	}
	seen, oldest := v.seen, tolerance
	if strings.HasPrefix(req.Type, eventPrefix) {
		seen, oldest = v.seenEvents, eventAge
	}
	if err := v.checkTimestamp(req.Timestamp, oldest); err != nil {
		return nil, err
	}
	signature, hash, err := signatureOf(h)
	if err != nil {
		return nil, err
	}
	urls := h.Values("SignatureCertChainUrl")
	if len(urls) == 0 || urls[0] == "" {
		return nil, refused(refusedNoURL, "no SignatureCertChainUrl")
	}
	if len(urls) > 1 {
		return nil, refused(refusedURL, "%d headers SignatureCertChainUrl", len(urls))
	}
	chainURL, err := checkedURL(urls[0])
	if err != nil {
		return nil, err
	}
	public, err := v.chains.key(ctx, chainURL)
	if err != nil {
		return nil, err
	}
	digest := hash.New()
	digest.Write(body)
	if err := rsa.VerifyPKCS1v15(public, hash, digest.Sum(nil), signature); err != nil {
		return nil, refused(refusedSignature, "%v of the body: %w", hash, err)
	}
	key := keyOf(body, seen == v.seenEvents)
	if !seen.first(key, v.now()) {
		return nil, refused(refusedReplay, "request %.128q was here before", req.ID)
	}
	if v.elsewhere == nil {
		return func() { seen.forget(key) }, nil
	}
	if !v.elsewhere.Claim(ctx, key) {
		seen.forget(key) // whoever has it may yet fail
		return nil, refused(refusedReplay, "request %.128q was at another gateway before", req.ID)
	}
	return func() {
		seen.forget(key)
		v.elsewhere.Forget(key)
	}, nil
}

// A Key stands for one request: a hash of its body, and whether it is a skill event.
type Key [sha256.Size]byte

// keyOf returns the key of a body. Its first bit says for how long it is remembered.
func keyOf(body []byte, event bool) Key {
	sum := sha256.Sum256(body)
	sum[0] &= 0x7f
	if event {
		sum[0] |= 0x80
	}
	return sum
}

// A Sharer remembers requests for several verifiers.
type Sharer interface {
	// Claim reports whether key is new to all of them, and has it remembered by one
	// that owns it. That may be this very verifier, which knows it already.
	Claim(ctx context.Context, key Key) bool

	// Forget undoes it.
	Forget(key Key)
}

// Share has the verifier ask s about each request. It must be called before the first
// one.
func (v *Verifier) Share(s Sharer) { v.elsewhere = s }

// Claim reports whether a request that another verifier has checked is new here, and
// remembers it.
func (v *Verifier) Claim(key Key) (first bool) { return v.guard(key).first(key, v.now()) }

// Forget undoes Claim.
func (v *Verifier) Forget(key Key) { v.guard(key).forget(key) }

func (v *Verifier) guard(key Key) *replayGuard {
	if key[0]&0x80 != 0 {
		return v.seenEvents
	}
	return v.seen
}

// checkTimestamp checks that a request is no older than oldest, and not in the
// future.
func (v *Verifier) checkTimestamp(s string, oldest time.Duration) error {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return refused(refusedTimestamp, "request.timestamp: %.128q is not a time", s)
	}
	switch age := v.now().Sub(t); {
	case age > oldest:
		return refused(refusedOld, "%v old, %v at most", age, oldest)
	case age < -tolerance:
		return refused(refusedFuture, "%v ahead, %v at most", -age, tolerance)
	}
	return nil
}

// signatureOf returns the signature in the headers and its hash. If there is a
// Signature-256 it alone counts, so that nobody can force a downgrade to the weaker
// Signature by breaking the other one.
func signatureOf(h http.Header) ([]byte, crypto.Hash, error) {
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

// checkedURL returns the URL to get the certificate chain from, if raw is one that
// Amazon uses. It is rebuilt from the checked parts, so that nothing else is
// fetched, however another parser would read raw.
func checkedURL(raw string) (string, error) {
	if len(raw) > maxChainURL {
		return "", refused(refusedURL, "%d bytes, %d at most", len(raw), maxChainURL)
	}
	u, err := url.Parse(raw)
	if err != nil {
		return "", refused(refusedURL, "%w", err)
	}
	switch {
	case u.Scheme != "https": // Parse made it lower case
		return "", refused(refusedScheme, "%.128q", u.Scheme)
	case u.Opaque != "" || u.User != nil || strings.ContainsAny(raw, "?#"):
		return "", refused(refusedURL, "%.128q has more than a host and a path", raw)
	case !strings.EqualFold(u.Hostname(), chainHost):
		return "", refused(refusedHost, "%.128q", u.Hostname())
	case u.Port() != "" && u.Port() != "443":
		return "", refused(refusedPort, "%.128q", u.Port())
	}
	// u.Path is unescaped. Remaining escapes, escaped slashes and backslashes are
	// ambiguous, and Amazon uses none of them.
	if strings.ContainsAny(u.Path, `%\`) || strings.Contains(strings.ToLower(u.EscapedPath()), "%2f") ||
		strings.ContainsFunc(u.Path, unprintable) {
		return "", refused(refusedPath, "%.128q", u.Path)
	}
	clean := path.Clean("/" + u.Path)
	if !strings.HasPrefix(clean, chainPath) {
		return "", refused(refusedPath, "%.128q is not below %s", clean, chainPath)
	}
	return (&url.URL{Scheme: "https", Host: chainHost, Path: clean}).String(), nil
}

const maxReplays = 1 << 15 // of each replayGuard; twice so many are remembered, 32 bytes each

// A replayGuard remembers accepted requests for a window, which is how long one can
// be accepted: from tolerance ahead of its time until it is too old. Only requests
// signed by Amazon are stored, so nobody else can fill it. Beyond maxReplays in a
// window, 109 requests or 8.7 skill events per second, the oldest are forgotten
// early.
//
// The key is the whole body, which has the request's ID, its time and the skill's
// ID, and not the signature: the same body has two, one in each header. A request
// in progress counts as seen. One that did not succeed is forgotten, as Amazon may
// repeat it.
type replayGuard struct {
	window time.Duration

	mu       sync.Mutex
	began    time.Time // when recent was empty
	recent   map[[sha256.Size]byte]struct{}
	previous map[[sha256.Size]byte]struct{} // recent of the window before
}

// first reports whether body is new, and stores it.
func (g *replayGuard) first(body [sha256.Size]byte, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.recent == nil || now.Sub(g.began) > g.window || len(g.recent) >= maxReplays {
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

// forget removes a body that first has stored.
func (g *replayGuard) forget(body [sha256.Size]byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.recent, body)
	delete(g.previous, body)
}

func unprintable(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }
