// Package alexatest is a stand-in for Amazon, for tests: a server of certificate
// chains, requests that it has signed, and forgeries. It knows nothing of the code
// under test.
package alexatest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
)

// Amazon stands in for s3.amazonaws.com, with a certificate of the test's
// authority for that name.
type Amazon struct {
	Root, Between *Issued
	Roots         *x509.CertPool
	Transport     http.RoundTripper // its connections all end at the server
	server        string            // host:port

	mu    sync.Mutex
	files map[string]http.HandlerFunc // by path
	gets  []string                    // paths, in order
}

// NewAmazon starts one that serves a good chain at ChainURL.
func NewAmazon(t testing.TB) *Amazon {
	a := &Amazon{files: map[string]http.HandlerFunc{}, Roots: x509.NewCertPool()}
	a.Root = Issue(nil, nil, Authority("root"))
	a.Between = Issue(a.Root, nil, Authority("between"))
	a.Roots.AddCert(a.Root.Cert)
	a.Serve("/echo.api/cert.pem", ChainPEM(Issue(a.Between, SigningKey(), Signing()), a.Between))

	server := httptest.NewUnstartedServer(a)
	host := Issue(a.Root, nil, func(c *x509.Certificate) { c.DNSNames = []string{chainHost} })
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{host.Cert.Raw}, PrivateKey: host.Key}}}
	server.StartTLS()
	t.Cleanup(server.Close)

	a.server = server.Listener.Addr().String()
	transport := &http.Transport{
		DialContext:     a.Dial,
		TLSClientConfig: &tls.Config{RootCAs: a.Roots, MinVersion: tls.VersionTLS12},
	}
	t.Cleanup(transport.CloseIdleConnections)
	a.Transport = transport
	return a
}

// Dial connects to the server in the place of Amazon's.
func (a *Amazon) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if address != chainHost+":443" {
		return nil, fmt.Errorf("dialled %s", address)
	}
	return new(net.Dialer).DialContext(ctx, network, a.server)
}

// ServeHTTP answers in the place of Amazon.
func (a *Amazon) ServeHTTP(w http.ResponseWriter, r *http.Request) {
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

// Serve makes text the file at path.
func (a *Amazon) Serve(path string, text []byte) {
	a.Handle(path, func(w http.ResponseWriter, _ *http.Request) { w.Write(text) })
}

// Handle has file answer requests for path.
func (a *Amazon) Handle(path string, file http.HandlerFunc) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.files[path] = file
}

// Requests returns the paths asked for so far, in order.
func (a *Amazon) Requests() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.gets)
}
