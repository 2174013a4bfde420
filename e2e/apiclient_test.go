package e2e

// A client of the control plane that sends what OpenFaaS's clients send: method,
// path, headers and bodies, with the namespace in the old or in the new place.

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	apiUser     = "admin"
	apiPassword = "e2e-secret"
	namespace   = "openfaas-fn"
)

// apiFunction is what the tests read of a function's status.
type apiFunction struct {
	Name              string            `json:"name"`
	Image             string            `json:"image"`
	Namespace         string            `json:"namespace"`
	EnvProcess        string            `json:"envProcess"`
	EnvVars           map[string]string `json:"envVars"`
	Labels            map[string]string `json:"labels"`
	Annotations       map[string]string `json:"annotations"`
	Secrets           []string          `json:"secrets"`
	Replicas          int               `json:"replicas"`
	AvailableReplicas int               `json:"availableReplicas"`
	InvocationCount   float64           `json:"invocationCount"`
	CreatedAt         time.Time         `json:"createdAt"`
	Reason            string            `json:"reason"`
}

// An apiClient is logged in at a gateway.
type apiClient struct {
	gateway *gateway
	inQuery bool // the namespace is in the query, as in clients of 2022, not in the body
}

// openAPI gives the running gateway credentials: it has looked for them in
// /auth so far and found none.
func openAPI(t *testing.T, g *gateway) *apiClient {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "auth")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"basic-auth-user": apiUser, "basic-auth-password": apiPassword + "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	g.node.docker(t, "cp", dir, "gateway:/auth")
	return &apiClient{gateway: g}
}

// startAPI runs a gateway with an open control plane.
func startAPI(t *testing.T, n *node, flags ...string) *apiClient {
	t.Helper()
	return openAPI(t, startGateway(t, n, append([]string{"-auth-dir", "/auth"}, flags...)...))
}

// send sends one request as faas-cli does. The body may be "".
func (c *apiClient) send(ctx context.Context, method, target, body string) (answer, error) {
	header := http.Header{"User-Agent": {"faas-cli/0.17.4"}}
	if body != "" {
		header.Set("Content-Type", "application/json")
	}
	req := http.Request{Header: header}
	req.SetBasicAuth(apiUser, apiPassword)
	return c.gateway.call(ctx, method, target, header, []byte(body))
}

// do is send for a request that must have the status.
func (c *apiClient) do(t testing.TB, want int, method, target, body string) []byte {
	t.Helper()
	a, err := c.send(t.Context(), method, target, body)
	if err != nil {
		t.Fatal(err)
	}
	if a.status != want {
		t.Fatalf("%s %s %s: got %d %q, want %d", method, target, body, a.status, firstLine(a.body), want)
	}
	return a.body
}

// withNamespace adds the namespace to a request in the client's place for it.
// The fields are a JSON object.
func (c *apiClient) withNamespace(target, fields string) (string, string) {
	if c.inQuery {
		return target + "?namespace=" + namespace, fields
	}
	return target, strings.TrimSuffix(fields, "}") + `,"namespace":"` + namespace + `"}`
}

// doIn is do with the namespace.
func (c *apiClient) doIn(t testing.TB, want int, method, target, fields string) []byte {
	t.Helper()
	target, fields = c.withNamespace(target, fields)
	return c.do(t, want, method, target, fields)
}

// deploy does what "faas-cli deploy" does: PUT, and POST where there is no such
// function yet. It says which of them it was.
func (c *apiClient) deploy(t testing.TB, deployment string) (method string) {
	t.Helper()
	target, fields := c.withNamespace("/system/functions", deployment)
	a, err := c.send(t.Context(), http.MethodPut, target, fields)
	if err != nil {
		t.Fatal(err)
	}
	switch a.status {
	case http.StatusNotFound:
		c.do(t, http.StatusAccepted, http.MethodPost, target, fields)
		return http.MethodPost
	case http.StatusOK, http.StatusAccepted:
		return http.MethodPut
	}
	t.Fatalf("PUT %s: got %d %q, want 404, 200 or 202", fields, a.status, firstLine(a.body))
	return ""
}

// remove removes a function, and again at the end of the test if it is still
// there.
func (c *apiClient) remove(t testing.TB, name string) {
	t.Helper()
	c.doIn(t, http.StatusAccepted, http.MethodDelete, "/system/functions", `{"functionName":"`+name+`"}`)
}

// removeLater removes what the test leaves behind.
func (c *apiClient) removeLater(t testing.TB, name string) {
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), dockerTimeout)
		defer cancel()
		if t.Failed() {
			t.Logf("logs of %s end with:\n%s\n%s", name, c.gateway.node.logs("service", "ps", "--no-trunc", name), c.gateway.node.logs("service", "logs", "--tail", "20", name))
		}
		if _, err := c.send(ctx, http.MethodDelete, "/system/functions", `{"functionName":"`+name+`"}`); err != nil {
			t.Error(err)
		}
	})
}

// describe returns the status of a function.
func (c *apiClient) describe(t testing.TB, name string) (f apiFunction) {
	t.Helper()
	decode(t, c.do(t, http.StatusOK, http.MethodGet, "/system/function/"+name+"?namespace="+namespace+"&usage=1", ""), &f)
	return f
}

// list returns all functions by name.
func (c *apiClient) list(t testing.TB) map[string]apiFunction {
	t.Helper()
	var list []apiFunction
	decode(t, c.do(t, http.StatusOK, http.MethodGet, "/system/functions?namespace="+namespace, ""), &list)
	byName := make(map[string]apiFunction, len(list))
	for _, f := range list {
		byName[f.Name] = f
	}
	return byName
}

func decode(t testing.TB, body []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(body, v); err != nil {
		t.Fatalf("got %q: %v", firstLine(body), err)
	}
}

// waitFor describes a function until it is as wanted, as "faas-cli ready" does.
func (c *apiClient) waitFor(t testing.TB, name string, done func(apiFunction) bool) apiFunction {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), readyTimeout)
	defer cancel()
	var f apiFunction
	if err := poll(ctx, 50*time.Millisecond, func() bool {
		f = c.describe(t, name)
		return done(f)
	}); err != nil {
		t.Fatalf("%s does not become what is wanted: %v: %+v", name, err, f)
	}
	return f
}

func (c *apiClient) waitReady(t testing.TB, name string) apiFunction {
	t.Helper()
	return c.waitFor(t, name, func(f apiFunction) bool { return f.AvailableReplicas > 0 })
}

// invoke calls a function, which must answer with 200.
func (c *apiClient) invoke(t testing.TB, name, body string) string {
	t.Helper()
	a := c.gateway.post(t, "/function/"+name, nil, []byte(body))
	if a.status != http.StatusOK {
		t.Fatalf("%s: got status %d, want 200: %s", name, a.status, firstLine(a.body))
	}
	return string(a.body)
}

// A logStream is an open answer of /system/logs.
type logStream struct {
	answer *http.Response
	lines  *bufio.Scanner
}

// follow opens the logs of a function. The query has more than its name.
func (c *apiClient) follow(t testing.TB, name, query string) *logStream {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.gateway.url+"/system/logs?name="+name+"&namespace="+namespace+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth(apiUser, apiPassword)
	resp, err := c.gateway.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if got, want := resp.Header.Get("Content-Type"), "application/x-ndjson"; resp.StatusCode != http.StatusOK || got != want {
		t.Fatalf("logs of %s: got %d, %s, want 200, %s", name, resp.StatusCode, got, want)
	}
	return &logStream{resp, bufio.NewScanner(resp.Body)}
}

// An apiLogLine is one line of it.
type apiLogLine struct {
	Name, Namespace, Instance, Text string
	Timestamp                       time.Time
}

// until reads lines up to the first that has the text. io.EOF: there is none.
func (s *logStream) until(text string) (line apiLogLine, err error) {
	for s.lines.Scan() {
		line = apiLogLine{}
		if err := json.Unmarshal(s.lines.Bytes(), &line); err != nil {
			return line, fmt.Errorf("%q: %w", s.lines.Text(), err)
		}
		if text != "" && strings.Contains(line.Text, text) {
			return line, nil
		}
	}
	if err := s.lines.Err(); err != nil {
		return line, err
	}
	return line, fmt.Errorf("the stream has ended without %q", text)
}
