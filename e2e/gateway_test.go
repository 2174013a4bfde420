package e2e

// The gateway and the functions of a test, started as the README says.

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// readyTimeout is how long the gateway and functions may take to become
// ready: generous, for machines that do much else.
const readyTimeout = time.Minute

// A gateway is the container "gateway" on one of the nodes.
type gateway struct {
	node   *node
	url    string
	client *http.Client
}

// startGateway runs the gateway on a node until the end of the test, and
// waits until it is healthy. The flags are the gateway's.
func startGateway(t testing.TB, n *node, flags ...string) *gateway {
	t.Helper()
	return startGatewayOn(t, n, functionsNetwork, flags...)
}

// startGatewayOn is startGateway for functions on another network.
func startGatewayOn(t testing.TB, n *node, network string, flags ...string) *gateway {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true}
	g := &gateway{
		node:   n,
		url:    "http://" + n.addr + ":8080",
		client: &http.Client{Transport: transport, Timeout: 2 * time.Minute},
	}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if t.Failed() {
			t.Logf("the gateway's log ends with:\n%s", n.logs("logs", "--tail", "50", "gateway"))
		}
		if _, err := n.tryDocker(context.Background(), "rm", "--force", "gateway"); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), readyTimeout)
	defer cancel()
	n.runGateway(t, ctx, network, append([]string{"-network", network}, flags...))
	err := poll(ctx, 50*time.Millisecond, func() bool {
		a, err := g.call(ctx, http.MethodGet, "/healthz", nil, nil)
		if err == nil {
			return a.status == http.StatusOK
		}
		if state := n.docker(t, "inspect", "--format", "{{.State.Status}}", "gateway"); state == "exited" {
			t.Fatal("the gateway has ended instead of becoming healthy")
		}
		return false
	})
	if err != nil {
		t.Fatalf("the gateway is not healthy: %v", err)
	}
	return g
}

// runGateway is the README's docker run.
func (n *node) runGateway(t testing.TB, ctx context.Context, network string, flags []string) {
	t.Helper()
	run := append([]string{
		"run", "--detach", "--name", "gateway", "--network", network, "--publish", "8080:8080",
		"--volume", "/var/run/docker.sock:/var/run/docker.sock", gatewayImage,
	}, flags...)
	err := poll(ctx, 500*time.Millisecond, func() bool {
		_, err := n.tryDocker(ctx, run...)
		if err == nil {
			return true
		}
		// An engine takes a network down with the last container on it, and
		// for that moment refuses the next one.
		if !regexp.MustCompile(`network \w+ not found`).MatchString(err.Error()) {
			t.Fatal(err)
		}
		n.docker(t, "rm", "--force", "gateway")
		return false
	})
	if err != nil {
		t.Fatalf("run the gateway: %v", err)
	}
}

// logs runs a docker command for its output, whatever becomes of it.
func (n *node) logs(args ...string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := n.dockerCommand(ctx, args...).CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%s(%v)", out, err)
	}
	return string(out)
}

// An answer is a whole HTTP response.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// call sends one request to the gateway and reads the whole answer. The
// header may be nil.
func (g *gateway) call(ctx context.Context, method, path string, header http.Header, body []byte) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, g.url+path, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	for key, values := range header {
		req.Header[http.CanonicalHeaderKey(key)] = values
	}
	res, err := g.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return answer{}, fmt.Errorf("read the answer to %s %s: %w", method, path, err)
	}
	return answer{res.StatusCode, res.Header, b}, nil
}

// post is call for a POST that must be answered, with whatever status.
func (g *gateway) post(t testing.TB, path string, header http.Header, body []byte) answer {
	t.Helper()
	a, err := g.call(t.Context(), http.MethodPost, path, header, body)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// metric returns the sum of the samples of a metric that carry all the given
// labels, as in metric(t, "up_total", `code="200"`). No sample is 0.
func (g *gateway) metric(t testing.TB, name string, labels ...string) float64 {
	t.Helper()
	a, err := g.call(t.Context(), http.MethodGet, "/metrics", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if a.status != http.StatusOK {
		t.Fatalf("got status %d for /metrics, want 200", a.status)
	}
	var sum float64
sample:
	for line := range strings.Lines(string(a.body)) {
		line = strings.TrimSpace(line)
		space := strings.LastIndexByte(line, ' ')
		if space < 0 || strings.HasPrefix(line, "#") {
			continue
		}
		sampled, set, _ := strings.Cut(strings.TrimSuffix(line[:space], "}"), "{")
		if sampled != name {
			continue
		}
		for _, l := range labels {
			if !strings.Contains(","+set+",", ","+l+",") {
				continue sample
			}
		}
		value, err := strconv.ParseFloat(line[space+1:], 64)
		if err != nil {
			t.Fatalf("the sample %q has no number", line)
		}
		sum += value
	}
	return sum
}

// createFunction makes a service of the functions network until the end of
// the test, as a user does. The arguments are more of "docker service create".
func createFunction(t testing.TB, l *lab, name, image string, args ...string) {
	t.Helper()
	createFunctionOn(t, l, functionsNetwork, name, image, args...)
}

// createFunctionOn is createFunction on another network.
func createFunctionOn(t testing.TB, l *lab, network, name, image string, args ...string) {
	t.Helper()
	create := []string{"service", "create", "--detach", "--quiet", "--name", name, "--network", network, "--no-resolve-image"}
	l.docker(t, append(append(create, args...), image)...)
	t.Cleanup(func() {
		if t.Failed() {
			ps, err := l.node(1).tryDocker(context.Background(), "service", "ps", "--no-trunc", name)
			t.Logf("tasks of %s: %s %v", name, ps, err)
			t.Logf("their logs end with:\n%s", l.node(1).logs("service", "logs", "--tail", "20", name))
		}
		if _, err := l.node(1).tryDocker(context.Background(), "service", "rm", name); err != nil && !strings.Contains(err.Error(), "not found") {
			t.Error(err)
		}
	})
}

// waitReplicas waits until exactly n tasks of a service run, as Swarm sees it.
func waitReplicas(t testing.TB, l *lab, service string, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), readyTimeout)
	defer cancel()
	var states string
	err := poll(ctx, 100*time.Millisecond, func() bool {
		states = l.docker(t, "service", "ps", "--format", "{{.CurrentState}}", "--filter", "desired-state=running", service)
		return strings.Count(states, "Running") == n
	})
	if err != nil {
		t.Fatalf("%s has not got %d replicas: %v: tasks are %q", service, n, err, states)
	}
}

// waitAnswer calls a function by name until it answers with 200. The gateway
// may need a moment to hear of it; any other failure ends the test.
func (g *gateway) waitAnswer(t testing.TB, function string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), readyTimeout)
	defer cancel()
	var last answer
	err := poll(ctx, 50*time.Millisecond, func() bool {
		a, err := g.call(ctx, http.MethodPost, "/function/"+function, nil, nil)
		if err != nil {
			t.Fatalf("wait for %s: %v", function, err)
		}
		last = a
		switch a.status {
		case http.StatusOK:
			return true
		case http.StatusNotFound, http.StatusServiceUnavailable, http.StatusBadGateway:
			return false
		}
		t.Fatalf("wait for %s: got status %d: %s", function, a.status, a.body)
		return false
	})
	if err != nil {
		t.Fatalf("%s does not answer: %v: last status %d: %s", function, err, last.status, last.body)
	}
}

// waitStatus calls a path until it answers with the given status.
func (g *gateway) waitStatus(t testing.TB, path string, status int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), readyTimeout)
	defer cancel()
	var last answer
	err := poll(ctx, 50*time.Millisecond, func() bool {
		last = g.post(t, path, nil, nil)
		return last.status == status
	})
	if err != nil {
		t.Fatalf("got status %d for %s, want %d: %s", last.status, path, status, last.body)
	}
}
