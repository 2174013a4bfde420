package e2e

// A gateway on each of three managers, as the stack has them: they hear each other,
// and nobody else does.

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	peersService = "peers" // the gateways
	peersNetwork = "peers-only"
	peersPort    = "8081"
)

// gateways are the gateway of each node, in order.
type gateways []*gateway

func TestPeers(t *testing.T) {
	l := useLab(t)
	if err := l.waitManagers(t.Context()); err != nil {
		t.Fatal(err)
	}
	gs := startPeers(t, l)
	for _, tt := range []struct {
		name string
		test func(*testing.T, *lab, gateways)
	}{
		{"the port is for gateways alone", testPeersPort},
		{"load in parts", testPeersLoad},
		{"acting gateway killed", testActingKilled},
		{"one cut off", testPeerCutOff},
		{"rolling update", testPeersUpdated},
	} {
		t.Run(tt.name, func(t *testing.T) {
			gs.waitHeard(t)
			tt.test(t, l, gs)
		})
	}
}

// startPeers runs a gateway on each node until the end of the test, and waits until all
// hear each other. The arguments are more of "docker service create".
func startPeers(t *testing.T, l *lab, args ...string) gateways {
	t.Helper()
	l.docker(t, "network", "create", "--driver", "overlay", "--internal", peersNetwork)
	t.Cleanup(func() { l.removeNetwork(t, peersNetwork) })
	create := []string{
		"service", "create", "--detach", "--quiet", "--name", peersService, "--mode", "global", "--no-resolve-image",
		"--constraint", "node.role==manager", "--label", "faas.function=false",
		"--network", functionsNetwork, "--network", "name=" + peersNetwork + ",alias=_peers",
		"--publish", "mode=host,target=8080,published=8080",
		"--mount", "type=bind,source=/var/run/docker.sock,target=/var/run/docker.sock",
		"--env", "provider=swarm", "--env", "peers=tasks._peers:" + peersPort, "--env", "peer_listen=:" + peersPort,
		"--stop-grace-period", "70s", "--restart-delay", "2s",
		"--update-parallelism", "1", "--update-order", "stop-first", "--update-monitor", "3s",
	}
	l.docker(t, append(append(create, args...), gatewayImage)...)
	var gs gateways
	for _, n := range l.nodes {
		gs = append(gs, gatewayOf(n))
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("tasks of the gateways: %s", l.node(1).logs("service", "ps", "--no-trunc", peersService))
			t.Logf("the gateways' logs end with:\n%s", l.node(1).logs("service", "logs", "--tail", "40", peersService))
		}
		if _, err := l.node(1).tryDocker(context.Background(), "service", "rm", peersService); err != nil {
			t.Error(err)
		}
		// Until they have ended they hold the port and, on their nodes, the network.
		if err := l.noContainer(context.Background(), peersService); err != nil {
			t.Error(err)
		}
		for _, g := range gs {
			g.client.CloseIdleConnections()
		}
	})
	gs.waitHeard(t)
	return gs
}

// waitHeard waits until each gateway is healthy and hears all others, and one acts.
func (gs gateways) waitHeard(t testing.TB) {
	t.Helper()
	last := make([]string, len(gs))
	ctx, cancel := context.WithTimeout(t.Context(), 2*readyTimeout)
	defer cancel()
	if err := poll(ctx, 50*time.Millisecond, func() bool {
		acting := 0
		for i, g := range gs {
			a, err := g.call(ctx, http.MethodGet, "/metrics", nil, nil)
			if err != nil {
				last[i] = err.Error()
				return false
			}
			last[i] = ""
			for line := range strings.Lines(string(a.body)) {
				if strings.HasPrefix(line, "gateway_peer") || strings.HasPrefix(line, "gateway_acting") {
					last[i] += line
				}
			}
			if !strings.Contains(last[i], fmt.Sprintf("gateway_peers %d\n", len(gs)-1)) {
				return false
			}
			acting += strings.Count(last[i], "gateway_acting 1\n")
		}
		return acting == 1
	}); err != nil {
		t.Fatalf("the gateways do not hear each other: %v: %q", err, last)
	}
}

// acting returns the gateway that acts, and the others.
func (gs gateways) acting(t testing.TB) (acting *gateway, others gateways) {
	t.Helper()
	for _, g := range gs {
		if g.metric(t, "gateway_acting") == 1 {
			acting = g
		} else {
			others = append(others, g)
		}
	}
	if acting == nil || len(others) != len(gs)-1 {
		t.Fatalf("got %d gateways that do not act, want all but one", len(others))
	}
	return acting, others
}

// container is the gateway's container.
func (g *gateway) container(t testing.TB) string {
	t.Helper()
	id := g.node.docker(t, "ps", "--quiet", "--filter", "label=com.docker.swarm.service.name="+peersService)
	if id == "" || strings.Contains(id, "\n") {
		t.Fatalf("got containers %q of the gateway on %s, want one", id, g.node.name)
	}
	return id
}

// A function's container reaches the gateways' port for callers, by the names that
// clients know, and the port of the gateways at none of their addresses; the name by
// which they find each other it cannot resolve.
func testPeersPort(t *testing.T, l *lab, gs gateways) {
	inside := func(n *node, script string) (string, error) {
		return n.tryDocker(t.Context(), "run", "--rm", "--network", functionsNetwork, baseImage, "sh", "-c", script)
	}
	get := func(n *node, address, port, path string) (string, error) {
		return inside(n, fmt.Sprintf(`printf 'GET %s HTTP/1.0\r\n\r\n' | nc -w 3 %s %s`, path, address, port))
	}
	n := l.node(1) // baseImage is here alone
	for _, g := range gs {
		var addresses map[string]struct{ IPAddress string }
		text := g.node.docker(t, "inspect", "--format", "{{json .NetworkSettings.Networks}}", g.container(t))
		if err := json.Unmarshal([]byte(text), &addresses); err != nil {
			t.Fatal(err)
		}
		if got := slices.Sorted(maps.Keys(addresses)); !slices.Contains(got, functionsNetwork) || !slices.Contains(got, peersNetwork) {
			t.Fatalf("got networks %q, want %s and %s", got, functionsNetwork, peersNetwork)
		}
		if got, err := get(n, addresses[functionsNetwork].IPAddress, "8080", "/healthz"); err != nil || !strings.HasSuffix(got, "OK") {
			t.Errorf("%s: got %q, %v for the callers' port, want OK", g.node.name, got, err)
		}
		for network, a := range addresses {
			if got, err := get(n, a.IPAddress, peersPort, "/"); err == nil || !strings.Contains(err.Error(), "nc: ") {
				t.Errorf("%s: a function gets %q, %v at the gateways' port of the address on %s, want no connection", g.node.name, got, err, network)
			}
		}
	}
	if got, err := inside(n, "nslookup tasks."+peersService+" 127.0.0.11"); err != nil || !strings.Contains(got, "Address: ") {
		t.Errorf("got %q, %v for the gateways' service, want their addresses", got, err)
	}
	if got, err := inside(n, "nslookup tasks._peers 127.0.0.11"); err == nil {
		t.Errorf("a function finds the gateways by their own name: %q", got)
	}
}
