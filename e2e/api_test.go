package e2e

// The control plane on a real Swarm, as OpenFaaS's clients use it.

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"faas/e2e/nodetest"
)

func TestAPI(t *testing.T) {
	l := useLab(t)
	g := startGateway(t, l.node(1), "-auth-dir", "/auth")
	testClosed(t, g)
	c := openAPI(t, g)
	old := &apiClient{gateway: c.gateway, inQuery: true}

	t.Run("login", func(t *testing.T) { testLogin(t, c) })
	t.Run("namespace in the body", func(t *testing.T) { testLife(t, c, "lifebody") })
	t.Run("namespace in the query", func(t *testing.T) { testLife(t, old, "lifequery") })
	t.Run("logs", func(t *testing.T) { testLogs(t, c) })
	t.Run("secrets", func(t *testing.T) { testSecrets(t, c) })
	t.Run("not made by the API", func(t *testing.T) { testForeign(t, l, c) })
	t.Run("changed by hand", func(t *testing.T) { testChangedByHand(t, l, c) })
	t.Run("image that nobody has", func(t *testing.T) { testNoImage(t, c) })
	t.Run("a client of OpenFaaS", func(t *testing.T) {
		c.removeLater(t, "strangers") // where it has ended early
		nodetest.Run(t, "openfaas", "*.test.js", append(os.Environ(), "NO_PROXY=*", "GATEWAY="+g.url, "API_USER="+apiUser, "API_PASSWORD="+apiPassword, "IMAGE="+catImage))
	})
	t.Run("redeployed under load", func(t *testing.T) { testRedeploy(t, l, c) })

	if left := l.docker(t, "service", "ls", "--quiet", "--filter", "label=faas.deployment"); left != "" {
		t.Errorf("got services %q left, want none", left)
	}
	if left := l.docker(t, "secret", "ls", "--quiet"); left != "" {
		t.Errorf("got secrets %q left, want none", left)
	}
}

// testClosed is about a gateway without credentials.
func testClosed(t *testing.T, g *gateway) {
	t.Helper()
	for _, header := range []http.Header{nil, {"Authorization": {"Bearer "}}, {"Authorization": {"Basic YWRtaW46YWRtaW4="}}} {
		a, err := g.call(t.Context(), http.MethodGet, "/system/functions", header, nil)
		if err != nil {
			t.Fatal(err)
		}
		if a.status != http.StatusForbidden || !strings.Contains(string(a.body), "basic-auth-user") {
			t.Errorf("without credentials: got %d %q, want 403 that says how to open it", a.status, a.body)
		}
	}
}

func testLogin(t *testing.T, c *apiClient) {
	for _, header := range []http.Header{nil, {"Authorization": {"Bearer "}}, {"Authorization": {"Basic YWRtaW46YWRtaW4="}}} {
		a, err := c.gateway.call(t.Context(), http.MethodGet, "/system/functions", header, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := a.header.Get("WWW-Authenticate"), `Basic realm="Restricted"`; a.status != http.StatusUnauthorized || got != want {
			t.Errorf("%v: got %d, %s, want 401, %s", header, a.status, got, want)
		}
	}
	if got := strings.TrimSpace(string(c.do(t, http.StatusOK, http.MethodGet, "/system/functions", ""))); got != "[]" {
		t.Errorf("got %s, want []", got)
	}
	var info struct {
		Provider struct {
			Provider, Orchestration string
			Version                 map[string]string
		}
		Version map[string]string
		Arch    string
	}
	decode(t, c.do(t, http.StatusOK, http.MethodGet, "/system/info", ""), &info)
	if info.Provider.Orchestration != "swarm" || info.Provider.Provider == "" || info.Provider.Provider == "faasd" || info.Arch == "" {
		t.Errorf("got %+v, want the provider, swarm and the architecture", info)
	}
	for _, v := range []map[string]string{info.Version, info.Provider.Version} {
		if v["release"] == "" || v["sha"] != imageRevision {
			t.Errorf("got version %v, want a release and sha %s", v, imageRevision)
		}
	}
	if got, want := strings.TrimSpace(string(c.do(t, http.StatusOK, http.MethodGet, "/system/namespaces", ""))), `["`+namespace+`"]`; got != want {
		t.Errorf("got namespaces %s, want %s", got, want)
	}
	c.do(t, http.StatusNotImplemented, http.MethodPost, "/system/namespace/", `{"name":"other"}`)
}

// testLife is the life of a function: made, called, looked at, scaled, replaced
// and removed.
func testLife(t *testing.T, c *apiClient, name string) {
	sent := fmt.Sprintf(`{"service":%q,"image":%q,"envProcess":"sh -c \"echo $GREETING; cat\"","envVars":{"GREETING":"hello"},
		"labels":{"team":"a","com.openfaas.scale.max":"3"},"annotations":{"topic":"t"},"limits":{"memory":"64Mi","cpu":"500m"},
		"requests":{"memory":"8Mi"},"constraints":["node.role == manager"],"readOnlyRootFilesystem":true}`, name, catImage)
	before := time.Now()
	c.removeLater(t, name)
	if got := c.deploy(t, sent); got != http.MethodPost {
		t.Errorf("got deployed by %s, want POST", got)
	}
	c.doIn(t, http.StatusBadRequest, http.MethodPost, "/system/functions", sent) // there is one
	f := c.waitReady(t, name)
	t.Logf("ready after %v", time.Since(before).Round(time.Millisecond))
	for _, called := range []string{name, name + "." + namespace} {
		if got, want := c.invoke(t, called, "world"), "hello\nworld"; got != want {
			t.Errorf("%s: got %q, want %q", called, got, want)
		}
	}
	if f.Image != catImage || f.Namespace != namespace || f.EnvProcess != `sh -c "echo $GREETING; cat"` || f.Replicas != 1 ||
		!maps.Equal(f.EnvVars, map[string]string{"GREETING": "hello"}) || !maps.Equal(f.Annotations, map[string]string{"topic": "t"}) ||
		!maps.Equal(f.Labels, map[string]string{"team": "a", "com.openfaas.scale.max": "3", "faas_function": name}) {
		t.Errorf("got %+v, want what was deployed", f)
	}
	if age := time.Since(f.CreatedAt); age < 0 || age > 10*time.Minute {
		t.Errorf("got created at %v, want a moment ago", f.CreatedAt)
	}
	listed := c.list(t)[name]
	if listed.Image != catImage || listed.InvocationCount != 2 || listed.AvailableReplicas != 1 {
		t.Errorf("got %+v in the list, want the image, 2 invocations and a replica", listed)
	}

	scale := func(n int) {
		t.Helper()
		c.doIn(t, http.StatusAccepted, http.MethodPost, "/system/scale-function/"+name, fmt.Sprintf(`{"serviceName":%q,"replicas":%d}`, name, n))
		if got := c.describe(t, name).Replicas; got != n {
			t.Errorf("got %d replicas wanted at once after scaling to %d", got, n)
		}
		c.waitFor(t, name, func(f apiFunction) bool { return f.AvailableReplicas == n })
	}
	scale(0)
	scale(2)
	if got, want := c.invoke(t, name, "again"), "hello\nagain"; got != want {
		t.Errorf("after scaling to 0 and back: got %q, want %q", got, want)
	}

	// Replaced: what is not in the new deployment is gone.
	if got := c.deploy(t, fmt.Sprintf(`{"service":%q,"image":%q,"envProcess":"cat"}`, name, catImage)); got != http.MethodPut {
		t.Errorf("got deployed by %s, want PUT", got)
	}
	f = c.describe(t, name)
	if f.EnvVars != nil || len(f.Annotations) != 0 || len(f.Labels) != 1 || f.EnvProcess != "cat" || f.Replicas != 2 {
		t.Errorf("got %+v after an update, want nothing of the first deployment but its replicas", f)
	}
	c.waitFor(t, name, func(apiFunction) bool { return c.invoke(t, name, "x") == "x" })

	c.remove(t, name)
	for _, gone := range []string{"/system/function/" + name, "/function/" + name} {
		c.do(t, http.StatusNotFound, http.MethodGet, gone, "")
	}
	c.doIn(t, http.StatusNotFound, http.MethodDelete, "/system/functions", `{"functionName":"`+name+`"}`)
}

func testLogs(t *testing.T, c *apiClient) {
	const name = "logged"
	c.removeLater(t, name)
	c.deploy(t, fmt.Sprintf(`{"service":%q,"image":%q,"envProcess":"sh -c \"cat >&2\"","labels":{"com.openfaas.scale.min":"2"}}`, name, catImage))
	c.waitFor(t, name, func(f apiFunction) bool { return f.AvailableReplicas == 2 })
	c.invoke(t, name, "first call")

	live := c.follow(t, name, "&tail=-1&follow=true")
	line, err := live.until("first call")
	if err != nil {
		t.Fatal(err)
	}
	if line.Name != name || line.Namespace != namespace || line.Instance == "" || time.Since(line.Timestamp).Abs() > 10*time.Minute {
		t.Errorf("got %+v, want the function, a replica and the time", line)
	}
	instances := map[string]bool{}
	for i := range 20 { // the replicas are on any node
		mark := fmt.Sprintf("call %d.", i)
		c.invoke(t, name, mark)
		if line, err = live.until(mark); err != nil {
			t.Fatal(err)
		}
		instances[line.Instance] = true
	}
	if len(instances) != 2 {
		t.Errorf("got lines of %v, want of both replicas", instances)
	}
	// A stream opens at once, whether there is a line yet or not.
	began := time.Now()
	quiet := c.follow(t, name, "&follow=true&since="+began.Add(time.Minute).UTC().Format(time.RFC3339))
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("got %v until a stream without a line was open, want no wait", took)
	}
	quiet.answer.Body.Close()
	past := c.follow(t, name, "&tail=-1&follow=false&since="+time.Now().Add(-time.Hour).UTC().Format(time.RFC3339))
	if _, err := past.until("call 19."); err != nil {
		t.Error(err)
	}
	if _, err := past.until(""); err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("got %v, want the end of the stream", err)
	}
	only := c.follow(t, name, "&follow=0&instance="+line.Instance)
	for only.lines.Scan() {
		if !strings.Contains(only.lines.Text(), line.Instance) {
			t.Errorf("got %s, want lines of %s alone", only.lines.Text(), line.Instance)
		}
	}
	c.remove(t, name)
}

func testForeign(t *testing.T, l *lab, c *apiClient) {
	createFunction(t, l, "stack_foreign", catImage, "--label", "com.openfaas.function=foreign")
	createFunction(t, l, "nofunction", catImage, "--label", "faas.function=false")
	c.gateway.waitAnswer(t, "foreign")
	c.waitReady(t, "foreign")
	c.do(t, http.StatusAccepted, http.MethodPost, "/system/scale-function/foreign", `{"serviceName":"foreign","replicas":2}`)
	c.waitFor(t, "foreign", func(f apiFunction) bool { return f.AvailableReplicas == 2 })
	c.do(t, http.StatusConflict, http.MethodDelete, "/system/functions", `{"functionName":"foreign"}`)
	c.do(t, http.StatusConflict, http.MethodPut, "/system/functions", `{"service":"foreign","image":"`+catImage+`"}`)
	for _, name := range []string{"nofunction", "gateway"} {
		c.do(t, http.StatusNotFound, http.MethodGet, "/system/function/"+name, "")
		c.do(t, http.StatusNotFound, http.MethodGet, "/system/logs?name="+name, "")
		c.do(t, http.StatusNotFound, http.MethodDelete, "/system/functions", `{"functionName":"`+name+`"}`)
		c.do(t, http.StatusNotFound, http.MethodPut, "/system/functions", `{"service":"`+name+`","image":"`+catImage+`"}`)
	}
	c.do(t, http.StatusBadRequest, http.MethodPost, "/system/functions", `{"service":"nofunction","image":"`+catImage+`"}`)
}

// What somebody changed with docker is shown, and the next deployment counts
// again.
func testChangedByHand(t *testing.T, l *lab, c *apiClient) {
	const name = "byhand"
	c.removeLater(t, name)
	deployment := fmt.Sprintf(`{"service":%q,"image":%q,"envVars":{"a":"1"}}`, name, catImage)
	c.deploy(t, deployment)
	c.waitReady(t, name)
	l.docker(t, "service", "update", "--detach", "--quiet", "--no-resolve-image", "--env-add", "b=2", "--container-label-add", "kept=yes", name)
	if got, want := c.describe(t, name).EnvVars, map[string]string{"a": "1", "b": "2"}; !maps.Equal(got, want) {
		t.Errorf("got variables %v, want %v", got, want)
	}
	c.deploy(t, deployment)
	if got, want := c.describe(t, name).EnvVars, map[string]string{"a": "1"}; !maps.Equal(got, want) {
		t.Errorf("got variables %v after the next deployment, want %v", got, want)
	}
	if got := l.docker(t, "service", "inspect", "--format", `{{.Spec.TaskTemplate.ContainerSpec.Labels.kept}}`, name); got != "yes" {
		t.Errorf("got container label %q, want that of others kept", got)
	}
	c.remove(t, name)
}

func testNoImage(t *testing.T, c *apiClient) {
	const name = "noimage"
	c.removeLater(t, name)
	c.deploy(t, fmt.Sprintf(`{"service":%q,"image":"registry.invalid/secret/nosuch:1"}`, name))
	f := c.waitFor(t, name, func(f apiFunction) bool { return strings.Contains(f.Reason, "No such image") })
	t.Logf("described as %q", f.Reason)
	if got := c.list(t)[name].Reason; got != f.Reason {
		t.Errorf("got reason %q in the list, want %q", got, f.Reason)
	}
	c.remove(t, name)
}

// A new version under load: nobody notices.
func testRedeploy(t *testing.T, l *lab, c *apiClient) {
	const name = "redeployed"
	const next = "faas-e2e/cat:next"
	var wg sync.WaitGroup
	for _, n := range l.nodes {
		wg.Go(func() {
			if _, err := n.tryDocker(t.Context(), "tag", catImage, next); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	deployment := func(image string) string {
		return fmt.Sprintf(`{"service":%q,"image":%q,"labels":{"com.openfaas.scale.min":"2","com.openfaas.scale.max":"2"}}`, name, image)
	}
	c.removeLater(t, name)
	c.deploy(t, deployment(catImage))
	c.waitFor(t, name, func(f apiFunction) bool { return f.AvailableReplicas == 2 })
	load := startLoad(t, loadConfig{
		url: c.gateway.url + "/function/" + name, rate: c.gateway.steadyRate(t, name, troubleBody), callers: 512,
		count: 60000, duration: 5 * time.Minute, timeout: time.Minute, body: troubleBody,
	})
	load.reach(t, 100)
	c.deploy(t, deployment(next))
	waitUpdated(t, l, name)
	load.last(t, 2*time.Second)
	report := load.end()
	loads := newLoadTable("A function redeployed over the API with another image")
	loads.load("two replicas, start-first", report)
	loads.print(t)
	if failed := report.failed(); len(failed) != 0 {
		t.Errorf("got %d of %d failed, want 0; the first: %+v", len(failed), len(report.results), failed[0])
	}
	if got := c.describe(t, name).Image; got != next {
		t.Errorf("got image %s, want %s", got, next)
	}
	c.remove(t, name)
}

// seesValue waits until a function answers with the value.
func (c *apiClient) seesValue(t *testing.T, name, want string, limit time.Duration) {
	t.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), readyTimeout)
	defer cancel()
	var got string
	if err := poll(ctx, 20*time.Millisecond, func() bool {
		got = c.invoke(t, name, "")
		return got == want
	}); err != nil {
		t.Fatalf("%s: got %q, want %q: %v", name, got, want, err)
	}
	took := time.Since(began)
	t.Logf("%s sees %q after %v", name, want, took.Round(time.Millisecond))
	if took > limit {
		t.Errorf("%s: got %v until it sees the value, want at most %v", name, took, limit)
	}
}
