package e2e

// The stack as its users deploy it: stack.yml as it is, on three managers,
// with images built here. Prometheus is Debian's; in place of Grafana a file
// server shows what Grafana would have read.

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestStack(t *testing.T) {
	l := useLab(t)
	l.prepareStack(t)
	l.freeNetwork(t)
	if err := l.waitManagers(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.deployStack(t)
	t.Cleanup(func() { l.removeStack(t) })
	l.waitStack(t)

	// A gateway on each node, with a port of that node.
	var gateways []*gateway
	for _, n := range l.nodes {
		g := gatewayOf(n)
		g.waitAnswer(t, "catservice")
		gateways = append(gateways, g)
	}

	t.Run("samples", func(t *testing.T) {
		for _, g := range gateways {
			for _, tt := range []struct{ path, body, want string }{
				{"/function/catservice", "hello", `^hello$`},
				{"/function/wordcount?unit=lines", "one\ntwo\n", `^2\n$`},
				{"/wordcount", "one two three", `^3\n$`},
				{"/function/nodeinfo/a/b", "", `"path": "/a/b"`},
			} {
				a := g.post(t, tt.path, nil, []byte(tt.body))
				if a.status != http.StatusOK || !regexp.MustCompile(tt.want).Match(a.body) {
					t.Errorf("%s%s: got %d %q, want 200 and %q", g.node.name, tt.path, a.status, firstLine(a.body), tt.want)
				}
			}
		}
	})

	t.Run("only functions are functions", func(t *testing.T) {
		for _, name := range []string{"gateway", "async", "prometheus", "grafana"} {
			for _, path := range []string{"/function/" + name, "/function/faas_" + name} {
				if a := gateways[0].post(t, path, nil, nil); a.status != http.StatusNotFound {
					t.Errorf("%s: got status %d, want 404", path, a.status)
				}
			}
		}
	})

	// By the names that OpenFaaS's functions know. The address behind a name is Swarm's
	// virtual one, which some kernels cannot serve; tasks.NAME leads to the gateways.
	t.Run("a function calls the gateway", func(t *testing.T) {
		for _, name := range []string{"gateway", "gateway.openfaas"} {
			script := fmt.Sprintf(`nslookup %s 127.0.0.11 && a=$(nslookup tasks.%s 127.0.0.11 | sed -n 's/^Address: //p' | head -n 1) &&
				printf 'GET /healthz HTTP/1.0\r\n\r\n' | nc -w 3 "$a" 8080`, name, name)
			got, err := l.node(1).tryDocker(t.Context(), "run", "--rm", "--network", functionsNetwork, baseImage, "sh", "-c", script)
			if err != nil || !strings.HasSuffix(got, "OK") {
				t.Errorf("%s: got %q, %v, want OK", name, got, err)
			}
		}
	})

	t.Run("asynchronous calls", func(t *testing.T) { testStackAsync(t, gateways) })

	t.Run("a service beside the stack", func(t *testing.T) {
		createFunction(t, l, "beside", catImage)
		gateways[1].waitAnswer(t, "beside")
		// The network can go only when nothing uses it.
		l.docker(t, "service", "rm", "beside")
		gateways[1].waitStatus(t, "/function/beside", http.StatusNotFound)
	})

	t.Run("prometheus", func(t *testing.T) {
		p := l.findPrometheus(t)
		p.awaitValue(t, `sum(up{job="gateway"})`, fmt.Sprint(nodeCount))
		p.awaitValue(t, `sum(up{job="async"})`, "1")
		p.checkRules(t)
		p.awaitValue(t, `count(count by (instance) (gateway_build_info{revision="`+imageRevision+`"}))`, fmt.Sprint(nodeCount))
	})

	t.Run("cold start", func(t *testing.T) {
		g := gateways[2]
		const count = "gateway_cold_start_seconds_count"
		before := g.metric(t, count, `function_name="nodeinfo"`)
		l.docker(t, "service", "scale", "--detach", "faas_nodeinfo=0")
		waitReplicas(t, l, "faas_nodeinfo", 0)
		p := l.findPrometheus(t)
		p.awaitValue(t, `max(gateway_service_count{function_name="nodeinfo"})`, "0")
		if a := g.post(t, "/function/nodeinfo", nil, nil); a.status != http.StatusOK {
			t.Errorf("got status %d, want 200: %s", a.status, firstLine(a.body))
		}
		if got := g.metric(t, count, `function_name="nodeinfo"`) - before; got != 1 {
			t.Errorf("got %v cold starts, want 1", got)
		}
		p.awaitValue(t, `sum(`+count+`{function_name="nodeinfo"}) > bool 0`, "1")
	})

	t.Run("grafana", func(t *testing.T) {
		n := l.taskNode(t, "faas_grafana")
		for path, file := range map[string]string{
			"/provisioning/datasources/prometheus.yml": "grafana/provisioning/datasources/prometheus.yml",
			"/provisioning/dashboards/faas.yml":        "grafana/provisioning/dashboards/faas.yml",
			"/dashboards/faas.json":                    "grafana/dashboards/faas.json",
		} {
			want, err := os.ReadFile(filepath.Join(l.root, file))
			if err != nil {
				t.Fatal(err)
			}
			g := &gateway{node: n, url: "http://" + n.addr + ":3000", client: http.DefaultClient}
			got, err := g.call(t.Context(), http.MethodGet, path, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := diff(want, got.body); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
	})

	t.Run("deployed again", func(t *testing.T) {
		waitReplicas(t, l, "faas_nodeinfo", 1)
		before := strings.Fields(l.docker(t, "stack", "ps", "--quiet", "--filter", "desired-state=running", stackName))
		l.deployStack(t)
		l.waitStack(t)
		after := strings.Fields(l.docker(t, "stack", "ps", "--quiet", "--filter", "desired-state=running", stackName))
		slices.Sort(before)
		slices.Sort(after)
		if !slices.Equal(before, after) {
			t.Errorf("got tasks %v, want those from before, %v: nothing has changed", after, before)
		}
	})

	t.Run("control plane", func(t *testing.T) { l.testStackAPI(t, gateways) })

	t.Run("removed", func(t *testing.T) {
		l.removeStack(t)
		for _, n := range l.nodes {
			for _, left := range strings.Fields(n.docker(t, "volume", "ls", "--quiet")) {
				if left != "faas_prometheus-data" && left != "faas_async-data" {
					t.Errorf("%s: got the volume %q, want at most those of Prometheus and faas-async", n.name, left)
				}
				n.docker(t, "volume", "rm", left)
			}
		}
	})
}

// What users see when a deployment cannot work, as docs/operations.md has it.
func TestStackTroubles(t *testing.T) {
	l := useLab(t)
	l.prepareStack(t)
	l.freeNetwork(t)
	documented, err := os.ReadFile(filepath.Join(l.root, "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	// A quotation in the document may be broken into lines anywhere.
	page := strings.Join(strings.Fields(string(documented)), " ")
	says := func(t *testing.T, got, want string) {
		t.Helper()
		if !strings.Contains(got, want) {
			t.Errorf("got %q, want it to say %q", got, want)
		}
		if !strings.Contains(page, want) {
			t.Errorf("docs/operations.md does not have %q", want)
		}
	}

	t.Run("port taken", func(t *testing.T) {
		l.docker(t, "service", "create", "--detach", "--quiet", "--name", "other", "--publish", "8080:8080", "--no-resolve-image", baseImage, "sleep", "600")
		t.Cleanup(func() {
			if _, err := l.node(1).tryDocker(context.Background(), "service", "rm", "other"); err != nil {
				t.Error(err)
			}
			l.removeStack(t)
		})
		out, err := l.node(1).tryDeploy(t.Context(), "PORT_MODE=ingress")
		if err == nil {
			t.Error("got no error for a port in use, want one")
		}
		says(t, out, `port '8080' is already in use by service 'other'`)
	})

	t.Run("image missing", func(t *testing.T) {
		t.Cleanup(func() { l.removeStack(t) })
		if out, err := l.node(1).tryDeploy(t.Context(), "FAAS_TAG=nosuch"); err != nil {
			t.Fatalf("got %v, want no error as yet: %s", err, out)
		}
		ctx, cancel := context.WithTimeout(t.Context(), readyTimeout)
		defer cancel()
		var ps string
		if err := poll(ctx, 200*time.Millisecond, func() bool {
			ps = l.docker(t, "service", "ps", "--no-trunc", "--format", "{{.Error}}", "faas_wordcount")
			return strings.Contains(ps, "No such image: faas/wordcount:nosuch")
		}); err != nil {
			t.Errorf("got %q, want it to say that there is no such image", ps)
		}
		says(t, strings.ReplaceAll(ps, ":nosuch", ":latest"), "No such image: faas/wordcount:latest")
	})

	t.Run("network made by hand", func(t *testing.T) {
		l.docker(t, createNetwork...)
		t.Cleanup(func() { l.freeNetworkNow(t) })
		out, err := l.node(1).tryDeploy(t.Context())
		if err == nil {
			t.Error("got no error for a network that exists, want one")
		}
		says(t, out, "network with name functions already exists")
	})

	t.Run("not a manager", func(t *testing.T) {
		n := l.node(3)
		l.docker(t, "node", "demote", n.name)
		t.Cleanup(func() {
			// Who needs it as a manager waits for that.
			if _, err := l.node(1).tryDocker(context.Background(), "node", "promote", n.name); err != nil {
				t.Error(err)
			}
		})
		ctx, cancel := context.WithTimeout(t.Context(), readyTimeout)
		defer cancel()
		if err := poll(ctx, 100*time.Millisecond, func() bool {
			return n.docker(t, "info", "--format", "{{.Swarm.ControlAvailable}}") == "false"
		}); err != nil {
			t.Fatalf("the demoted node is a manager still: %v", err)
		}
		out, err := n.tryDeploy(t.Context())
		if err == nil {
			t.Error("got no error from a worker, want one")
		}
		says(t, out, `this node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again`)
	})
}

func TestImageSizes(t *testing.T) {
	l := useLab(t)
	sizes := newTable("Images, all of their layers", "image", "MB", "limit")
	for _, tt := range []struct {
		image string
		limit int
	}{{gatewayImage, 16_000_000}, {watchdogImage, 7_000_000}, {asyncImage, 24_000_000}} {
		var size int
		if _, err := fmt.Sscan(l.docker(t, "image", "inspect", "--format", "{{.Size}}", tt.image), &size); err != nil {
			t.Fatal(err)
		}
		if size >= tt.limit {
			t.Errorf("%s: got %d bytes, want fewer than %d", tt.image, size, tt.limit)
		}
		sizes.row(tt.image, fmt.Sprintf("%.1f", float64(size)/1e6), tt.limit/1_000_000)
	}
	sizes.print(t)
}
