package e2e

// The control plane of the stack: closed as it is deployed by docker alone,
// opened by "make deploy".

import (
	"context"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

func (l *lab) testStackAPI(t *testing.T, gateways []*gateway) {
	for _, g := range gateways {
		testClosed(t, g)
	}
	t.Cleanup(func() {
		l.removeStack(t) // they can go only when nothing uses them
		for _, secret := range []string{"basic-auth-user", "basic-auth-password"} {
			if _, err := l.node(1).tryDocker(context.Background(), "secret", "rm", secret); err != nil {
				t.Error(err)
			}
		}
	})
	out := l.makeDeploy(t)
	said := regexp.MustCompile(`(?m)^control plane: password (\S{20,}) `).FindStringSubmatch(out)
	if said == nil || !strings.Contains(out, "control plane: user admin\n") {
		t.Fatalf("got %s, want a user and a password", out)
	}
	req := http.Request{Header: http.Header{}}
	req.SetBasicAuth("admin", said[1])
	ctx, cancel := context.WithTimeout(t.Context(), 2*readyTimeout)
	defer cancel()
	var open *gateway
	if err := poll(ctx, 300*time.Millisecond, func() bool {
		for _, g := range gateways {
			if a, err := g.call(ctx, http.MethodGet, "/system/functions", req.Header, nil); err == nil && a.status == http.StatusOK && strings.Contains(string(a.body), `"name":"catservice"`) {
				open = g
			}
		}
		return open != nil
	}); err != nil {
		t.Fatalf("the control plane does not open: %v", err)
	}
	if a, err := open.call(ctx, http.MethodGet, "/system/functions", nil, nil); err != nil || a.status != http.StatusUnauthorized {
		t.Errorf("got %d, %v without a login, want 401", a.status, err)
	}
	if out := l.makeDeploy(t); strings.Contains(out, "password ") {
		t.Errorf("got %s, want no password said again", out)
	}
}

// makeDeploy runs "make deploy" as tryDeploy runs docker.
func (l *lab) makeDeploy(t *testing.T) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), dockerTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "make", "-C", l.root, "--no-print-directory", "deploy", "DEPLOY_FLAGS=--resolve-image never")
	cmd.Env = append(l.node(1).dockerCommand(ctx).Env, "PORT_MODE=host", "UPDATE_ORDER=stop-first",
		"PROMETHEUS_IMAGE="+prometheusImage, "GRAFANA_IMAGE="+grafanaImage)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("make deploy: %v: %s", err, out)
	}
	return string(out)
}
