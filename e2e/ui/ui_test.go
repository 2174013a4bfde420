// Package ui tests the page at /ui/ in a browser, with functions of this machine.
// The tests themselves are JavaScript, run by Node.js. Those in the folder swarm
// are for a real Swarm, and run by the package above.
package ui

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"faas/e2e/nodetest"
)

func TestPage(t *testing.T) {
	chromium := nodetest.Program(t, "chromium")
	gateway, async := build(t, "../.."), build(t, "../../async")
	nodetest.Run(t, ".", "local/*.test.js", append(os.Environ(), "GATEWAY="+gateway, "ASYNC="+async, "CHROMIUM="+chromium), "--test-concurrency=1")
}

// build compiles the program in dir, and returns its path.
func build(t *testing.T, dir string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "program")
	cmd := exec.Command("go", "build", "-o", program, ".")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v: %s", dir, err, out)
	}
	return program
}
