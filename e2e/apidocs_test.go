package e2e

// The examples of docs/api.md, as somebody types them who follows the page.

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"faas/e2e/nodetest"
)

func TestAPIDocs(t *testing.T) {
	l := useLab(t)
	nodetest.Program(t, "curl")
	page, err := os.ReadFile(filepath.Join(l.root, "docs", "api.md"))
	if err != nil {
		t.Fatal(err)
	}
	examples := regexp.MustCompile("(?ms)^```sh\n(.*?)^```$").FindAllStringSubmatch(string(page), -1)
	if len(examples) < 14 {
		t.Fatalf("got %d examples, want one for each endpoint", len(examples))
	}
	c := startAPI(t, l.node(1))
	c.removeLater(t, "hello")
	for _, e := range examples {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		cmd := exec.CommandContext(ctx, "sh", "-euc", e[1])
		cmd.Env = append(os.Environ(), "FAAS="+c.gateway.url, "FAAS_LOGIN="+apiUser+":"+apiPassword)
		cmd.WaitDelay = time.Second
		out, err := cmd.CombinedOutput()
		cancel()
		t.Logf("$ %s%s", e[1], out)
		if err != nil {
			t.Fatalf("%v: the examples after this one rely on it", err)
		}
		if strings.Contains(e[1], "/system/logs") && !strings.Contains(string(out), "line=called") {
			t.Errorf("got %q, want a line of the function", out)
		}
	}
	if left := l.docker(t, "service", "ls", "--quiet", "--filter", "label=faas.deployment") + l.docker(t, "secret", "ls", "--quiet"); left != "" {
		t.Errorf("got %q left, want nothing", left)
	}
}
