package e2e

// The lab as tests see it: three nodes, each a Docker engine and a Swarm
// manager on a machine of its own, with cables that can be pulled.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	nodeCount = 3 // every one a manager: the loss of one keeps the quorum

	functionsNetwork = "functions"

	// dockerTimeout bounds every docker command: longer than a manager
	// without a quorum takes to refuse (20 s).
	dockerTimeout = time.Minute
)

// createNetwork is the README's command for the functions network.
var createNetwork = []string{"network", "create", "--driver", "overlay", "--attachable", "--subnet", "10.83.0.0/16", functionsNetwork}

// A lab is a Swarm made for the tests by swarmlab.sh.
type lab struct {
	name  string // prefix of its network namespaces
	dir   string // state and data
	net   string // first three octets of its addresses
	root  string // the repository
	nodes []*node
}

// A node is one machine of the lab.
type node struct {
	lab  *lab
	id   int    // from 1
	name string // its host name, as "docker node ls" shows it
	addr string // its IP address
}

// newLab describes the lab; it touches nothing.
func newLab() (*lab, error) {
	root, err := filepath.Abs("..")
	if err != nil {
		return nil, fmt.Errorf("find the repository: %w", err)
	}
	l := &lab{name: "fe2e", net: "10.77.0", root: root}
	if s := os.Getenv(envName); s != "" {
		l.name = s
	}
	if s := os.Getenv(envNet); s != "" {
		l.net = s
	}
	l.dir = "/var/tmp/" + l.name // on a disk: Docker's layers do not stack on tmpfs
	for i := range nodeCount {
		id := i + 1
		l.nodes = append(l.nodes, &node{
			lab: l, id: id,
			name: fmt.Sprintf("%s-%d", l.name, id),
			addr: fmt.Sprintf("%s.%d", l.net, 10+id),
		})
	}
	return l, nil
}

// useLab returns the lab that the test runs in. Without one the test is
// skipped, or fails where the end-to-end tests are required.
func useLab(t *testing.T) *lab {
	t.Helper()
	if missing := os.Getenv(envMissing); missing != "" {
		if os.Getenv(envRequired) == "required" {
			t.Fatalf("end-to-end tests are required, but cannot run: %s", missing)
		}
		t.Skipf("end-to-end tests do not run: %s", missing)
	}
	l, err := newLab()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// node returns the node with the given id, from 1.
func (l *lab) node(id int) *node { return l.nodes[id-1] }

// docker runs a docker command on node 1 and returns what it printed.
func (l *lab) docker(t testing.TB, args ...string) string {
	t.Helper()
	return l.node(1).docker(t, args...)
}

// docker runs a docker command on the node and returns what it printed to
// STDOUT, without white space around it. A failure ends the test.
func (n *node) docker(t testing.TB, args ...string) string {
	t.Helper()
	out, err := n.tryDocker(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// tryDocker is docker for commands that may fail, and for clean-ups, where
// the test's own context has ended.
func (n *node) tryDocker(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, dockerTimeout)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := n.dockerCommand(ctx, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("node %d: docker %s: %w: %s%s", n.id, strings.Join(args, " "), err, &stdout, &stderr)
	}
	return strings.TrimSpace(stdout.String()), nil
}

// dockerCommand is a docker command for the node's engine, with nothing of
// the user's own Docker settings.
func (n *node) dockerCommand(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.WaitDelay = 5 * time.Second
	cmd.Env = append(os.Environ(),
		"DOCKER_HOST=unix://"+n.socket(),
		"DOCKER_CONFIG="+filepath.Join(n.lab.dir, "config"),
		"DOCKER_BUILDKIT=0", // the builder that every engine has
	)
	return cmd
}

// socket is the path of the node's Docker socket on this machine.
func (n *node) socket() string { return fmt.Sprintf("%s/n%d/docker.sock", n.lab.dir, n.id) }

// cut unplugs the node's network cable until the end of the test.
func (n *node) cut(t testing.TB) {
	t.Helper()
	n.lab.must(t, "cut", n)
	t.Cleanup(func() {
		n.repair(t, "heal")
		n.lab.awaitManagers(t)
	})
}

// kill ends the node with its engine and every container at once, as a power
// cut does, until start, or the end of the test.
func (n *node) kill(t testing.TB) {
	t.Helper()
	n.lab.must(t, "kill", n)
	t.Cleanup(func() {
		if _, err := os.Stat(n.socket()); errors.Is(err, os.ErrNotExist) {
			n.repair(t, "start")
		}
		n.lab.awaitManagers(t)
	})
}

// start boots a killed node with the data that it had.
func (n *node) start(t testing.TB) {
	t.Helper()
	n.lab.must(t, "start", n)
}

// repair undoes cut or kill at the end of a test.
func (n *node) repair(t testing.TB, command string) {
	t.Helper()
	if err := n.lab.swarmlab(context.Background(), command, fmt.Sprint(n.id)); err != nil {
		t.Error(err)
	}
}

// awaitManagers waits at the end of a test, so that the next one finds a whole
// Swarm.
func (l *lab) awaitManagers(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := l.waitManagers(ctx); err != nil {
		t.Error(err)
	}
}

// waitManagers waits until every node is up, in the Swarm, and a manager that
// the others reach. Tests that take managers away call it first.
func (l *lab) waitManagers(ctx context.Context) error {
	var last string
	err := poll(ctx, 200*time.Millisecond, func() bool {
		out, err := l.node(1).tryDocker(ctx, "node", "ls", "--format", "{{.Status}} {{.ManagerStatus}}")
		if err != nil {
			out = err.Error()
		}
		last = out
		// Between two leaders every one is merely reachable.
		return strings.Count(out, "Ready Leader") == 1 && strings.Count(out, "Ready Reachable") == nodeCount-1
	})
	if err != nil {
		return fmt.Errorf("wait for the nodes: %w: %s", err, last)
	}
	return nil
}

// managers returns the leader of the managers and the others.
func (l *lab) managers(t testing.TB) (leader *node, others []*node) {
	t.Helper()
	list := l.docker(t, "node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}")
	for _, n := range l.nodes {
		if strings.Contains(list, n.name+" Leader") {
			leader = n
		} else {
			others = append(others, n)
		}
	}
	if leader == nil {
		t.Fatalf("no manager leads: %s", list)
	}
	return leader, others
}

// must runs a swarmlab command on a node.
func (l *lab) must(t testing.TB, command string, n *node) {
	t.Helper()
	if err := l.swarmlab(t.Context(), command, fmt.Sprint(n.id)); err != nil {
		t.Fatal(err)
	}
}

// swarmlab runs swarmlab.sh for this lab.
func (l *lab) swarmlab(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "bash", append([]string{filepath.Join(l.root, "e2e", "swarmlab.sh")}, args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it clears up behind itself
	cmd.WaitDelay = 30 * time.Second
	cmd.Env = append(os.Environ(), "SWARMLAB_NAME="+l.name, "SWARMLAB_DIR="+l.dir, "SWARMLAB_NET="+l.net)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("swarmlab %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// poll asks done again and again until it is true or ctx ends.
func poll(ctx context.Context, every time.Duration, done func() bool) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}
