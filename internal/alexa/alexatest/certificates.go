package alexatest

// Certificates, and the keys that they are for.

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"sync"
	"time"
)

// The tests sign with an authority of their own, which a verifier trusts only
// because they hand it over as its roots.

// What Amazon's documentation says.
const (
	chainHost = "s3.amazonaws.com"
	san       = "echo-api.amazon.com"
)

// ChainURL is where a signed request says that its chain is.
const ChainURL = "https://s3.amazonaws.com/echo.api/cert.pem"

var (
	// Now is the time at which a signed request is a few seconds old.
	Now = time.Date(2026, 5, 13, 12, 35, 0, 0, time.UTC)

	// SigningKey is Amazon's, OtherKey somebody else's. RSA keys are slow to make,
	// so there are two for all tests.
	SigningKey = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	OtherKey   = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// An issued certificate, and the key that it is for.
type Issued struct {
	Cert *x509.Certificate
	Key  crypto.Signer
}

// Issue makes a certificate signed by parent, or by itself if parent is nil.
func Issue(parent *Issued, key crypto.Signer, change func(*x509.Certificate)) *Issued {
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
	p := Issued{template, key}
	if parent != nil {
		p = *parent
	}
	der := must(x509.CreateCertificate(rand.Reader, template, p.Cert, key.Public(), p.Key))
	return &Issued{must(x509.ParseCertificate(der)), key}
}

// Authority makes a certificate one that may sign others.
func Authority(name string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.Subject.CommonName = name
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
	}
}

// Signing is the certificate that Amazon signs with, and then what changes do
// to it.
func Signing(changes ...func(*x509.Certificate)) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.DNSNames = []string{"other.amazon.com", san}
		c.NotBefore, c.NotAfter = Now.AddDate(0, -1, 0), Now.AddDate(0, 1, 0)
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		for _, change := range changes {
			change(c)
		}
	}
}

// ChainPEM is the chain as a file.
func ChainPEM(chain ...*Issued) []byte {
	var b []byte
	for _, c := range chain {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Cert.Raw})...)
	}
	return b
}
