package e2e

// The gateway started where it cannot work: it ends at once with status 1 and
// says what to do.

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestGatewayRefusesToStart(t *testing.T) {
	l := useLab(t)
	const socket = "/var/run/docker.sock:/var/run/docker.sock"
	t.Run("no Docker socket", func(t *testing.T) {
		refused(t, l.node(1), []string{"-v /var/run/docker.sock:/var/run/docker.sock"}, gatewayImage)
	})
	t.Run("no such network", func(t *testing.T) {
		refused(t, l.node(1), []string{`"nosuch"`, "docker network create --driver overlay --attachable --subnet 10.83.0.0/16 nosuch"},
			"--volume", socket, gatewayImage, "-network", "nosuch")
	})
	t.Run("not an overlay network", func(t *testing.T) {
		refused(t, l.node(1), []string{`"bridge"`, "not an overlay"}, "--volume", socket, gatewayImage, "-network", "bridge")
	})
	t.Run("not a manager", func(t *testing.T) {
		n := l.node(3)
		l.setRole(t, t.Context(), n, "demote")
		t.Cleanup(func() { l.setRole(t, context.Background(), n, "promote") })
		ctx, cancel := context.WithTimeout(t.Context(), readyTimeout)
		defer cancel()
		if err := poll(ctx, 100*time.Millisecond, func() bool {
			return n.docker(t, "info", "--format", "{{.Swarm.ControlAvailable}}") == "false"
		}); err != nil {
			t.Fatalf("the demoted node is a manager still: %v", err)
		}
		refused(t, n, []string{"not a Swarm manager"}, "--volume", socket, gatewayImage)
	})
	t.Run("bad settings", func(t *testing.T) {
		got := runGateway(t, l.node(1), 2, gatewayImage, "-upstream-timeout", "soon", "-max-inflight", "-1")
		for _, want := range []string{"upstream-timeout", "max-inflight"} {
			if !strings.Contains(got, want) {
				t.Errorf("got %q, want it to name %q", got, want)
			}
		}
	})
}

// setRole demotes or promotes a node. It may take half a minute to be a manager
// again, for which only waitManagers waits.
func (l *lab) setRole(t testing.TB, ctx context.Context, n *node, command string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	var last error
	if err := poll(ctx, 100*time.Millisecond, func() bool {
		// The command fails when the Swarm changes the node meanwhile.
		_, last = l.node(1).tryDocker(ctx, "node", command, n.name)
		return last == nil
	}); err != nil {
		t.Errorf("%s %s: %v", command, n.name, last)
	}
}

// refused checks that a gateway ends with 1 and says each of the wanted
// things. The arguments are those of "docker run".
func refused(t *testing.T, n *node, wants []string, args ...string) {
	t.Helper()
	got := runGateway(t, n, 1, args...)
	for _, want := range wants {
		if !strings.Contains(strings.ReplaceAll(got, `\"`, `"`), want) {
			t.Errorf("got %q, want it to say %q", got, want)
		}
	}
	t.Logf("the user sees: %s", got)
}

// runGateway runs the image until it ends, and returns what it printed.
func runGateway(t *testing.T, n *node, status int, args ...string) string {
	t.Helper()
	const name = "refused"
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var output bytes.Buffer
	cmd := n.dockerCommand(ctx, append([]string{"run", "--rm", "--name", name}, args...)...)
	cmd.Stdout, cmd.Stderr = &output, &output
	err := cmd.Run()
	if ctx.Err() != nil {
		n.docker(t, "rm", "--force", name)
		t.Fatalf("the gateway has not ended: %s", &output)
	}
	got := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	if got != status {
		t.Errorf("got status %d, want %d: %s", got, status, &output)
	}
	return strings.TrimSpace(output.String())
}
