package main

// The control plane over HTTP, with a provider in memory.

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"faas/internal/deployment"
)

// credentialFiles writes both files into a folder of their own.
func credentialFiles(t *testing.T, user, password string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"basic-auth-user": user, "basic-auth-password": password} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// A managedProvider can all that a provider can, in memory. It counts what it
// is asked for.
type managedProvider struct {
	*memoryProvider
	mu       sync.Mutex
	deployed map[string]deployment.Deployment
	values   map[string]string // of secrets
	lines    []logLine
	asked    int
}

func newManagedProvider() *managedProvider {
	return &managedProvider{memoryProvider: newMemoryProvider(), deployed: map[string]deployment.Deployment{}, values: map[string]string{}}
}

func (p *managedProvider) ask() func() {
	p.mu.Lock()
	p.asked++
	return p.mu.Unlock
}

func (p *managedProvider) deploy(_ context.Context, dep deployment.Deployment) error {
	defer p.ask()()
	p.deployed[dep.Service] = dep
	p.set(dep.Service, func(d *definition) { d.replicas = 1 })
	return nil
}

func (p *managedProvider) update(_ context.Context, dep deployment.Deployment) error {
	defer p.ask()()
	if _, ok := p.deployed[dep.Service]; !ok {
		return fmt.Errorf("update %s: %w", dep.Service, errNotFound)
	}
	p.deployed[dep.Service] = dep
	return nil
}

func (p *managedProvider) remove(_ context.Context, d definition) error {
	defer p.ask()()
	if _, ok := p.deployed[d.name]; !ok {
		return errForeign
	}
	delete(p.deployed, d.name)
	p.memoryProvider.remove(d.name)
	return nil
}

func (p *managedProvider) describe(_ context.Context, defs []definition) (map[string]deployment.Status, error) {
	defer p.ask()()
	known := map[string]deployment.Status{}
	for _, d := range defs {
		dep := p.deployed[d.name]
		known[d.service] = dep.Status()
	}
	return known, nil
}

func (p *managedProvider) trouble(context.Context, definition) (*trouble, error) {
	defer p.ask()()
	return &trouble{reason: "exit code 1"}, nil
}

func (p *managedProvider) logs(_ context.Context, _ definition, q logQuery) (func(func(logLine) error) error, error) {
	defer p.ask()()
	return func(emit func(logLine) error) error {
		for i, l := range p.lines {
			if q.tail < 0 || i >= len(p.lines)-q.tail {
				if err := emit(l); err != nil {
					return err
				}
			}
		}
		return nil
	}, nil
}

func (p *managedProvider) secrets(context.Context) ([]string, error) {
	defer p.ask()()
	names := []string{}
	for name := range p.values {
		names = append(names, name)
	}
	return names, nil
}

func (p *managedProvider) createSecret(_ context.Context, name string, value []byte) error {
	defer p.ask()()
	if _, ok := p.values[name]; ok {
		return errExists
	}
	p.values[name] = string(value)
	return nil
}

func (p *managedProvider) updateSecret(_ context.Context, name string, value []byte) error {
	defer p.ask()()
	if _, ok := p.values[name]; !ok {
		return errNotFound
	}
	p.values[name] = string(value)
	return nil
}

func (p *managedProvider) removeSecret(_ context.Context, name string) error {
	defer p.ask()()
	if _, ok := p.values[name]; !ok {
		return errNotFound
	}
	if name == "used" {
		return fmt.Errorf("secret %q: %w by a, b", name, errInUse)
	}
	delete(p.values, name)
	return nil
}

// apiRequest sends one request with the credentials, and returns the answer.
func apiRequest(t *testing.T, base, method, target, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, base+target, bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("admin", "secret")
	resp, err := (&http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSpace(string(text))
}

func startAPI(t *testing.T) (base string, p *managedProvider) {
	t.Helper()
	p = newManagedProvider()
	p.set("old", nil)
	return startGateway(t, p, "-auth-dir", credentialFiles(t, "admin", "secret")), p
}

// Each step is a request of a client, in the order in which they come.
func TestAPI(t *testing.T) {
	base, p := startAPI(t)
	p.lines = []logLine{{Instance: "t1", Text: "one"}, {Instance: "t1", Text: "two <b>"}}
	for i, c := range []struct {
		method, target, body string
		status               int
		want                 string // a part of the answer
	}{
		{"GET", "/system/info", "", 200, `"orchestration":"local"`},
		{"GET", "/system/namespaces", "", 200, `["openfaas-fn"]`},
		{"GET", "/system/namespace/x", "", 501, "there is one namespace"},
		{"POST", "/system/namespace/", `{"name":"x"}`, 501, "there is one namespace"},
		{"PUT", "/system/functions", `{"service":"f","image":"i"}`, 404, "not found"},
		{"POST", "/system/functions", `{"service":"f","image":"i","labels":{"l":"m"}}`, 202, ""},
		{"POST", "/system/functions", `{"service":"f","image":"i"}`, 400, "it exists already"},
		{"PUT", "/system/functions", `{"service":"f","image":"i:2","namespace":"openfaas-fn"}`, 202, ""},
		{"PUT", "/system/functions?namespace=other", `{"service":"f","image":"i"}`, 400, `there is no "other"`},
		{"POST", "/system/functions", `{"service":"f/g","image":"i"}`, 400, "service: "},
		{"POST", "/system/functions", `{"service":`, 400, "line 1, column"},
		{"POST", "/system/functions", `{"service":"g","image":"i"} x`, 400, "more than one value"},
		{"POST", "/system/functions", `{"service":"g","image":"` + strings.Repeat("x", maxDeployment) + `"}`, 413, "longer than"},
		{"GET", "/system/functions", "", 200, `"name":"f"`},
		{"GET", "/system/functions?namespace=other", "", 200, `[]`},
		{"GET", "/system/function/f", "", 200, `"image":"i:2"`},
		{"GET", "/system/function/f?namespace=openfaas-fn&usage=1", "", 200, `"reason":"exit code 1"`},
		{"GET", "/system/function/f.openfaas-fn", "", 200, `"name":"f"`},
		{"GET", "/system/function/f.other", "", 404, "not found"},
		{"GET", "/system/function/none", "", 404, `function "none" not found`},
		{"POST", "/system/scale-function/f", `{"serviceName":"f","replicas":3}`, 202, ""},
		{"GET", "/system/function/f", "", 200, `"replicas":3`},
		{"POST", "/system/scale-function/f", `{"replicas":0}`, 202, ""},
		{"GET", "/system/function/f", "", 200, `"replicas":0`},
		{"POST", "/system/scale-function/f", `{}`, 400, "replicas: want"},
		{"POST", "/system/scale-function/f", `{"replicas":-1}`, 400, "JSON"},
		{"POST", "/system/scale-function/f", `{"replicas":1001}`, 400, "replicas: want"},
		{"POST", "/system/scale-function/none", `{"replicas":1}`, 404, "not found"},
		{"GET", "/system/logs?name=f&tail=1&follow=false", "", 200, `"text":"two <b>"}`},
		{"GET", "/system/logs?name=f.openfaas-fn&follow=0", "", 200, `"name":"f","namespace":"openfaas-fn","instance":"t1"`},
		{"GET", "/system/logs", "", 422, "name: "},
		{"GET", "/system/logs?name=f&tail=x", "", 422, "tail: "},
		{"GET", "/system/logs?name=f&since=yesterday", "", 422, "since: "},
		{"GET", "/system/logs?name=none", "", 404, "not found"},
		{"GET", "/system/secrets", "", 200, "[]"},
		{"POST", "/system/secrets", `{"name":"used","value":"v"}`, 201, ""},
		{"POST", "/system/secrets", `{"name":"used","value":"v"}`, 409, "exists already"},
		{"PUT", "/system/secrets", `{"name":"used","value":"w","namespace":"openfaas-fn"}`, 202, ""},
		{"PUT", "/system/secrets", `{"name":"none","value":"w"}`, 404, "not found"},
		{"POST", "/system/secrets", `{"name":"e","value":""}`, 400, "value: "},
		{"POST", "/system/secrets", `{"name":"../e","value":"v"}`, 400, "name: "},
		{"GET", "/system/secrets?namespace=openfaas-fn", "", 200, `[{"name":"used","namespace":"openfaas-fn"}]`},
		{"DELETE", "/system/secrets", `{"name":"used"}`, 409, "it is in use by a, b"},
		{"DELETE", "/system/secrets", `{"name":"none"}`, 404, "not found"},
		{"POST", "/system/alert", `{"status":"firing","alerts":[{"status":"firing","labels":{"function_name":"f.openfaas-fn"}}]}`, 200, ""},
		{"POST", "/system/alert", `{}`, 400, "alerts: "},
		{"DELETE", "/system/functions", `{"functionName":"old"}`, 409, "not made by this API"},
		{"DELETE", "/system/functions?namespace=openfaas-fn", `{"functionName":"f"}`, 202, ""},
		{"DELETE", "/system/functions", `{"functionName":"f"}`, 404, "not found"},
		{"DELETE", "/system/functions", `{"functionName":""}`, 400, "functionName: "},
		{"GET", "/system/nothing", "", 404, ""},
		{"PATCH", "/system/functions", "", 405, ""},
	} {
		status, body := apiRequest(t, base, c.method, c.target, c.body)
		if status != c.status || !strings.Contains(body, c.want) {
			t.Errorf("step %d: %s %s %.80s: got %d %q, want %d with %q", i+1, c.method, c.target, c.body, status, body, c.status, c.want)
		}
	}
}

// What clients parse has the fields and types that they expect.
func TestAPIStatusShape(t *testing.T) {
	base, _ := startAPI(t)
	apiRequest(t, base, "POST", "/system/functions", `{"service":"f","image":"i"}`)
	_, body := apiRequest(t, base, "GET", "/system/functions", "")
	var list []map[string]any
	if err := json.Unmarshal([]byte(body), &list); err != nil || len(list) != 2 {
		t.Fatalf("got %q, %v, want two functions", body, err)
	}
	for _, f := range list {
		labels, ok := f["labels"].(map[string]any)
		if !ok || labels["faas_function"] != f["name"] {
			t.Errorf("got labels %v of %v, want faas_function among them", f["labels"], f["name"])
		}
		if _, ok := f["annotations"].(map[string]any); !ok {
			t.Errorf("got annotations %v, want an object", f["annotations"])
		}
		for _, absent := range []string{"envVars", "constraints", "secrets", "limits", "requests"} {
			if v, ok := f[absent]; ok {
				t.Errorf("got %s %v, want it absent", absent, v)
			}
		}
	}
}

// Nobody without the right credentials gets further than the door, whatever
// the method and path, and the provider is not asked for anything.
func TestAPIIsClosed(t *testing.T) {
	base, p := startAPI(t)
	closed := startGateway(t, p.memoryProvider, "-auth-dir", t.TempDir(), "-provider", "swarm")
	methods := []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"}
	paths := []string{"/system/", "/system/nothing", "/system/%2e%2e/metrics", "/system//functions"}
	for _, e := range new(api).endpoints() {
		_, path, found := strings.Cut(e.pattern, " ")
		if !found {
			path = e.pattern
		}
		paths = append(paths, strings.NewReplacer("{name}", "old", "{rest...}", "x").Replace(path))
	}
	if len(paths) < 15 {
		t.Fatalf("got %d paths, want the whole route table", len(paths))
	}
	before := p.asked
	for i, path := range paths {
		for _, method := range methods {
			for _, c := range []struct {
				base string
				auth string
				want int
			}{{base, "", 401}, {base, "Bearer ", 401}, {base, "Basic YWRtaW46", 401}, {closed, "", 403}, {closed, "Basic YWRtaW46c2VjcmV0", 403}} {
				req, err := http.NewRequestWithContext(t.Context(), method, c.base+path, strings.NewReader(`{"service":"f","image":"i"}`))
				if err != nil {
					t.Fatal(err)
				}
				if c.auth != "" {
					req.Header.Set("Authorization", c.auth)
				}
				// Each path from an address of its own: one that fails often is
				// made to wait.
				from := &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(i))}
				client := &http.Transport{DialContext: (&net.Dialer{LocalAddr: from}).DialContext, DisableKeepAlives: true}
				resp, err := client.RoundTrip(req)
				if err != nil {
					t.Fatalf("%s %s: %v", method, path, err)
				}
				resp.Body.Close()
				if resp.StatusCode != c.want {
					t.Errorf("%s %s with %q: got %d, want %d", method, path, c.auth, resp.StatusCode, c.want)
				}
			}
		}
	}
	if p.asked != before {
		t.Errorf("the provider was asked %d times, want never", p.asked-before)
	}
}

// Clients ask again and again until a function is ready. That nobody else calls
// it must not keep the gateway from looking.
func TestDescribeLooksForReplicas(t *testing.T) {
	base, p := startAPI(t)
	p.set("fresh", func(d *definition) { d.replicas = 1 })
	p.deployed["fresh"] = deployment.Deployment{Service: "fresh", Image: "i"}
	ctx, cancel := context.WithTimeout(t.Context(), resyncInterval/3)
	defer cancel()
	described := func(want string) {
		t.Helper()
		for {
			status, body := apiRequest(t, base, "GET", "/system/function/fresh", "")
			if status == 200 && strings.Contains(body, want) {
				return
			}
			if err := sleep(ctx, 20*time.Millisecond); err != nil {
				t.Fatalf("got %d %s, want %s", status, body, want)
			}
		}
	}
	described(`"availableReplicas":0`)
	p.setAddrs("fresh", startReplica(t, echoReplica)) // and no event says so
	described(`"availableReplicas":1`)
}
