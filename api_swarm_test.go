package main

// The control plane in front of a Docker API that notes what it is asked.

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"faas/internal/basicauth"
)

// newSwarmAPI makes the control plane of p alone, without the loops of a
// gateway.
func newSwarmAPI(t *testing.T, p *swarmProvider, authDir string) *api {
	t.Helper()
	c, err := parseConfig([]string{"-provider", "swarm"}, func(string) string { return "" }, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	p.namespace = c.namespace
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	r := newRegistry(&c, p, log)
	r.metrics = newMetrics(r.functions)
	if err := r.load(t.Context()); err != nil {
		t.Fatal(err)
	}
	return newAPI(p, r, basicauth.New(authDir, false, time.Now, func(string) {}), newAlerts(time.Now), &c, log)
}

// Who may not come in causes no traffic at all at the Docker API: all methods,
// all paths of the route table, without credentials and with wrong ones.
func TestNoDockerTrafficWithoutLogin(t *testing.T) {
	docker := startDocker(t)
	p := connect(t)
	requests := func() int {
		docker.mu.Lock()
		defer docker.mu.Unlock()
		return len(docker.requests)
	}
	for _, c := range []struct {
		name, dir string
		auth      []string
		want      int
	}{
		{"closed", t.TempDir(), []string{"", "Bearer ", "Basic YWRtaW46c2VjcmV0"}, http.StatusForbidden},
		{"wrong", credentialFiles(t, "admin", "secret"), []string{"", "Bearer ", "Basic YWRtaW46d3Jvbmc=", "Basic OnNlY3JldA==", "Basic !"}, http.StatusUnauthorized},
	} {
		a := newSwarmAPI(t, p, c.dir)
		before := requests()
		tries := 0
		for _, e := range a.endpoints() {
			_, path, found := strings.Cut(e.pattern, " ")
			if !found {
				path = e.pattern
			}
			path = strings.NewReplacer("{name}", "catservice", "{rest...}", "x").Replace(path)
			for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"} {
				for _, auth := range c.auth {
					tries++
					r := httptest.NewRequest(method, path+"?name=catservice", strings.NewReader(`{"service":"f","image":"i","name":"s","value":"v","functionName":"catservice","replicas":1}`))
					r.RemoteAddr = fmt.Sprintf("10.0.%d.%d:1", tries/250, tries%250) // one that fails often has to wait
					if auth != "" {
						r.Header.Set("Authorization", auth)
					}
					w := httptest.NewRecorder()
					a.ServeHTTP(w, r)
					if w.Code != c.want {
						t.Errorf("%s: %s %s with %q: got %d, want %d", c.name, method, path, auth, w.Code, c.want)
					}
				}
			}
		}
		if got := requests() - before; got != 0 || tries < 300 {
			t.Errorf("%s: got %d requests at the Docker API by %d tries, want none by 300 at least", c.name, got, tries)
		}
	}
	// The count is one: with the right credentials there are some.
	a := newSwarmAPI(t, p, credentialFiles(t, "admin", "secret"))
	before := requests()
	r := httptest.NewRequest("GET", "/system/functions", nil)
	r.SetBasicAuth("admin", "secret")
	a.ServeHTTP(httptest.NewRecorder(), r)
	if requests() == before {
		t.Error("got no request at the Docker API with the right credentials, want some")
	}
}

// A manager without a quorum is 503, and the answer says when to come back;
// what else goes wrong at Docker is 500 and says nothing internal.
func TestDockerFailures(t *testing.T) {
	for _, c := range []struct {
		name   string
		docker http.HandlerFunc
		want   int
	}{
		{"no leader", refusal(500, "rpc error: code = Unknown desc = The swarm does not have a leader. It's possible that too few managers are online."), 503},
		{"unavailable", refusal(503, "rpc error: code = Unavailable desc = connection error"), 503},
		{"broken", refusal(500, "disk at /var/lib/docker is on fire"), 500},
	} {
		docker := startDocker(t)
		p := connect(t)
		a := newSwarmAPI(t, p, credentialFiles(t, "admin", "secret"))
		for _, what := range []string{"GET /services", "POST /services/create", "GET /services/catservice", "GET /secrets", "POST /secrets/create", "GET /services/f"} {
			docker.answer(what, c.docker)
		}
		for _, request := range []struct{ method, target, body string }{
			{"GET", "/system/functions", ""},
			{"GET", "/system/function/catservice", ""},
			{"POST", "/system/functions", `{"service":"f","image":"i"}`},
			{"PUT", "/system/functions", `{"service":"f","image":"i"}`},
			{"DELETE", "/system/functions", `{"functionName":"catservice"}`},
			{"POST", "/system/scale-function/catservice", `{"replicas":2}`},
			{"POST", "/system/alert", `{"alerts":[{"status":"firing","labels":{"function_name":"catservice"}}]}`},
			{"GET", "/system/logs?name=catservice&follow=true", ""},
			{"GET", "/system/secrets", ""},
			{"POST", "/system/secrets", `{"name":"s","value":"v"}`},
			{"PUT", "/system/secrets", `{"name":"s","value":"v"}`},
			{"DELETE", "/system/secrets", `{"name":"s"}`},
		} {
			r := httptest.NewRequest(request.method, request.target, strings.NewReader(request.body))
			r.SetBasicAuth("admin", "secret")
			w := httptest.NewRecorder()
			a.ServeHTTP(w, r)
			if w.Code != c.want || (w.Header().Get("Retry-After") != "") != (c.want == 503) || strings.Contains(w.Body.String(), "fire") || strings.Contains(w.Body.String(), "rpc") {
				t.Errorf("%s: %s %s: got %d %q, Retry-After %q, want %d", c.name, request.method, request.target, w.Code, w.Body, w.Header().Get("Retry-After"), c.want)
			}
		}
	}
}

// residentBytes is what this process has in RAM.
func residentBytes(t *testing.T) int64 {
	t.Helper()
	debug.FreeOSMemory()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Skipf("this system does not tell: %v", err)
	}
	var size, resident int64
	if _, err := fmt.Sscan(string(b), &size, &resident); err != nil {
		t.Fatal(err)
	}
	return resident * int64(os.Getpagesize())
}

// A client that reads 1 KiB a second of 200 MiB holds the engine up, and not
// the lines in memory.
func TestSlowLogReaderCostsNoMemory(t *testing.T) {
	const all, most, rounds = 200 << 20, 16 << 20, 6
	docker := startDocker(t)
	p := connect(t)
	const details = "2026-01-02T03:04:05.000000006Z com.docker.swarm.task.id=t1 "
	frame := binary.BigEndian.AppendUint32([]byte{1, 0, 0, 0}, uint32(len(details)+1000))
	frame = append(frame, details+strings.Repeat("x", 999)+"\n"...)
	var sent atomic.Int64
	docker.answer("GET /services/catservice", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"ID":"0aaaaaaaaaaaaaaaaaaaaaaaa","Spec":{"Name":"catservice","TaskTemplate":{"ContainerSpec":{}}}}`)
	})
	engineDone := make(chan error, 1)
	docker.answer("GET /services/0aaaaaaaaaaaaaaaaaaaaaaaa/logs", func(w http.ResponseWriter, _ *http.Request) {
		var err error
		for sent.Load() < all && err == nil {
			var n int
			n, err = w.Write(frame)
			sent.Add(int64(n))
		}
		engineDone <- err
	})
	a := newSwarmAPI(t, p, credentialFiles(t, "admin", "secret"))
	server := httptest.NewServer(a)
	defer server.Close()
	before := residentBytes(t)

	req, err := http.NewRequestWithContext(t.Context(), "GET", server.URL+"/system/logs?name=catservice&follow=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("admin", "secret")
	resp, err := server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewReaderSize(resp.Body, 1<<10)
	second := time.NewTicker(time.Second)
	defer second.Stop()
	var grown int64
	for range rounds {
		<-second.C // the pace that is to be shown
		text, err := lines.Peek(1 << 10)
		if err != nil {
			t.Fatalf("after %d bytes of the engine's: %v", sent.Load(), err)
		}
		lines.Discard(len(text))
		grown = max(grown, residentBytes(t)-before)
	}
	t.Logf("memory grew by %.1f MiB; %.1f MiB came from the engine", float64(grown)/(1<<20), float64(sent.Load())/(1<<20))
	if grown >= most {
		t.Errorf("got %d bytes more memory, want fewer than %d", grown, most)
	}
	if got := sent.Load(); got >= all/2 || got == 0 {
		t.Errorf("got %d bytes from the engine, want some, and that it is held up", got)
	}
	// Whoever goes away ends the stream at the engine at once.
	resp.Body.Close()
	if err := <-engineDone; err == nil {
		t.Error("the engine sent all, want the stream ended")
	}
}

// The fields of a line, as clients parse them.
func TestLogLineShape(t *testing.T) {
	line := logLine{Name: "f", Namespace: "n", Instance: "t", Timestamp: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), Text: "x"}
	got, err := json.Marshal(line)
	if want := `{"name":"f","namespace":"n","instance":"t","timestamp":"2026-01-02T03:04:05.000000006Z","text":"x"}`; err != nil || string(got) != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
}
