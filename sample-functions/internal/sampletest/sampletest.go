// Package sampletest runs a sample function the way its image does: the same
// watchdog, with the settings that the sample's Dockerfile gives it.
package sampletest

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"faas/watchdog"
)

// Start serves the function in the working directory, which has to be the
// sample's folder, and returns its URL. What is in env beats the Dockerfile.
// A program needed that is not there skips the test, or fails it where
// FAAS_E2E is "required".
//
// The working directory is another one until the test has ended if the sample
// is written in Go: the one that the program was built in.
func Start(t *testing.T, env map[string]string) string {
	t.Helper()
	settings := dockerfileEnv(t, "Dockerfile")
	maps.Copy(settings, env)
	if _, err := os.Stat("main.go"); err == nil {
		build(t)
	}
	cfg, err := watchdog.ParseConfig(func(name string) string { return settings[name] })
	if err != nil {
		t.Fatalf("settings of the Dockerfile: %v", err)
	}
	cfg.Env = os.Environ()
	for name, value := range settings {
		cfg.Env = append(cfg.Env, name+"="+value)
	}
	h, err := watchdog.New(cfg, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatalf("new watchdog: %v", err)
	}

	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- h.Run(ctx) }()
	server := httptest.NewServer(h)
	t.Cleanup(func() {
		server.Close()
		cancel()
		if err := <-ran; err != nil && ctx.Err() == nil {
			t.Errorf("run: %v", err)
		}
	})
	return server.URL
}

// Need skips the test, saying why, where a program is not installed.
func Need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err == nil {
		return
	}
	if os.Getenv("FAAS_E2E") == "required" {
		t.Fatalf("%s is not installed", program)
	}
	t.Skipf("%s is not installed", program)
}

// An Answer is a response whose body has been read.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Do sends one request and follows no redirect.
func Do(t *testing.T, method, url string, body []byte, header http.Header) Answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(req.Header, header)
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("read answer: %v", err)
	}
	return Answer{resp.StatusCode, resp.Header, got}
}

// build compiles main.go as the Dockerfile does: alone, without a module.
func build(t *testing.T) {
	t.Helper()
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := exec.Command("go", "build", "-o", filepath.Join(dir, filepath.Base(wd)), "main.go")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	t.Chdir(dir)
}

// dockerfileEnv returns what the ENV instructions of a Dockerfile set.
func dockerfileEnv(t *testing.T, name string) map[string]string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	env := map[string]string{}
	for line := range strings.Lines(strings.ReplaceAll(string(data), "\\\n", " ")) {
		rest, ok := strings.CutPrefix(line, "ENV ")
		if !ok {
			continue
		}
		// name=value pairs with the quotes that the watchdog reads in fprocess too.
		pairs, err := watchdog.SplitCommand(strings.TrimSpace(rest))
		if err != nil {
			t.Fatalf("%s: %q: %v", name, line, err)
		}
		for _, pair := range pairs {
			key, value, ok := strings.Cut(pair, "=")
			if !ok {
				t.Fatalf("%s: %q is not name=value", name, pair)
			}
			env[key] = value
		}
	}
	return env
}
