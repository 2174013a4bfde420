package prometheus

// A real Prometheus scrapes a running gateway and answers every query of the
// dashboard, the rules and docs/metrics.md: with classic histograms, and with
// native ones.

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"faas/internal/tcptest"
)

// startTimeout is how long a program may take to start and numbers to appear:
// generous, for machines that do much else.
const startTimeout = time.Minute

// Panels and documented queries that may have no data here: nothing of what
// they count happens in this test.
var quiet = []string{
	"Cold starts", "Cold start p95", // the local functions have a replica from the start
	"gateway_cold_start_seconds",
	"gateway_provider_up == 0", "gateway_label_errors_total[1h]) > 0", "max(gateway_route_conflicts) > 0", "(gateway_function_trouble) > 0", "(gateway_service_outlier_count) > 0", "gateway_peers) > 0", "sum(gateway_acting) != 1", // nothing is wrong
	"p95_rate5m > 1",      // or slow
	"async_put_off_total", // or full
}

func TestQueries(t *testing.T) {
	prometheus := need(t, "prometheus")
	async := tcptest.Free(t)
	gateway := startGateway(t, "-async", "http://"+async)
	startAsync(t, async, gateway)
	keepBusy(t, gateway)

	for _, mode := range []struct{ name, features string }{
		{"classic histograms", ""},
		{"native histograms", "native-histograms"},
	} {
		t.Run(mode.name, func(t *testing.T) {
			p := startPrometheus(t, prometheus, gateway, async, mode.features)
			// Everything is there when rates over the recorded series are.
			p.await(t, `sum(function:gateway_function_errors:ratio_rate5m) > 0 and sum(function:gateway_functions_seconds:p99_rate5m) > 0`)

			native := mode.features != ""
			if got := len(p.query(t, `count_over_time(gateway_functions_seconds_bucket[1m])`)) == 0; got != native {
				t.Errorf("got no classic buckets: %v, want %v", got, native)
			}
			for _, q := range append(dashboardQueries(t), documentedQueries(t)...) {
				if isQuiet(q, native) {
					p.query(t, q.expr)
					continue
				}
				for _, value := range p.await(t, q.expr) {
					if value == "NaN" {
						t.Errorf("%s: got NaN: %s", q.panel, q.expr)
					}
				}
			}
			p.checkRules(t)
		})
	}
}

// The metrics that a gateway has are those that docs/metrics.md describes.
func TestGatewayMetricsAreDocumented(t *testing.T) {
	need(t, "prometheus")
	gateway := startGateway(t)
	documented := documentedMetrics(read(t, "../docs/metrics.md"))
	page := string(get(t, "http://"+gateway+"/metrics"))
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (gateway_\w+) (\w+)$`).FindAllStringSubmatch(page, -1) {
		if !slices.Contains(documented, m[1]) {
			t.Errorf("docs/metrics.md does not describe %s", m[1])
		}
		if row := "| `" + m[1] + "` | " + m[2] + " |"; !strings.Contains(read(t, "../docs/metrics.md"), row) {
			t.Errorf("docs/metrics.md: %s is a %s", m[1], m[2])
		}
	}
}

func isQuiet(q query, native bool) bool {
	// The example for classic buckets has none to work on, and the other way
	// round: the panels do without such a choice.
	if q.panel == "docs/metrics.md" && strings.Contains(q.expr, "gateway_functions_seconds") &&
		strings.Contains(q.expr, "_bucket") == native {
		return true
	}
	return slices.Contains(quiet, q.panel) ||
		slices.ContainsFunc(quiet, func(part string) bool { return strings.Contains(q.expr, part) })
}

// startGateway runs the gateway with local functions until the end of the
// test and returns its address. One of the functions answers, one fails,
// and one takes its time.
func startGateway(t *testing.T, more ...string) string {
	t.Helper()
	address := make(chan string, 1)
	start(t, regexp.MustCompile(`serving.* address=(\S+)`), address, build(t, ".."), append([]string{
		"-listen", "127.0.0.1:0", "-drain", "0s", "-alexa-verify",
		"-function", "echo=cat", "-function", "fail=false", "-function", "slow=sh -c 'sleep 0.1'",
		"-label", "fail:com.openfaas.retry.min_wait=100ms"}, more...)...)
	select {
	case a := <-address:
		return a
	case <-time.After(startTimeout):
		t.Fatal("the gateway did not say where it listens")
		return ""
	}
}

// startAsync runs faas-async at address until the end of the test.
func startAsync(t *testing.T, address, gateway string) {
	t.Helper()
	ready := make(chan string, 1)
	start(t, regexp.MustCompile(`(is ready)`), ready, build(t, "../async"),
		"-listen", address, "-gateway", "http://"+gateway, "-data", t.TempDir(), "-nats-listen", "none",
		"-auth-dir", t.TempDir(), "-drain", "0s", "-shutdown-timeout", "1s", "-min-free", "1MiB")
	select {
	case <-ready:
	case <-time.After(startTimeout):
		t.Fatal("faas-async did not say that it is ready")
	}
}

// build compiles the program in dir and returns its path.
func build(t *testing.T, dir string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "program")
	build := exec.Command("go", "build", "-o", bin, ".")
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", dir, err, out)
	}
	return bin
}

// start runs a program until the end of the test, ends it with SIGINT, and
// sends the first match of the pattern in what it writes.
func start(t *testing.T, pattern *regexp.Regexp, matched chan<- string, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = in, in
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	var log bytes.Buffer
	var wg sync.WaitGroup
	wg.Go(func() {
		defer out.Close()
		for lines := bufio.NewScanner(out); lines.Scan(); {
			fmt.Fprintln(&log, lines.Text())
			if m := pattern.FindStringSubmatch(lines.Text()); m != nil && matched != nil {
				matched <- m[1]
				matched = nil
			}
		}
	})
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		stuck := time.AfterFunc(startTimeout, func() { cmd.Process.Kill() })
		cmd.Wait()
		stuck.Stop()
		wg.Wait()
		if t.Failed() {
			t.Logf("%s wrote:\n%s", filepath.Base(name), tail(log.String(), 3000))
		}
	})
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

// keepBusy sends requests of each kind until the end of the test.
func keepBusy(t *testing.T, gateway string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	repeat := func(callers int, do func()) {
		for range callers {
			wg.Go(func() {
				for tick := time.NewTicker(50 * time.Millisecond); ; {
					do()
					select {
					case <-tick.C:
					case <-ctx.Done():
						tick.Stop()
						return
					}
				}
			})
		}
	}
	post := func(path, body string, callback ...string) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+gateway+path, strings.NewReader(body))
		if err != nil {
			return
		}
		for _, url := range callback {
			req.Header.Set("X-Callback-Url", url)
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	}
	repeat(1, func() { post("/function/echo", "hello") })
	repeat(1, func() { post("/function/fail", "") })
	repeat(1, func() { post("/async-function/echo", "hello", "http://"+gateway+"/function/echo") })
	repeat(1, func() { post("/async-function/fail", "") })
	repeat(1, func() { post("/function/nosuch", "") })
	repeat(1, func() { post("/no/such/route", "") })
	// More than one replica's worth: it is scaled up.
	repeat(25, func() { post("/function/slow", "") })
	// Alexa without Amazon's signature.
	repeat(1, func() {
		post("/", `{"session":{"sessionId":"s","application":{"applicationId":"a"}},"request":{"type":"IntentRequest","intent":{"name":"HostnameIntent"}}}`)
	})
	// Two lengths: a smuggler's request.
	repeat(1, func() {
		c, err := net.Dial("tcp", gateway)
		if err != nil {
			return
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(5 * time.Second))
		io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab")
		io.Copy(io.Discard, c)
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
}

// A server is a running Prometheus.
type server struct{ url string }

// startPrometheus runs Prometheus on the repository's configuration, with the
// gateway and faas-async at fixed addresses in place of the names in a Swarm's DNS,
// one more gateway that is down, and ten times as often.
func startPrometheus(t *testing.T, bin, gateway, async, features string) *server {
	t.Helper()
	config := read(t, "../prometheus.yml")
	discovery := regexp.MustCompile(`(?s)    dns_sd_configs:\n.*?\n\n`)
	targets := [][]string{{gateway, tcptest.Free(t)}, {async}}
	if n := len(discovery.FindAllString(config, -1)); n != len(targets) {
		t.Fatalf("got %d dns_sd_configs in prometheus.yml, want %d", n, len(targets))
	}
	config = discovery.ReplaceAllStringFunc(config, func(string) string {
		next := targets[0]
		targets = targets[1:]
		return fmt.Sprintf("    static_configs:\n      - targets: [%s]\n\n", strings.Join(next, ", "))
	})
	config = strings.ReplaceAll(config, ": 5s", ": 500ms")
	rules, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	config = strings.ReplaceAll(config, "- prometheus/", "- "+rules+"/")
	dir := t.TempDir()
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	address := tcptest.Free(t)
	start(t, regexp.MustCompile(`$^`), nil, bin, "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+address, "--enable-feature="+features)
	return &server{"http://" + address}
}

// await asks until the query has a result: on a busy machine a scrape may take
// too long, and what it would have brought is missing until the next.
func (s *server) await(t *testing.T, expr string) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		result, err := s.ask(ctx, expr)
		if err == nil && len(result) > 0 {
			return result
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("no data within %v: %s: %v", startTimeout, expr, err)
		}
	}
}

// query returns the values of a query; an error ends the test.
func (s *server) query(t *testing.T, expr string) []string {
	t.Helper()
	values, err := s.ask(t.Context(), expr)
	if err != nil {
		t.Fatalf("query %s: %v", expr, err)
	}
	return values
}

func (s *server) ask(ctx context.Context, expr string) ([]string, error) {
	var answer struct {
		Status, Error string
		Data          struct {
			ResultType string
			Result     []struct {
				Value     []any
				Histogram []any
			}
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/api/v1/query?query="+url.QueryEscape(expr), nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil, fmt.Errorf("decode answer: %w", err)
	}
	if answer.Status != "success" {
		return nil, errors.New(answer.Error)
	}
	if answer.Data.ResultType != "vector" {
		return nil, fmt.Errorf("got a %s, want a vector", answer.Data.ResultType)
	}
	var values []string
	for _, r := range answer.Data.Result {
		if len(r.Value) == 2 {
			values = append(values, fmt.Sprint(r.Value[1]))
		}
	}
	return values, nil
}

// checkRules checks that every rule has been evaluated without an error, and
// that the alert about the gateway that is down is on its way.
func (s *server) checkRules(t *testing.T) {
	t.Helper()
	var answer struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError, State string }
			}
		}
	}
	if err := json.Unmarshal(get(t, s.url+"/api/v1/rules"), &answer); err != nil {
		t.Fatal(err)
	}
	states := map[string]string{}
	for _, g := range answer.Data.Groups {
		for _, r := range g.Rules {
			states[r.Name] = r.State
			if r.Health != "ok" {
				t.Errorf("rule %s: got health %q, want ok: %s", r.Name, r.Health, r.LastError)
			}
		}
	}
	if want := strings.Count(read(t, "alerts.yml"), "- alert: ") + strings.Count(read(t, "recording.yml"), "- record: "); len(states) != want {
		t.Errorf("got %d rules, want %d", len(states), want)
	}
	if got := states["GatewayDown"]; got != "pending" && got != "firing" {
		t.Errorf("got GatewayDown %q, want it pending or firing", got)
	}
	if got := states["GatewayProviderDown"]; got != "inactive" {
		t.Errorf("got GatewayProviderDown %q, want inactive", got)
	}
}

func get(t *testing.T, url string) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("get %s: %s %v", url, resp.Status, err)
	}
	return body
}
