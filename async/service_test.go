package main

// What the tests of this module stand on: a faas-async in this process, on an
// embedded server of its own, and a gateway that is a few handlers.

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/semaphore"
)

// soon is how long a test waits for what should happen at once: generous, for
// machines that do much else.
const soon = 30 * time.Second

// A standIn is a gateway: it lists functions, and runs them.
type standIn struct {
	*httptest.Server

	mu        sync.Mutex
	functions map[string]*standInFunction
	silent    bool         // /system/functions is 404
	behind    http.Handler // runs what has no handler here; nil: nothing does
	logins    []string
}

type standInFunction struct {
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	serve       http.HandlerFunc
}

func newStandIn(t *testing.T) *standIn {
	g := &standIn{functions: map[string]*standInFunction{}}
	g.Server = httptest.NewServer(http.HandlerFunc(g.serve))
	t.Cleanup(g.Close)
	return g
}

func (g *standIn) function(name string, labels map[string]string, serve http.HandlerFunc) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.functions[name] = &standInFunction{Labels: labels, Annotations: map[string]string{}, serve: serve}
}

func (g *standIn) remove(name string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.functions, name)
}

func (g *standIn) serve(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/system/functions" {
		g.list(w, r)
		return
	}
	name, _, _ := strings.Cut(strings.TrimPrefix(r.URL.EscapedPath(), "/function/"), "/")
	g.mu.Lock()
	f := g.functions[strings.TrimSuffix(name, ".openfaas-fn")]
	g.mu.Unlock()
	if g.behind != nil && (f == nil || f.serve == nil) {
		g.behind.ServeHTTP(w, r)
		return
	}
	if f == nil {
		http.Error(w, "no such function", http.StatusNotFound)
		return
	}
	f.serve(w, r)
}

func (g *standIn) list(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	user, password, _ := r.BasicAuth()
	g.logins = append(g.logins, user+":"+password)
	if g.silent {
		http.NotFound(w, r)
		return
	}
	type status struct {
		Name string `json:"name"`
		*standInFunction
	}
	list := []status{}
	for name, f := range g.functions {
		list = append(list, status{name, f})
	}
	json.NewEncoder(w).Encode(list)
}

// testConfig is the settings of a faas-async for a test, with a folder and a
// free port of its own.
func testConfig(t *testing.T, gateway string, args ...string) config {
	t.Helper()
	c, err := parseConfig(append([]string{
		"-listen", "127.0.0.1:0", "-gateway", gateway, "-data", t.TempDir(), "-nats-listen", "127.0.0.1:0",
		"-auth-dir", t.TempDir(), "-poll", "100ms", "-drain", "0s", "-min-free", "1MiB",
	}, args...), func(string) string { return "" }, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A testService is a faas-async in this process.
type testService struct {
	*service
	url  string
	log  *logBuffer
	stop func() error
}

func startService(t *testing.T, c config) *testService {
	t.Helper()
	s := &testService{log: &logBuffer{}}
	log := slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	signals := make(chan os.Signal, 1)
	up, ended := make(chan *service, 1), make(chan error, 1)
	go func() { ended <- serve(context.Background(), &c, log, signals, func(s *service) { up <- s }) }()
	select {
	case s.service = <-up:
	case err := <-ended:
		t.Fatalf("serve: %v", err)
	}
	s.url = "http://" + s.address.String()
	s.stop = sync.OnceValue(func() error {
		signals <- syscall.SIGTERM
		return <-ended
	})
	t.Cleanup(func() {
		s.stop()
		if t.Failed() {
			t.Logf("faas-async said:\n%s", s.log)
		}
	})
	within(t, soon, "ready", func() bool { return s.store.ready.Load() })
	return s
}

// startBoth starts a stand-in for the gateway and a faas-async on it, once it
// knows the functions.
func startBoth(t *testing.T, g *standIn, args ...string) *testService {
	t.Helper()
	s := startService(t, testConfig(t, g.URL, args...))
	within(t, soon, "functions known", func() bool {
		return g.silent || !s.functions.current.Load().at.IsZero()
	})
	return s
}

// within waits until a condition holds, and fails the test if it does not.
func within(t testing.TB, d time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(d); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", d, what)
		}
	}
}

// A reply is an answer, read to its end.
type reply struct {
	code   int
	header http.Header
	body   string
}

func ask(t testing.TB, method, url, body string, header ...string) reply {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		} else {
			req.Header.Add(header[i], header[i+1])
		}
	}
	resp, err := (&http.Client{Timeout: time.Minute}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, string(b)}
}

// call makes an asynchronous call and returns its ID.
func (s *testService) call(t testing.TB, function, body string, header ...string) string {
	t.Helper()
	r := ask(t, "POST", s.url+"/async-function/"+function, body, header...)
	if r.code != http.StatusAccepted {
		t.Fatalf("call: got %d %s, want 202", r.code, r.body)
	}
	if r.header.Get("X-Call-Id") == "" || r.header.Get("X-Start-Time") == "" {
		t.Fatalf("call: got headers %v, want X-Call-Id and X-Start-Time", r.header)
	}
	return r.header.Get("X-Call-Id")
}

// status asks for a call; zero if it is not found.
func (s *testService) status(t testing.TB, id string) callStatus {
	t.Helper()
	r := ask(t, "GET", s.url+"/async-function/"+id, "")
	var st callStatus
	switch r.code {
	case http.StatusNotFound:
	case http.StatusOK:
		if err := json.Unmarshal([]byte(r.body), &st); err != nil {
			t.Fatal(err)
		}
	default:
		t.Fatalf("status: got %d %s", r.code, r.body)
	}
	return st
}

// awaitStatus waits until a call has the status.
func (s *testService) awaitStatus(t testing.TB, id, want string) callStatus {
	t.Helper()
	var st callStatus
	within(t, soon, fmt.Sprintf("call %s is %s", id, want), func() bool {
		st = s.status(t, id)
		return st.Status == want
	})
	return st
}

// metric reads one value of /metrics by its name with labels; 0 if it is not
// there.
// whileStopped stops the embedded server and calls f. After that the engine finds it
// stopped, and starts it anew.
func (s *testService) whileStopped(f func()) {
	e := s.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	stopped := e.server
	e.server = nil
	stopped.Shutdown()
	stopped.WaitForShutdown()
	f()
}

func (s *testService) metric(t testing.TB, name string) float64 {
	t.Helper()
	for line := range strings.Lines(ask(t, "GET", s.url+"/metrics", "").body) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			var f float64
			fmt.Sscan(value, &f)
			return f
		}
	}
	return 0
}

// A logBuffer is what was logged.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// keep collects requests that a handler saw.
type keep struct {
	mu   sync.Mutex
	list []seen
}

type seen struct {
	method, uri, host string
	header            http.Header
	body              string
}

func (k *keep) add(r *http.Request) seen {
	b, _ := io.ReadAll(r.Body)
	s := seen{r.Method, r.RequestURI, r.Host, r.Header.Clone(), string(b)}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.list = append(k.list, s)
	return s
}

func (k *keep) all() []seen {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]seen(nil), k.list...)
}

func (k *keep) ServeHTTP(w http.ResponseWriter, r *http.Request) { k.add(r) }

func bufioReader(r io.Reader) *bufio.Reader { return bufio.NewReader(r) }

func newMemory() *semaphore.Weighted { return semaphore.NewWeighted(acceptMemory) }

func mustURL(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// heldUntil keeps requests until release is closed, and then counts them.
func heldUntil(release <-chan struct{}, k *keep) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		<-release
		k.add(r)
	}
}
