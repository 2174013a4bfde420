package e2e

// A load on the gateway: requests with bodies at a fixed rate or from a fixed
// number of callers, each answer checked and counted.

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// loadConfig says what load to make. It ends after count requests or after
// duration, whichever comes first; both must be set.
type loadConfig struct {
	method string      // "": POST
	url    string      // of the function
	header http.Header // of each request; may be nil

	// rate is how many requests start in a second, whether earlier ones have
	// been answered or not, as callers who know nothing of each other do.
	// 0: each caller sends its next request when the last one is answered.
	rate    int
	callers int // at most so many requests at a time

	count    int
	duration time.Duration
	timeout  time.Duration // of one request

	// body makes the body of a request out of its number.
	body func(number int) []byte
	// check says what is wrong with the body of an answer with status 200;
	// nil: it must be what was sent.
	check func(number int, sent, got []byte) error
}

const outcomeOK = "200"

// A result is what became of one request.
type result struct {
	start   time.Duration // when it was due, since the load began
	took    time.Duration // from when it was due to the end of its answer
	outcome string        // a status, or what went wrong
	detail  string        // one line for whoever looks for the cause
}

// loadRun is a load that goes on.
type loadRun struct {
	config  loadConfig
	began   time.Time
	stop    context.CancelFunc // no new requests
	done    chan struct{}      // closed when each one has been answered
	ended   atomic.Int64       // requests of which it is known what became of them
	results []result           // by number; complete when done is closed
}

// startLoad starts a load, which ends with the test at the latest.
func startLoad(t testing.TB, c loadConfig) *loadRun {
	t.Helper()
	if c.count <= 0 || c.duration <= 0 || c.callers <= 0 || c.timeout <= 0 || c.body == nil {
		t.Fatalf("a load needs count, duration, callers, timeout and body, got %+v", c)
	}
	if c.check == nil {
		c.check = func(_ int, sent, got []byte) error { return diff(sent, got) }
	}
	starting, stop := context.WithTimeout(t.Context(), c.duration)
	r := &loadRun{config: c, began: time.Now(), stop: stop, done: make(chan struct{})}
	go r.run(t.Context(), starting)
	t.Cleanup(func() {
		stop()
		<-r.done
	})
	return r
}

// wait waits until the load has ended, and returns what became of it.
func (r *loadRun) wait() loadReport {
	<-r.done
	return loadReport{r.began, r.results}
}

// reach waits until it is known what became of n requests.
func (r *loadRun) reach(t testing.TB, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), r.config.duration)
	defer cancel()
	err := poll(ctx, 10*time.Millisecond, func() bool { return r.ended.Load() >= int64(n) })
	if err != nil {
		t.Fatalf("got %d requests answered, want %d: %v", r.ended.Load(), n, err)
	}
}

// last waits for as many more requests as start in d.
func (r *loadRun) last(t testing.TB, d time.Duration) {
	t.Helper()
	r.reach(t, int(r.ended.Load())+int(d.Seconds()*float64(r.config.rate)))
}

// end stops the load, waits for what is under way, and returns what became of
// it all.
func (r *loadRun) end() loadReport {
	r.stop()
	return r.wait()
}

// run sends requests until starting is done; ctx ends those under way.
func (r *loadRun) run(ctx, starting context.Context) {
	defer close(r.done)
	defer r.stop()
	transport := &http.Transport{MaxIdleConns: 0, MaxIdleConnsPerHost: r.config.callers, DisableCompression: true}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}

	results := make([]result, r.config.count)
	var next atomic.Int64
	var callers sync.WaitGroup
	for range r.config.callers {
		callers.Go(func() {
			for starting.Err() == nil {
				number := int(next.Add(1) - 1)
				if number >= r.config.count {
					return
				}
				due := time.Now()
				if r.config.rate > 0 {
					due = r.began.Add(time.Duration(number) * time.Second / time.Duration(r.config.rate))
					if !sleepUntil(starting, due) {
						return
					}
				}
				outcome, detail := r.send(ctx, client, number)
				results[number] = result{due.Sub(r.began), time.Since(due), outcome, detail}
				r.ended.Add(1)
			}
		})
	}
	callers.Wait()
	// The last numbers drawn may have come too late to be sent.
	r.results = slices.DeleteFunc(results, func(res result) bool { return res.outcome == "" })
}

// send sends one request and says what became of it.
func (r *loadRun) send(ctx context.Context, client *http.Client, number int) (outcome, detail string) {
	ctx, cancel := context.WithTimeout(ctx, r.config.timeout)
	defer cancel()
	sent := r.config.body(number)
	req, err := http.NewRequestWithContext(ctx, cmp.Or(r.config.method, http.MethodPost), r.config.url, bytes.NewReader(sent))
	if err != nil {
		return "bad request", err.Error()
	}
	for key, values := range r.config.header {
		req.Header[http.CanonicalHeaderKey(key)] = values
	}
	req.GetBody = nil // the transport shall send nothing twice behind our back
	res, err := client.Do(req)
	if err != nil {
		return errorOutcome(err), err.Error()
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		return "broken off: " + errorOutcome(err), err.Error()
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Sprint(res.StatusCode), firstLine(got)
	}
	if err := r.config.check(number, sent, got); err != nil {
		return "wrong body", err.Error()
	}
	return outcomeOK, ""
}

// errorOutcome puts errors of one kind under one name.
func errorOutcome(err error) string {
	var network net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "reset"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "closed"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return "timeout"
	}
	return "error"
}

// sleepUntil reports whether the time has come before ctx ended.
func sleepUntil(ctx context.Context, due time.Time) bool {
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// loadReport is what became of a load.
type loadReport struct {
	began   time.Time
	results []result
}

// between returns the part of the report about requests due at from or later
// and before to.
func (r loadReport) between(from, to time.Time) loadReport {
	part := loadReport{began: r.began}
	for _, res := range r.results {
		if due := r.began.Add(res.start); !due.Before(from) && due.Before(to) {
			part.results = append(part.results, res)
		}
	}
	return part
}

// failed returns the results that are not a right answer.
func (r loadReport) failed() []result {
	var failed []result
	for _, res := range r.results {
		if res.outcome != outcomeOK {
			failed = append(failed, res)
		}
	}
	return failed
}

// outcomes counts the results by outcome, as in "200: 99, reset: 1".
func (r loadReport) outcomes() string {
	counts := make(map[string]int)
	for _, res := range r.results {
		counts[res.outcome]++
	}
	var list []string
	for outcome, n := range counts {
		list = append(list, fmt.Sprintf("%s: %d", outcome, n))
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

// quantile returns the time that the share q of all requests, from 0 to 1,
// took at most. Of no request it is 0.
func (r loadReport) quantile(q float64) time.Duration {
	if len(r.results) == 0 {
		return 0
	}
	took := make([]time.Duration, len(r.results))
	for i, res := range r.results {
		took[i] = res.took
	}
	slices.Sort(took)
	return took[min(int(q*float64(len(took))), len(took)-1)]
}

// rate returns how many requests a second were due.
func (r loadReport) rate() float64 {
	if len(r.results) < 2 {
		return 0
	}
	first, last := r.results[0].start, r.results[len(r.results)-1].start
	return float64(len(r.results)-1) / (last - first).Seconds()
}

var loadHeader = []string{"requests", "per s", "failed", "p50", "p99", "slowest", "outcomes"}

// newLoadTable makes a table of loads.
func newLoadTable(title string) *table {
	return newTable(title, append([]string{"case"}, loadHeader...)...)
}

// load adds a load as a row.
func (t *table) load(name string, r loadReport) {
	ms := func(q float64) string { return fmt.Sprintf("%.0f ms", r.quantile(q).Seconds()*1e3) }
	t.row(name, len(r.results), fmt.Sprintf("%.0f", r.rate()), len(r.failed()), ms(0.5), ms(0.99), ms(1), r.outcomes())
}

// diff says where got differs from want.
func diff(want, got []byte) error {
	if bytes.Equal(want, got) {
		return nil
	}
	at := 0
	for at < min(len(want), len(got)) && want[at] == got[at] {
		at++
	}
	return fmt.Errorf("got %d bytes, want %d, the first difference is at %d", len(got), len(want), at)
}

func firstLine(b []byte) string {
	line, _, _ := strings.Cut(string(b), "\n")
	return line[:min(len(line), 200)]
}

// The load is the measure of other tests, so it is checked itself.
func TestLoadCountsWhatBecameOfEachRequest(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		switch number := string(body); {
		case strings.HasSuffix(number, "7"):
			http.Error(w, "full", http.StatusServiceUnavailable)
		case strings.HasSuffix(number, "8"):
			panic(http.ErrAbortHandler)
		case strings.HasSuffix(number, "9"):
			io.WriteString(w, number+"!")
		default:
			w.Write(body)
		}
	}))
	defer server.Close()
	server.Config.ErrorLog = nil
	for _, c := range []struct {
		name string
		rate int
	}{{"fixed rate", 1000}, {"fixed callers", 0}} {
		t.Run(c.name, func(t *testing.T) {
			report := startLoad(t, loadConfig{
				url: server.URL, rate: c.rate, callers: 4, count: 100, duration: time.Minute, timeout: 10 * time.Second,
				body: func(number int) []byte { return fmt.Append(nil, number) },
			}).wait()
			if got, want := report.outcomes(), "200: 70, 503: 10, closed: 10, wrong body: 10"; got != want {
				t.Errorf("got outcomes %q, want %q", got, want)
			}
			if got, want := len(report.failed()), 30; got != want {
				t.Errorf("got %d failed, want %d", got, want)
			}
			if got := report.between(report.began, report.began.Add(time.Hour)); len(got.results) != 100 {
				t.Errorf("got %d results within the hour, want 100", len(got.results))
			}
			if fastest, slowest := report.quantile(0), report.quantile(1); fastest <= 0 || fastest > slowest {
				t.Errorf("got fastest %v and slowest %v, want the first above 0 and not above the second", fastest, slowest)
			}
		})
	}
}
