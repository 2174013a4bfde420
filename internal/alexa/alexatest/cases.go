package alexatest

// What requests become on their way.

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// tolerance is how far a request's timestamp may be off, either way.
const Tolerance = 150 * time.Second

// A Case is what a request becomes on its way, and the reason for which it
// is to be refused, or "".
type Case struct {
	Name   string
	Reason string
	Change func(*SignedBody)
}

// Acceptable returns changes after which a request is still to be accepted.
func Acceptable(t testing.TB) []Case {
	header := func(name, value string) func(*SignedBody) {
		return func(r *SignedBody) { r.Header.Set(name, value) }
	}
	at := func(d time.Duration, format string) func(*SignedBody) {
		return func(r *SignedBody) { r.Retime(t, Now.Add(d).Format(format)) }
	}
	return []Case{
		{"as Amazon sends it", "", func(*SignedBody) {}},
		{"Signature alone", "", func(r *SignedBody) { r.Header.Del("Signature-256") }},
		{"Signature-256 alone", "", func(r *SignedBody) { r.Header.Del("Signature") }},
		{"a wrong Signature beside it", "", header("Signature", "AAAA")},
		{"port 443", "", header("SignatureCertChainUrl", "https://s3.amazonaws.com:443/echo.api/cert.pem")},
		{"scheme and host in another case", "", header("SignatureCertChainUrl", "HTTPS://S3.AmazonAWS.com/echo.api/cert.pem")},
		{"a path to be normalised", "", header("SignatureCertChainUrl", "https://s3.amazonaws.com/echo.api/../echo.api/./cert.pem")},
		{"an escape without need", "", header("SignatureCertChainUrl", "https://s3.amazonaws.com/ech%6f.api/cert.pem")},
		{"150 s old", "", at(-Tolerance, time.RFC3339)},
		{"150 s ahead", "", at(Tolerance, time.RFC3339)},
		{"milliseconds", "", at(0, "2006-01-02T15:04:05.000Z")},
		{"another time zone", "", func(r *SignedBody) { r.Retime(t, Now.In(time.FixedZone("", -7200)).Format(time.RFC3339)) }},
	}
}

// Forgeries returns changes that break one rule each. a serves the chains that
// some of them name, for accepting requests of Skill alone.
func (a *Amazon) Forgeries(t testing.TB) []Case {
	chainURL := func(raw string) func(*SignedBody) {
		return func(r *SignedBody) { r.Header.Set("SignatureCertChainUrl", raw) }
	}
	files := 0
	file := func(text []byte) func(*SignedBody) { // another chain
		files++
		path := fmt.Sprintf("/echo.api/%d.pem", files)
		a.Serve(path, text)
		return chainURL("https://s3.amazonaws.com" + path)
	}
	leaf := func(changes ...func(*x509.Certificate)) *Issued {
		return Issue(a.Between, SigningKey(), Signing(changes...))
	}
	timestamp := func(v any) func(*SignedBody) { return func(r *SignedBody) { r.Retime(t, v) } }
	good := leaf()
	otherRoot := Issue(nil, nil, Authority("other root"))
	pastBetween := Issue(a.Root, nil, func(c *x509.Certificate) {
		Authority("past")(c)
		c.NotAfter = Now.Add(-time.Hour)
	})
	noAuthority := Issue(a.Between, nil, Signing())
	a.Handle("/echo.api/redirect.pem", http.RedirectHandler(ChainURL, http.StatusFound).ServeHTTP)

	return []Case{
		{"no chain URL", "url_missing", func(r *SignedBody) { r.Header.Del("SignatureCertChainUrl") }},
		{"chain URL empty", "url_missing", chainURL("")},
		{"chain URL twice", "url_malformed", func(r *SignedBody) { r.Header.Add("SignatureCertChainUrl", ChainURL) }},
		{"chain URL of 3 KiB", "url_malformed", chainURL(ChainURL + strings.Repeat("x", 3<<10))},
		{"chain URL with a control byte", "url_malformed", chainURL(ChainURL + "\tx")},
		{"http", "url_scheme", chainURL("http://s3.amazonaws.com/echo.api/cert.pem")},
		{"no scheme", "url_scheme", chainURL("//s3.amazonaws.com/echo.api/cert.pem")},
		{"file", "url_scheme", chainURL("file:///echo.api/cert.pem")},
		{"opaque", "url_malformed", chainURL("https:s3.amazonaws.com/echo.api/cert.pem")},
		{"other host", "url_host", chainURL("https://notamazon.com/echo.api/cert.pem")},
		{"host with a suffix", "url_host", chainURL("https://s3.amazonaws.com.evil.example/echo.api/cert.pem")},
		{"host with a prefix", "url_host", chainURL("https://evil.s3.amazonaws.com/echo.api/cert.pem")},
		{"host with a dot at its end", "url_host", chainURL("https://s3.amazonaws.com./echo.api/cert.pem")},
		{"host as user", "url_malformed", chainURL("https://s3.amazonaws.com@evil.example/echo.api/cert.pem")},
		{"user before the host", "url_malformed", chainURL("https://evil@s3.amazonaws.com/echo.api/cert.pem")},
		{"host with a backslash", "url_malformed", chainURL(`https://evil.example\@s3.amazonaws.com/echo.api/cert.pem`)},
		{"port 563", "url_port", chainURL("https://s3.amazonaws.com:563/echo.api/cert.pem")},
		{"port 0443", "url_port", chainURL("https://s3.amazonaws.com:0443/echo.api/cert.pem")},
		{"other path", "url_path", chainURL("https://s3.amazonaws.com/evil/cert.pem")},
		{"path in another case", "url_path", chainURL("https://s3.amazonaws.com/EcHo.aPi/cert.pem")},
		{"path with a suffix", "url_path", chainURL("https://s3.amazonaws.com/echo.api.evil/cert.pem")},
		{"path of the folder itself", "url_path", chainURL("https://s3.amazonaws.com/echo.api/")},
		{"no path", "url_path", chainURL("https://s3.amazonaws.com")},
		{"dots", "url_path", chainURL("https://s3.amazonaws.com/echo.api/../evil/cert.pem")},
		{"dots escaped", "url_path", chainURL("https://s3.amazonaws.com/echo.api/%2e%2e/evil/cert.pem")},
		{"dots half escaped", "url_path", chainURL("https://s3.amazonaws.com/echo.api/.%2E/evil/cert.pem")},
		{"dots escaped twice", "url_path", chainURL("https://s3.amazonaws.com/echo.api/%252e%252e/evil/cert.pem")},
		{"dots and an escaped slash", "url_path", chainURL("https://s3.amazonaws.com/echo.api/..%2fevil/cert.pem")},
		{"dots and a backslash", "url_path", chainURL(`https://s3.amazonaws.com/echo.api/..\evil/cert.pem`)},
		{"dots and an escaped backslash", "url_path", chainURL("https://s3.amazonaws.com/echo.api/..%5Cevil/cert.pem")},
		{"NUL in the path", "url_path", chainURL("https://s3.amazonaws.com/echo.api/cert.pem%00")},
		{"query", "url_malformed", chainURL(ChainURL + "?versionId=1")},
		{"fragment", "url_malformed", chainURL(ChainURL + "#x")},

		{"chain expired", "chain_expired", file(ChainPEM(leaf(func(c *x509.Certificate) { c.NotAfter = Now.Add(-time.Second) }), a.Between))},
		{"chain not yet valid", "chain_not_yet_valid", file(ChainPEM(leaf(func(c *x509.Certificate) { c.NotBefore = Now.Add(time.Second) }), a.Between))},
		{"certificate between expired", "chain_expired", file(ChainPEM(Issue(pastBetween, SigningKey(), Signing()), pastBetween))},
		{"other name", "chain_name", file(ChainPEM(leaf(func(c *x509.Certificate) { c.DNSNames = []string{"echo-api.amazon.com.evil.example"} }), a.Between))},
		{"wildcard name", "chain_name", file(ChainPEM(leaf(func(c *x509.Certificate) { c.DNSNames = []string{"*.amazon.com"} }), a.Between))},
		{"name as common name alone", "chain_name", file(ChainPEM(leaf(func(c *x509.Certificate) { c.DNSNames, c.Subject.CommonName = nil, san }), a.Between))},
		{"order reversed", "chain_name", file(ChainPEM(a.Between, good))},
		{"other root", "chain_untrusted", file(ChainPEM(Issue(otherRoot, SigningKey(), Signing())))},
		{"other root, sent along", "chain_untrusted", file(ChainPEM(Issue(otherRoot, SigningKey(), Signing()), otherRoot))},
		{"signed by itself", "chain_untrusted", file(ChainPEM(Issue(nil, SigningKey(), Signing())))},
		{"certificate between missing", "chain_untrusted", file(ChainPEM(good))},
		{"issued by no authority", "chain_untrusted", file(ChainPEM(Issue(noAuthority, SigningKey(), Signing()), noAuthority, a.Between))},
		{"not for servers", "chain_untrusted", file(ChainPEM(leaf(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection} }), a.Between))},
		{"key not RSA", "chain_key", file(ChainPEM(noAuthority, a.Between))},
		{"chain empty", "chain_malformed", file(nil)},
		{"chain of no PEM", "chain_malformed", file([]byte("<Error>"))},
		{"chain with another block", "chain_malformed", file(append(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY"}), ChainPEM(good, a.Between)...))},
		{"chain with a broken certificate", "chain_malformed", file(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}))},
		{"chain of 9 certificates", "chain_malformed", file(ChainPEM(good, a.Between, a.Between, a.Between, a.Between, a.Between, a.Between, a.Between, a.Between))},
		{"chain of 64 KiB and one byte", "chain_malformed", file(slices.Concat(ChainPEM(good, a.Between), bytes.Repeat([]byte("\n"), (64<<10)))[:(64<<10)+1])},
		{"chain missing", "chain_unavailable", chainURL("https://s3.amazonaws.com/echo.api/nothing.pem")},
		{"chain by a redirect", "chain_unavailable", chainURL("https://s3.amazonaws.com/echo.api/redirect.pem")},

		{"no signature", "signature_missing", func(r *SignedBody) { r.Header.Del("Signature"); r.Header.Del("Signature-256") }},
		{"signature no base64", "signature_malformed", func(r *SignedBody) { r.Header.Set("Signature-256", "***") }},
		{"signature twice", "signature_malformed", func(r *SignedBody) { r.Header.Add("Signature-256", r.Header.Get("Signature-256")) }},
		{"signature of another key", "signature_wrong", func(r *SignedBody) { r.Sign(OtherKey()) }},
		{"body changed", "signature_wrong", func(r *SignedBody) {
			r.Body = bytes.Replace(r.Body, []byte("HostnameIntent"), []byte("TransferIntent"), 1)
		}},
		{"body with a space more", "signature_wrong", func(r *SignedBody) { r.Body = append(r.Body, ' ') }},
		{"body changed, Signature alone", "signature_wrong", func(r *SignedBody) {
			r.Header.Del("Signature-256")
			r.Body = append(r.Body, ' ')
		}},
		{"Signature right, Signature-256 wrong", "signature_wrong", func(r *SignedBody) { r.Header.Set("Signature-256", "AAAA") }},
		{"Signature right, Signature-256 empty", "signature_missing", func(r *SignedBody) { r.Header.Set("Signature-256", "") }},
		{"SHA-1 in Signature-256", "signature_wrong", func(r *SignedBody) { r.Header.Set("Signature-256", r.Header.Get("Signature")) }},
		{"PSS padding", "signature_wrong", func(r *SignedBody) {
			digest := sha256.Sum256(r.Body)
			pss := must(rsa.SignPSS(rand.Reader, SigningKey(), crypto.SHA256, digest[:], nil))
			r.Header.Set("Signature-256", base64.StdEncoding.EncodeToString(pss))
		}},

		{"151 s old", "timestamp_old", timestamp(Now.Add(-151 * time.Second).Format(time.RFC3339))},
		{"151 s ahead", "timestamp_future", timestamp(Now.Add(151 * time.Second).Format(time.RFC3339))},
		{"no timestamp", "timestamp_malformed", timestamp(nil)},
		{"timestamp a number", "timestamp_malformed", timestamp(Now.Unix())},
		{"timestamp a date", "timestamp_malformed", timestamp("2026-05-13")},
		{"other skill", "skill", func(r *SignedBody) {
			r.Body = bytes.ReplaceAll(r.Body, []byte(Skill), []byte("amzn1.ask.skill.other"))
			r.Sign(SigningKey())
		}},
	}
}
