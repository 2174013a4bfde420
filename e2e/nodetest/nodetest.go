// Package nodetest runs tests that are written in JavaScript.
package nodetest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// longest is how long all tests of one Run may take.
const longest = 10 * time.Minute

// Run runs the tests in the folder that the pattern names with node --test and more
// flags. It fails for one that is skipped. It skips t where Node.js or the packages of
// the folder are missing, or fails if FAAS_E2E is "required".
func Run(t *testing.T, folder, pattern string, env []string, flags ...string) {
	t.Helper()
	node := Program(t, "node")
	if _, err := os.Stat(filepath.Join(folder, "node_modules")); err != nil {
		missing(t, filepath.Join(folder, "node_modules")+" is not there: run npm ci in its folder")
	}
	tests, err := filepath.Glob(filepath.Join(folder, pattern))
	if err != nil || len(tests) == 0 {
		t.Fatalf("got no tests: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), longest)
	defer cancel()
	cmd := exec.CommandContext(ctx, node, append(append([]string{"--test", "--test-reporter=spec"}, flags...), tests...)...)
	cmd.Env = env
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Errorf("node --test: %v", err)
	}
	if strings.Count(string(out), "\nℹ skipped 0") != 1 {
		t.Error("got tests that were skipped, want none")
	}
}

// Program returns the path of a program that the test needs. See Run for where it is
// missing.
func Program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		missing(t, name+" is not installed")
	}
	return path
}

func missing(t *testing.T, reason string) {
	t.Helper()
	if os.Getenv("FAAS_E2E") == "required" {
		t.Fatalf("end-to-end tests are required, but %s", reason)
	}
	t.Skip(reason)
}
