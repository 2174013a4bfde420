package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"
)

// The tests sign with an authority of their own, which a verifier trusts only
// because they hand it over as its roots.

const testChainURL = "https://s3.amazonaws.com/echo.api/cert.pem"

var (
	testNow = time.Date(2026, 5, 13, 12, 35, 0, 0, time.UTC)

	// RSA keys are slow to make.
	signingKey = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	otherKey   = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// An issued certificate, and the key that it is for.
type issued struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// issue makes a certificate signed by parent, or by itself if parent is nil.
func issue(parent *issued, key crypto.Signer, change func(*x509.Certificate)) *issued {
	if key == nil {
		key = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	}
	template := &x509.Certificate{
		SerialNumber: must(rand.Int(rand.Reader, big.NewInt(1<<62))),
		Subject:      pkix.Name{CommonName: "test"},
		NotBefore:    time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	change(template)
	p := issued{template, key}
	if parent != nil {
		p = *parent
	}
	der := must(x509.CreateCertificate(rand.Reader, template, p.cert, key.Public(), p.key))
	return &issued{must(x509.ParseCertificate(der)), key}
}

func authority(name string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.Subject.CommonName = name
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
	}
}

// signing is the certificate that Amazon signs with, and then what changes do
// to it.
func signing(changes ...func(*x509.Certificate)) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.DNSNames = []string{"other.amazon.com", alexaSAN}
		c.NotBefore, c.NotAfter = testNow.AddDate(0, -1, 0), testNow.AddDate(0, 1, 0)
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		for _, change := range changes {
			change(c)
		}
	}
}

func chainPEM(chain ...*issued) []byte {
	var b []byte
	for _, c := range chain {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.cert.Raw})...)
	}
	return b
}

// amazon stands in for s3.amazonaws.com, with a certificate of the test's
// authority for that name.
type amazon struct {
	root, between *issued
	roots         *x509.CertPool
	transport     http.RoundTripper // its connections all end at the server

	mu    sync.Mutex
	files map[string]http.HandlerFunc // by path
	gets  []string                    // paths, in order
}

func newAmazon(t testing.TB) *amazon {
	a := &amazon{files: map[string]http.HandlerFunc{}, roots: x509.NewCertPool()}
	a.root = issue(nil, nil, authority("root"))
	a.between = issue(a.root, nil, authority("between"))
	a.roots.AddCert(a.root.cert)
	a.serve("/echo.api/cert.pem", chainPEM(issue(a.between, signingKey(), signing()), a.between))

	server := httptest.NewUnstartedServer(a)
	host := issue(a.root, nil, func(c *x509.Certificate) { c.DNSNames = []string{alexaChainHost} })
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{host.cert.Raw}, PrivateKey: host.key}}}
	server.StartTLS()
	t.Cleanup(server.Close)

	transport := newChainTransport(a.roots)
	transport.Proxy = nil
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		if address != alexaChainHost+":443" {
			return nil, fmt.Errorf("dialled %s", address)
		}
		return new(net.Dialer).DialContext(ctx, network, server.Listener.Addr().String())
	}
	t.Cleanup(transport.CloseIdleConnections)
	a.transport = transport
	return a
}

func (a *amazon) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	file := a.files[r.URL.Path]
	a.gets = append(a.gets, r.URL.Path)
	a.mu.Unlock()
	if file == nil {
		http.NotFound(w, r)
		return
	}
	file(w, r)
}

func (a *amazon) serve(path string, text []byte) {
	a.handle(path, func(w http.ResponseWriter, _ *http.Request) { w.Write(text) })
}

func (a *amazon) handle(path string, file http.HandlerFunc) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.files[path] = file
}

func (a *amazon) requests() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.gets)
}

func (a *amazon) verifier(t testing.TB, now func() time.Time, skills ...string) *alexaVerifier {
	t.Helper()
	v, err := newAlexaVerifier(skills, a.roots, a.transport, now)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// A signedBody is a signed Alexa request before it is sent.
type signedBody struct {
	body   []byte
	header http.Header
}

// sign sets the headers that Amazon sends with the body.
func (r *signedBody) sign(key *rsa.PrivateKey) {
	h256, h1 := sha256.Sum256(r.body), sha1.Sum(r.body)
	r.header.Set("Signature-256", base64.StdEncoding.EncodeToString(must(rsa.SignPKCS1v15(nil, key, crypto.SHA256, h256[:]))))
	r.header.Set("Signature", base64.StdEncoding.EncodeToString(must(rsa.SignPKCS1v15(nil, key, crypto.SHA1, h1[:]))))
}

// signedRequest returns one that a verifier accepts at testNow.
func signedRequest(t testing.TB) *signedBody {
	r := &signedBody{body: alexaBody(t, "intent"), header: http.Header{}}
	r.header.Set("SignatureCertChainUrl", testChainURL)
	r.retime(t, testNow.Add(-4*time.Second).Format(time.RFC3339))
	return r
}

// retime sets request.timestamp and signs again.
func (r *signedBody) retime(t testing.TB, timestamp any) {
	t.Helper()
	r.set(t, "timestamp", timestamp)
}

// set sets a member of the request object, nil to remove it, and signs again.
func (r *signedBody) set(t testing.TB, member string, value any) {
	t.Helper()
	var all map[string]any
	if err := json.Unmarshal(r.body, &all); err != nil {
		t.Fatal(err)
	}
	request := all["request"].(map[string]any)
	request[member] = value
	if value == nil {
		delete(request, member)
	}
	r.body = must(json.Marshal(all))
	r.sign(signingKey())
}

func TestAlexaVerifyAccepts(t *testing.T) {
	a := newAmazon(t)
	header := func(name, value string) func(*signedBody) {
		return func(r *signedBody) { r.header.Set(name, value) }
	}
	at := func(d time.Duration, format string) func(*signedBody) {
		return func(r *signedBody) { r.retime(t, testNow.Add(d).Format(format)) }
	}
	tests := []struct {
		name   string
		change func(*signedBody)
	}{
		{"as Amazon sends it", func(*signedBody) {}},
		{"Signature alone", func(r *signedBody) { r.header.Del("Signature-256") }},
		{"Signature-256 alone", func(r *signedBody) { r.header.Del("Signature") }},
		{"a wrong Signature beside it", header("Signature", "AAAA")},
		{"port 443", header("SignatureCertChainUrl", "https://s3.amazonaws.com:443/echo.api/cert.pem")},
		{"scheme and host in another case", header("SignatureCertChainUrl", "HTTPS://S3.AmazonAWS.com/echo.api/cert.pem")},
		{"a path to be normalised", header("SignatureCertChainUrl", "https://s3.amazonaws.com/echo.api/../echo.api/./cert.pem")},
		{"an escape without need", header("SignatureCertChainUrl", "https://s3.amazonaws.com/ech%6f.api/cert.pem")},
		{"150 s old", at(-alexaTolerance, time.RFC3339)},
		{"150 s ahead", at(alexaTolerance, time.RFC3339)},
		{"milliseconds", at(0, "2006-01-02T15:04:05.000Z")},
		{"another time zone", func(r *signedBody) { r.retime(t, testNow.In(time.FixedZone("", -7200)).Format(time.RFC3339)) }},
	}
	for _, skills := range [][]string{nil, {"amzn1.ask.skill.other", testSkill}} {
		g := startSkillGateway(t, a.verifier(t, func() time.Time { return testNow }, skills...))
		for _, tt := range tests {
			t.Run(fmt.Sprintf("%s, %d skills", tt.name, len(skills)), func(t *testing.T) {
				r := g.request(t)
				tt.change(r)
				g.mustPass(t, "/", r)
			})
		}
	}
	for _, path := range a.requests() {
		if path != "/echo.api/cert.pem" {
			t.Errorf("got a request for %q, want the normalised path alone", path)
		}
	}
}

// Each case breaks one rule, and the gateway does not call the function.
func TestAlexaForgeries(t *testing.T) {
	a := newAmazon(t)
	chainURL := func(raw string) func(*signedBody) {
		return func(r *signedBody) { r.header.Set("SignatureCertChainUrl", raw) }
	}
	files := 0
	file := func(text []byte) func(*signedBody) { // another chain
		files++
		path := fmt.Sprintf("/echo.api/%d.pem", files)
		a.serve(path, text)
		return chainURL("https://s3.amazonaws.com" + path)
	}
	leaf := func(changes ...func(*x509.Certificate)) *issued {
		return issue(a.between, signingKey(), signing(changes...))
	}
	timestamp := func(v any) func(*signedBody) { return func(r *signedBody) { r.retime(t, v) } }
	good := leaf()
	otherRoot := issue(nil, nil, authority("other root"))
	pastBetween := issue(a.root, nil, func(c *x509.Certificate) {
		authority("past")(c)
		c.NotAfter = testNow.Add(-time.Hour)
	})
	noAuthority := issue(a.between, nil, signing())
	a.handle("/echo.api/redirect.pem", http.RedirectHandler(testChainURL, http.StatusFound).ServeHTTP)

	forgeries := []struct {
		name   string
		reason string
		change func(*signedBody)
	}{
		{"no chain URL", refusedNoURL, func(r *signedBody) { r.header.Del("SignatureCertChainUrl") }},
		{"chain URL empty", refusedNoURL, chainURL("")},
		{"chain URL twice", refusedURL, func(r *signedBody) { r.header.Add("SignatureCertChainUrl", testChainURL) }},
		{"chain URL of 3 KiB", refusedURL, chainURL(testChainURL + strings.Repeat("x", 3<<10))},
		{"chain URL with a control byte", refusedURL, chainURL(testChainURL + "\tx")},
		{"http", refusedScheme, chainURL("http://s3.amazonaws.com/echo.api/cert.pem")},
		{"no scheme", refusedScheme, chainURL("//s3.amazonaws.com/echo.api/cert.pem")},
		{"file", refusedScheme, chainURL("file:///echo.api/cert.pem")},
		{"opaque", refusedURL, chainURL("https:s3.amazonaws.com/echo.api/cert.pem")},
		{"other host", refusedHost, chainURL("https://notamazon.com/echo.api/cert.pem")},
		{"host with a suffix", refusedHost, chainURL("https://s3.amazonaws.com.evil.example/echo.api/cert.pem")},
		{"host with a prefix", refusedHost, chainURL("https://evil.s3.amazonaws.com/echo.api/cert.pem")},
		{"host with a dot at its end", refusedHost, chainURL("https://s3.amazonaws.com./echo.api/cert.pem")},
		{"host as user", refusedURL, chainURL("https://s3.amazonaws.com@evil.example/echo.api/cert.pem")},
		{"user before the host", refusedURL, chainURL("https://evil@s3.amazonaws.com/echo.api/cert.pem")},
		{"host with a backslash", refusedURL, chainURL(`https://evil.example\@s3.amazonaws.com/echo.api/cert.pem`)},
		{"port 563", refusedPort, chainURL("https://s3.amazonaws.com:563/echo.api/cert.pem")},
		{"port 0443", refusedPort, chainURL("https://s3.amazonaws.com:0443/echo.api/cert.pem")},
		{"other path", refusedPath, chainURL("https://s3.amazonaws.com/evil/cert.pem")},
		{"path in another case", refusedPath, chainURL("https://s3.amazonaws.com/EcHo.aPi/cert.pem")},
		{"path with a suffix", refusedPath, chainURL("https://s3.amazonaws.com/echo.api.evil/cert.pem")},
		{"path of the folder itself", refusedPath, chainURL("https://s3.amazonaws.com/echo.api/")},
		{"no path", refusedPath, chainURL("https://s3.amazonaws.com")},
		{"dots", refusedPath, chainURL("https://s3.amazonaws.com/echo.api/../evil/cert.pem")},
		{"dots escaped", refusedPath, chainURL("https://s3.amazonaws.com/echo.api/%2e%2e/evil/cert.pem")},
		{"dots half escaped", refusedPath, chainURL("https://s3.amazonaws.com/echo.api/.%2E/evil/cert.pem")},
		{"dots escaped twice", refusedPath, chainURL("https://s3.amazonaws.com/echo.api/%252e%252e/evil/cert.pem")},
		{"dots and an escaped slash", refusedPath, chainURL("https://s3.amazonaws.com/echo.api/..%2fevil/cert.pem")},
		{"dots and a backslash", refusedPath, chainURL(`https://s3.amazonaws.com/echo.api/..\evil/cert.pem`)},
		{"dots and an escaped backslash", refusedPath, chainURL("https://s3.amazonaws.com/echo.api/..%5Cevil/cert.pem")},
		{"NUL in the path", refusedPath, chainURL("https://s3.amazonaws.com/echo.api/cert.pem%00")},
		{"query", refusedURL, chainURL(testChainURL + "?versionId=1")},
		{"fragment", refusedURL, chainURL(testChainURL + "#x")},

		{"chain expired", refusedExpired, file(chainPEM(leaf(func(c *x509.Certificate) { c.NotAfter = testNow.Add(-time.Second) }), a.between))},
		{"chain not yet valid", refusedNotYet, file(chainPEM(leaf(func(c *x509.Certificate) { c.NotBefore = testNow.Add(time.Second) }), a.between))},
		{"certificate between expired", refusedExpired, file(chainPEM(issue(pastBetween, signingKey(), signing()), pastBetween))},
		{"other name", refusedSAN, file(chainPEM(leaf(func(c *x509.Certificate) { c.DNSNames = []string{"echo-api.amazon.com.evil.example"} }), a.between))},
		{"wildcard name", refusedSAN, file(chainPEM(leaf(func(c *x509.Certificate) { c.DNSNames = []string{"*.amazon.com"} }), a.between))},
		{"name as common name alone", refusedSAN, file(chainPEM(leaf(func(c *x509.Certificate) { c.DNSNames, c.Subject.CommonName = nil, alexaSAN }), a.between))},
		{"order reversed", refusedSAN, file(chainPEM(a.between, good))},
		{"other root", refusedUntrusted, file(chainPEM(issue(otherRoot, signingKey(), signing())))},
		{"other root, sent along", refusedUntrusted, file(chainPEM(issue(otherRoot, signingKey(), signing()), otherRoot))},
		{"signed by itself", refusedUntrusted, file(chainPEM(issue(nil, signingKey(), signing())))},
		{"certificate between missing", refusedUntrusted, file(chainPEM(good))},
		{"issued by no authority", refusedUntrusted, file(chainPEM(issue(noAuthority, signingKey(), signing()), noAuthority, a.between))},
		{"not for servers", refusedUntrusted, file(chainPEM(leaf(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection} }), a.between))},
		{"key not RSA", refusedKey, file(chainPEM(noAuthority, a.between))},
		{"chain empty", refusedChain, file(nil)},
		{"chain of no PEM", refusedChain, file([]byte("<Error>"))},
		{"chain with another block", refusedChain, file(append(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY"}), chainPEM(good, a.between)...))},
		{"chain with a broken certificate", refusedChain, file(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}))},
		{"chain of 9 certificates", refusedChain, file(chainPEM(good, a.between, a.between, a.between, a.between, a.between, a.between, a.between, a.between))},
		{"chain of 64 KiB and one byte", refusedChain, file(slices.Concat(chainPEM(good, a.between), bytes.Repeat([]byte("\n"), maxChainBytes))[:maxChainBytes+1])},
		{"chain missing", refusedUnavailable, chainURL("https://s3.amazonaws.com/echo.api/nothing.pem")},
		{"chain by a redirect", refusedUnavailable, chainURL("https://s3.amazonaws.com/echo.api/redirect.pem")},

		{"no signature", refusedNoSignature, func(r *signedBody) { r.header.Del("Signature"); r.header.Del("Signature-256") }},
		{"signature no base64", refusedEncoding, func(r *signedBody) { r.header.Set("Signature-256", "***") }},
		{"signature twice", refusedEncoding, func(r *signedBody) { r.header.Add("Signature-256", r.header.Get("Signature-256")) }},
		{"signature of another key", refusedSignature, func(r *signedBody) { r.sign(otherKey()) }},
		{"body changed", refusedSignature, func(r *signedBody) {
			r.body = bytes.Replace(r.body, []byte("HostnameIntent"), []byte("TransferIntent"), 1)
		}},
		{"body with a space more", refusedSignature, func(r *signedBody) { r.body = append(r.body, ' ') }},
		{"body changed, Signature alone", refusedSignature, func(r *signedBody) {
			r.header.Del("Signature-256")
			r.body = append(r.body, ' ')
		}},
		{"Signature right, Signature-256 wrong", refusedSignature, func(r *signedBody) { r.header.Set("Signature-256", "AAAA") }},
		{"Signature right, Signature-256 empty", refusedNoSignature, func(r *signedBody) { r.header.Set("Signature-256", "") }},
		{"SHA-1 in Signature-256", refusedSignature, func(r *signedBody) { r.header.Set("Signature-256", r.header.Get("Signature")) }},
		{"PSS padding", refusedSignature, func(r *signedBody) {
			digest := sha256.Sum256(r.body)
			pss := must(rsa.SignPSS(rand.Reader, signingKey(), crypto.SHA256, digest[:], nil))
			r.header.Set("Signature-256", base64.StdEncoding.EncodeToString(pss))
		}},

		{"151 s old", refusedOld, timestamp(testNow.Add(-151 * time.Second).Format(time.RFC3339))},
		{"151 s ahead", refusedFuture, timestamp(testNow.Add(151 * time.Second).Format(time.RFC3339))},
		{"no timestamp", refusedTimestamp, timestamp(nil)},
		{"timestamp a number", refusedTimestamp, timestamp(testNow.Unix())},
		{"timestamp a date", refusedTimestamp, timestamp("2026-05-13")},
		{"other skill", refusedSkill, func(r *signedBody) {
			r.body = bytes.ReplaceAll(r.body, []byte(testSkill), []byte("amzn1.ask.skill.other"))
			r.sign(signingKey())
		}},
	}

	var report strings.Builder
	table := tabwriter.NewWriter(&report, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "forgery\treason")
	seen := map[string]bool{}
	row := func(name, reason string) {
		seen[reason] = true
		fmt.Fprintf(table, "%s\t%s\n", name, reason)
	}
	g := startSkillGateway(t, a.verifier(t, func() time.Time { return testNow }, testSkill))
	refusals := map[string]int{}
	mustRefuse := func(t *testing.T, name, reason string, r *signedBody) {
		t.Helper()
		calls := len(g.got())
		code, answer := g.send(t, "/", r)
		if want := alexaRefusalText + reason + "\n"; code != http.StatusBadRequest || answer != want {
			t.Errorf("got %d %q, want 400 %q", code, answer, want)
		}
		if n := len(g.got()) - calls; n != 0 {
			t.Errorf("got %d calls of the function, want none", n)
		}
		refusals[reason]++
		row(name, strings.TrimSpace(strings.TrimPrefix(answer, alexaRefusalText)))
	}
	for _, tt := range forgeries {
		t.Run(tt.name, func(t *testing.T) {
			r := g.request(t)
			tt.change(r)
			mustRefuse(t, tt.name, tt.reason, r)
			g.mustPass(t, "/", g.request(t)) // what is right is still taken
		})
	}
	for name, change := range map[string]func(*signedBody){
		"replayed":                    func(*signedBody) {},
		"replayed by Signature alone": func(r *signedBody) { r.header.Del("Signature-256") },
	} {
		t.Run(name, func(t *testing.T) {
			r := g.request(t)
			g.mustPass(t, "/", r)
			change(r)
			mustRefuse(t, name, refusedReplay, r)
		})
	}
	_, metrics := call(t, "GET", g.base+"/metrics", "")
	for reason, n := range refusals {
		if want := fmt.Sprintf("gateway_alexa_refusals_total{reason=%q} %d\n", reason, n); !strings.Contains(metrics, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	table.Flush()
	t.Logf("every forgery got 400 and no function was called:\n%s", report.String())
	for _, reason := range alexaReasons() {
		if !seen[reason] {
			t.Errorf("no forgery has the reason %q", reason)
		}
	}
	for _, path := range a.requests() {
		if !strings.HasPrefix(path, alexaChainPath) {
			t.Errorf("got a request for %q, want none outside %s", path, alexaChainPath)
		}
	}
}

func TestReplayGuard(t *testing.T) {
	var g replayGuard
	key := func(i int) (k [sha256.Size]byte) {
		k[0], k[1], k[2] = byte(i), byte(i>>8), byte(i>>16)
		return k
	}
	if !g.first(key(1), testNow) || g.first(key(1), testNow) {
		t.Error("got a wrong answer at once")
	}
	// A timestamp 150 s ahead stays good for 300 s. Others come in between.
	for s := range 301 {
		g.first(key(1000+s), testNow.Add(time.Duration(s)*time.Second))
	}
	if g.first(key(1), testNow.Add(replayWindow)) {
		t.Errorf("forgotten within %v", replayWindow)
	}
	for i := range 5 * maxReplays {
		g.first(key(10_000+i), testNow.Add(replayWindow))
	}
	if n := len(g.recent) + len(g.previous); n > 2*maxReplays {
		t.Errorf("got %d remembered, want %d at most", n, 2*maxReplays)
	}
	if g.first(key(10_000+5*maxReplays-1), testNow.Add(replayWindow)) {
		t.Error("the last one was forgotten")
	}
}

func TestNoAuthorities(t *testing.T) {
	_, err := newAlexaVerifier(nil, x509.NewCertPool(), nil, time.Now)
	if err == nil || !strings.Contains(err.Error(), "ca-certificates") {
		t.Errorf("got %v, want an error that says what to install", err)
	}
}

func BenchmarkAlexaVerify(b *testing.B) {
	a := newAmazon(b)
	v := a.verifier(b, func() time.Time { return testNow }, testSkill)
	r := signedRequest(b)
	req, ok := parseAlexa(r.body)
	if !ok {
		b.Fatal("no Alexa request")
	}
	b.ReportAllocs()
	for b.Loop() {
		v.seen = replayGuard{}
		if err := v.verify(b.Context(), r.header, r.body, req); err != nil {
			b.Fatal(err)
		}
	}
}
