package main

// Real programs for the tests that kill them: the gateway of this repository,
// faas-async, and NATS servers, each a process of its own.

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// soakSize is how many calls the long tests make: FAAS_SOAK, or what fits into
// every run.
func soakSize(t *testing.T, usual int) int {
	s := os.Getenv("FAAS_SOAK")
	if s == "" {
		return usual
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		t.Fatalf("FAAS_SOAK: %q is not a number", s)
	}
	return n
}

// What this test binary is when it runs itself.
const beNATS = "FAAS_ASYNC_BE_NATS"

var built struct {
	sync.Mutex
	dir string
}

func TestMain(m *testing.M) {
	if port := os.Getenv(beNATS); port != "" {
		os.Exit(runNATS(strings.Split(port, ",")))
	}
	code := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// build compiles a program of this repository once, without the race detector:
// what it is measured and killed as is what users run.
func build(t testing.TB, name, folder string) string {
	t.Helper()
	built.Lock()
	defer built.Unlock()
	if built.dir == "" {
		dir, err := os.MkdirTemp("", "faas-async-test-")
		if err != nil {
			t.Fatal(err)
		}
		built.dir = dir
	}
	path := filepath.Join(built.dir, name)
	if _, err := os.Stat(path); err == nil {
		return path
	}
	cmd := exec.Command("go", "build", "-o", path, ".")
	cmd.Dir = folder
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, out)
	}
	return path
}

// A program is one process at a time, that can be killed and started again.
type program struct {
	t    testing.TB
	name string
	path string
	args []string
	env  []string
	log  logBuffer

	restarting sync.Mutex

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{}
}

func startProgram(t testing.TB, name, path string, env []string, args ...string) *program {
	t.Helper()
	p := &program{t: t, name: name, path: path, args: args, env: env}
	p.start()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			log := p.log.String()
			t.Logf("%s said:\n%s", name, log[max(0, len(log)-8000):])
		}
	})
	return p
}

func (p *program) start() {
	p.t.Helper()
	cmd := exec.Command(p.path, p.args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "TMPDIR=" + os.TempDir()}, p.env...)
	cmd.Stdout, cmd.Stderr = &p.log, &p.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		p.t.Fatalf("%s: %v", p.name, err)
	}
	exited := make(chan struct{})
	go func() { cmd.Wait(); close(exited) }()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cmd, p.exited = cmd, exited
}

// kill ends the process as a power cut would, and returns when it is gone.
func (p *program) kill() { p.end(syscall.SIGKILL) }

func (p *program) end(sig syscall.Signal) {
	p.mu.Lock()
	cmd, exited := p.cmd, p.exited
	p.mu.Unlock()
	cmd.Process.Signal(sig)
	<-exited
}

// restart kills the process and starts it again.
func (p *program) restart() {
	p.restarting.Lock()
	defer p.restarting.Unlock()
	p.kill()
	p.start()
}

// rss is the memory that the process has in RAM, in bytes.
func (p *program) rss() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if s, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(s), "kB")), 10, 64)
			if err != nil {
				p.t.Fatal(err)
			}
			return n << 10
		}
	}
	p.t.Fatal("no VmRSS")
	return 0
}

// freePort returns a port of 127.0.0.1 that nobody listens on.
func freePort(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// healthy waits until a program answers /healthz.
func healthy(t testing.TB, address string) {
	t.Helper()
	within(t, time.Minute, address+" healthy", func() bool {
		resp, err := http.Get("http://" + address + "/healthz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == 200
	})
}

// startGateway starts the real gateway with functions that run already.
func startGateway(t testing.TB, functions map[string]string, more ...string) (p *program, address string) {
	t.Helper()
	address = freePort(t)
	args := append([]string{"-listen", address, "-provider", "local", "-drain", "0s"}, more...)
	for name, url := range functions {
		args = append(args, "-function", name+"="+url)
	}
	p = startProgram(t, "gateway", build(t, "gateway", ".."), nil, args...)
	healthy(t, address)
	return p, address
}

// startAsync starts the real faas-async on a port of its own.
func startAsync(t testing.TB, gateway string, args ...string) (p *program, address string) {
	t.Helper()
	address = freePort(t)
	p = startProgram(t, "faas-async", build(t, "faas-async", "."), nil, append([]string{
		"-listen", address, "-gateway", gateway, "-nats-listen", "none", "-auth-dir", t.TempDir(), "-poll", "1s", "-drain", "0s", "-min-free", "1MiB",
	}, args...)...)
	healthy(t, address)
	return p, address
}

// startCluster starts three NATS servers that know each other.
func startCluster(t testing.TB) (servers []*program, urls string) {
	t.Helper()
	clients, routes := make([]string, 3), make([]string, 3)
	for i := range 3 {
		clients[i], routes[i] = freePort(t), freePort(t)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		env := beNATS + "=" + strings.Join(append([]string{fmt.Sprint("n", i), t.TempDir(), clients[i], routes[i]}, routes...), ",")
		servers = append(servers, startProgram(t, fmt.Sprint("nats", i), self, []string{env, "GOCOVERDIR=" + t.TempDir()}))
	}
	return servers, "nats://" + strings.Join(clients, ",nats://")
}

// runNATS is a NATS server of a cluster: name, folder, address, route address,
// all routes.
func runNATS(args []string) int {
	port := func(address string) int {
		_, p, _ := net.SplitHostPort(address)
		n, _ := strconv.Atoi(p)
		return n
	}
	o := &server.Options{
		ServerName: args[0], StoreDir: args[1], Host: "127.0.0.1", Port: port(args[2]), JetStream: true, MaxPayload: 10 << 20, MaxPending: 256 << 20,
		JetStreamMaxStore: 1 << 40, NoSigs: true,
		Cluster: server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: port(args[3])},
		Routes:  server.RoutesFromStr("nats://" + strings.Join(args[4:], ",nats://")),
	}
	s, err := server.NewServer(o)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	s.ConfigureLogger()
	s.Start()
	s.WaitForShutdown()
	return 0
}

// A client makes calls of a program that may be dead at any time.
type client struct {
	t    testing.TB
	http *http.Client
	urls []string
}

func newClient(t testing.TB, addresses ...string) *client {
	c := &client{t: t, http: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
	for _, a := range addresses {
		c.urls = append(c.urls, "http://"+a)
	}
	return c
}

// post makes call n of a function, and returns its ID once there is a 202. It
// goes on to the next program after each failure.
func (c *client) post(ctx context.Context, n int, function string, body []byte) (string, error) {
	for try := 0; ; try++ {
		req, err := http.NewRequestWithContext(ctx, "POST", c.urls[(n+try)%len(c.urls)]+"/async-function/"+function, bytes.NewReader(body))
		if err != nil {
			return "", err
		}
		resp, err := c.http.Do(req)
		if err == nil {
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			switch resp.StatusCode {
			case 202:
				return resp.Header.Get("X-Call-Id"), nil
			case 503:
			default:
				return "", fmt.Errorf("got %s", resp.Status)
			}
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return "", err
		}
	}
}

// status asks any of the programs for a call; ok is false as long as none
// answers.
func (c *client) status(id string) (st callStatus, ok bool) {
	for _, u := range c.urls {
		resp, err := c.http.Get(u + "/async-function/" + id)
		if err != nil {
			continue
		}
		err = json.NewDecoder(resp.Body).Decode(&st)
		resp.Body.Close()
		if resp.StatusCode == 404 {
			return callStatus{Status: "unknown"}, true
		}
		if err == nil && resp.StatusCode == 200 {
			return st, true
		}
	}
	return st, false
}

// A recorder is a function that counts its runs by call ID.
type recorder struct {
	address string
	mu      sync.Mutex
	runs    map[string]int
	last    time.Time
}

func startRecorder(t testing.TB, takes time.Duration) *recorder {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{address: "http://" + ln.Addr().String(), runs: map[string]int{}}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		io.Copy(io.Discard, req.Body)
		if takes > 0 {
			time.Sleep(takes)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.runs[req.Header.Get("X-Call-Id")]++
		r.last = time.Now()
	})}
	go s.Serve(ln)
	t.Cleanup(func() { s.Close() })
	return r
}

func (r *recorder) of(id string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.runs[id]
}

func (r *recorder) total() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.runs)
}
