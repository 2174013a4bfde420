package e2e

// Requests that Amazon's stand-in has signed, sent to three gateways.

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"faas/internal/alexa/alexatest"
)

// A request that one gateway has taken is refused by all, and of a hundred copies that
// arrive at once at all of them one is taken.
func TestPeersRefuseReplays(t *testing.T) {
	l := useLab(t)
	if err := l.waitManagers(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The place of s3.amazonaws.com, on the machine outside the Swarm.
	here := l.net + ".254"
	amazon := alexatest.NewAmazon(t)
	signing := alexatest.Issue(amazon.Between, alexatest.SigningKey(), alexatest.Signing(func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}))
	amazon.Serve("/echo.api/cert.pem", alexatest.ChainPEM(signing, amazon.Between))
	host := alexatest.Issue(amazon.Root, nil, func(c *x509.Certificate) { c.DNSNames = []string{"s3.amazonaws.com"} })
	listener, err := net.Listen("tcp", here+":443")
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(amazon)
	server.Listener.Close()
	server.Listener = listener
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{host.Cert.Raw}, PrivateKey: host.Key}}}
	server.StartTLS()
	t.Cleanup(server.Close)

	root := filepath.Join(t.TempDir(), "root.pem")
	if err := os.WriteFile(root, alexatest.ChainPEM(amazon.Root), 0o644); err != nil {
		t.Fatal(err)
	}
	l.docker(t, "config", "create", "peers-root", root)
	t.Cleanup(func() {
		if _, err := l.node(1).tryDocker(context.Background(), "config", "rm", "peers-root"); err != nil {
			t.Error(err)
		}
	})
	gs := startPeers(t, l, "--env", "alexa_verify=true", "--env", "SSL_CERT_FILE=/root.pem",
		"--config", "source=peers-root,target=/root.pem", "--host", "s3.amazonaws.com:"+here)
	createFunction(t, l, "HostnameIntent", intentImage)
	for _, g := range gs {
		g.waitAnswer(t, "HostnameIntent")
	}

	signed := func(id string) *alexatest.SignedBody {
		r := alexatest.SignedRequest(t)
		r.Set(t, "requestId", id)
		r.Retime(t, time.Now().Format(time.RFC3339))
		return r
	}
	for i, g := range gs {
		r := signed(fmt.Sprintf("one after the other %d", i))
		if a := g.post(t, "/", r.Header, r.Body); a.status != http.StatusOK {
			t.Fatalf("%s: got %d %q for a signed request, want 200", g.node.name, a.status, firstLine(a.body))
		}
		for _, other := range gs {
			if a := other.post(t, "/", r.Header, r.Body); a.status != http.StatusBadRequest {
				t.Errorf("%s took it, %s: got %d %q, want 400", g.node.name, other.node.name, a.status, firstLine(a.body))
			}
		}
	}

	const races, copies = 5, 100
	table := newTable("A hundred copies at once of a signed request, over three gateways", "race", "taken", "refused")
	for race := range races {
		r := signed(fmt.Sprintf("race %d", race))
		counts := make(map[int]int)
		var mu sync.Mutex
		var all sync.WaitGroup
		for i := range copies {
			all.Go(func() {
				a, err := gs[i%len(gs)].call(t.Context(), http.MethodPost, "/", r.Header, r.Body)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				counts[a.status]++
				mu.Unlock()
			})
		}
		all.Wait()
		table.row(race+1, counts[http.StatusOK], counts[http.StatusBadRequest])
		if counts[http.StatusOK] != 1 || counts[http.StatusBadRequest] != copies-1 {
			t.Errorf("race %d: got %v, want one taken and the others refused", race+1, counts)
		}
	}
	table.print(t)
	for _, g := range gs {
		if got := g.metric(t, "gateway_alexa_replay_checks_total", `outcome="unreachable"`); got != 0 {
			t.Errorf("%s: got %v checks of which the owner was not reached, want none", g.node.name, got)
		}
	}
}
