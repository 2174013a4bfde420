package e2e

// The stack of stack.yml: its images, deploying it, waiting for it, removing
// every trace of it.

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"faas/e2e/nodetest"
)

const (
	stackName       = "faas"
	prometheusImage = "faas-e2e/prometheus"
	grafanaImage    = "faas-e2e/grafana"
	nodeImage       = "faas-e2e/node"
)

// stackServices are the stack's services and how many replicas each has here.
var stackServices = map[string]int{
	"gateway": nodeCount, "async": 1, "prometheus": 1, "grafana": 1, "catservice": 1, "wordcount": 1, "nodeinfo": 1,
}

// prepareStack makes the images of the stack that other tests do not need.
func (l *lab) prepareStack(t *testing.T) {
	t.Helper()
	prometheus, node := nodetest.Program(t, "prometheus"), nodetest.Program(t, "node")
	n := l.node(1)
	if _, err := n.tryDocker(t.Context(), "image", "inspect", prometheusImage); err == nil {
		return // made by another test
	}
	for _, i := range []struct {
		image   string
		changes []string
		program string
	}{
		{prometheusImage, []string{`ENTRYPOINT ["` + prometheus + `"]`}, prometheus},
		{grafanaImage, []string{`CMD ["sh", "-c", "trap 'exit 0' TERM; httpd -f -p 3000 -h /etc/grafana & wait"]`}, ""},
		{nodeImage, nil, node},
	} {
		err := n.importImage(t.Context(), i.image, i.changes, func(w *archive) error {
			if err := w.addBase(t.Context()); err != nil || i.program == "" {
				return err
			}
			return w.addPrograms(t.Context(), i.program)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"wordcount", "nodeinfo"} {
		dir := "sample-functions/" + name
		if err := l.build(t.Context(), "faas/"+name, dir+"/Dockerfile", dir, "--build-arg", "NODE_IMAGE="+nodeImage); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.spread(t.Context(), prometheusImage, grafanaImage, "faas/wordcount", "faas/nodeinfo"); err != nil {
		t.Fatal(err)
	}
}

// addPrograms adds programs of this machine under their own paths, with the
// libraries that they are linked to.
func (w *archive) addPrograms(ctx context.Context, files ...string) error {
	paths := slices.Clone(files)
	for _, file := range files {
		out, err := exec.CommandContext(ctx, "ldd", file).Output()
		if err != nil && !bytes.Contains(out, []byte("not a dynamic")) {
			return fmt.Errorf("libraries of %s: %w", file, err)
		}
		paths = append(paths, regexp.MustCompile(`(?m)/\S+`).FindAllString(string(out), -1)...)
	}
	slices.Sort(paths)
	for _, p := range slices.Compact(paths) {
		if err := w.addPath(p, strings.TrimPrefix(p, "/")); err != nil {
			return err
		}
	}
	// Debian's Node.js reads some of its own modules from here.
	const modules = "/usr/share/nodejs"
	isNode := func(file string) bool { return filepath.Base(file) == "node" }
	if _, err := os.Stat(modules); !slices.ContainsFunc(files, isNode) || err != nil {
		return nil
	}
	return w.addTree(modules, strings.TrimPrefix(modules, "/"), func(string, bool) bool { return true })
}

// freeNetwork takes away the network that the lab's other tests use, as the
// stack makes it itself, and brings it back at the end of the test.
func (l *lab) freeNetwork(t *testing.T) {
	t.Helper()
	l.freeNetworkNow(t)
	t.Cleanup(func() {
		if _, err := l.node(1).tryDocker(context.Background(), createNetwork...); err != nil {
			t.Error(err)
		}
	})
}

func (l *lab) freeNetworkNow(t *testing.T) {
	t.Helper()
	l.removeNetwork(t, functionsNetwork)
}

// removeNetwork removes a network as soon as nothing uses it.
func (l *lab) removeNetwork(t *testing.T, network string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	var last error
	if err := poll(ctx, 200*time.Millisecond, func() bool {
		_, last = l.node(1).tryDocker(ctx, "network", "rm", network)
		return last == nil || strings.Contains(last.Error(), "not found")
	}); err != nil {
		t.Fatalf("remove the network %s: %v", network, last)
	}
}

// deployStack deploys stack.yml on node 1.
func (l *lab) deployStack(t *testing.T) {
	t.Helper()
	if out, err := l.node(1).tryDeploy(t.Context()); err != nil {
		t.Fatalf("stack deploy: %v: %s", err, out)
	}
}

// tryDeploy runs "docker stack deploy" with more variables than a user needs:
// for images that exist on the nodes alone, and for kernels without the
// ingress mesh.
func (n *node) tryDeploy(ctx context.Context, env ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, dockerTimeout)
	defer cancel()
	cmd := n.dockerCommand(ctx, "stack", "deploy", "--resolve-image", "never", "--compose-file", filepath.Join(n.lab.root, "stack.yml"), stackName)
	cmd.Env = append(cmd.Env, "PORT_MODE=host", "UPDATE_ORDER=stop-first",
		"PROMETHEUS_IMAGE="+prometheusImage, "GRAFANA_IMAGE="+grafanaImage)
	cmd.Env = append(cmd.Env, env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// waitStack waits until every service of the stack has its replicas.
func (l *lab) waitStack(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*readyTimeout)
	defer cancel()
	var list string
	if err := poll(ctx, 200*time.Millisecond, func() bool {
		list = l.docker(t, "stack", "services", "--format", "{{.Name}} {{.Replicas}}", stackName)
		for name, n := range stackServices {
			if !slices.Contains(strings.Split(list, "\n"), fmt.Sprintf("faas_%s %d/%d", name, n, n)) {
				return false
			}
		}
		return strings.Count(list, "\n")+1 == len(stackServices)
	}); err != nil {
		t.Fatalf("the stack does not converge: %s\n%s", list, l.docker(t, "stack", "ps", "--no-trunc", stackName))
	}
}

// removeStack removes the stack and waits until nothing of it is left on any
// node but volumes.
func (l *lab) removeStack(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*readyTimeout)
	defer cancel()
	var left []string
	if err := poll(ctx, 300*time.Millisecond, func() bool {
		left = nil
		// Again when a network was still in use the last time.
		if out, err := l.node(1).tryDocker(ctx, "stack", "rm", stackName); err != nil {
			left = append(left, out, err.Error())
		}
		look := func(n *node, args ...string) {
			args = append(args, "--quiet", "--filter", "label=com.docker.stack.namespace="+stackName)
			if out, err := n.tryDocker(ctx, args...); err != nil {
				left = append(left, err.Error())
			} else if out != "" {
				left = append(left, n.name+": "+args[0]+" "+out)
			}
		}
		for _, what := range []string{"service", "network", "config", "secret"} {
			look(l.node(1), what, "ls")
		}
		for _, n := range l.nodes {
			look(n, "container", "ls", "--all")
		}
		return left == nil
	}); err != nil {
		t.Errorf("stack rm leaves behind: %s", strings.Join(left, "\n"))
	}
}

// gatewayOf is the stack's gateway with a port of the node.
func gatewayOf(n *node) *gateway {
	return &gateway{node: n, url: "http://" + n.addr + ":8080", client: &http.Client{Timeout: time.Minute}}
}

// taskNode returns the node on which the one task of a service runs.
func (l *lab) taskNode(t *testing.T, service string) *node {
	t.Helper()
	name := l.docker(t, "service", "ps", "--filter", "desired-state=running", "--format", "{{.Node}}", service)
	for _, n := range l.nodes {
		if n.name == name {
			return n
		}
	}
	t.Fatalf("%s runs on %q, which is no node", service, name)
	return nil
}
