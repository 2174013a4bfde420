package transport

// Benchmarks of the transport beside http.Transport, plain and under a
// ReverseProxy, all on loopback. BenchmarkTransportCPU is the one to quote:
// the load and the replica are other processes, so that what it counts is the
// proxy's CPU alone, and the two take turns within one run.

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func benchTransports() map[string]http.RoundTripper {
	return map[string]http.RoundTripper{
		"standard": &http.Transport{MaxIdleConnsPerHost: 1024, DisableCompression: true},
		"direct":   newTestTransport(),
	}
}

// benchProxy is the least that a gateway does around the transport: a copy
// buffer that is used again, and a deadline for every request.
func benchProxy(target string, rt http.RoundTripper) http.Handler {
	u, err := url.Parse(target)
	if err != nil {
		panic(err)
	}
	pool := &benchBuffers{}
	pool.New = func() any { return new([32 << 10]byte) }
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(u)
			// A gateway that can send a body again says so.
			r.Out.GetBody = func() (io.ReadCloser, error) { return nil, errors.ErrUnsupported }
		},
		Transport:  rt,
		BufferPool: pool,
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), time.Minute)
		defer cancel()
		proxy.ServeHTTP(w, r.WithContext(ctx))
	})
}

type benchBuffers struct{ sync.Pool }

func (p *benchBuffers) Get() []byte  { return p.Pool.Get().(*[32 << 10]byte)[:] }
func (p *benchBuffers) Put(b []byte) { p.Pool.Put((*[32 << 10]byte)(b)) }

func BenchmarkTransportRoundTrip(b *testing.B) {
	answer := bytes.Repeat([]byte("x"), 128)
	replica := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Write(answer)
	}))
	defer replica.Close()
	for _, name := range []string{"standard", "direct"} {
		for _, size := range []int{0, 128, 1 << 20} {
			b.Run(fmt.Sprintf("%s/body=%d", name, size), func(b *testing.B) {
				rt := benchTransports()[name]
				payload := bytes.Repeat([]byte("x"), size)
				ctx, cancel := context.WithCancel(b.Context())
				defer cancel()
				b.ReportAllocs()
				b.SetBytes(int64(size))
				for b.Loop() {
					req, err := http.NewRequestWithContext(ctx, "POST", replica.URL, bytes.NewReader(payload))
					if err != nil {
						b.Fatal(err)
					}
					resp, err := rt.RoundTrip(req)
					if err != nil {
						b.Fatal(err)
					}
					io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
			})
		}
	}
}

// BenchmarkTransportCPU reports the user and system time per request of a
// proxy on either transport, and the median of the rounds' ratios.
func BenchmarkTransportCPU(b *testing.B) {
	for _, size := range []int{0, 128, 1 << 20} {
		b.Run(fmt.Sprintf("body=%d", size), func(b *testing.B) { benchTransportCPU(b, size) })
	}
}

func benchTransportCPU(b *testing.B, size int) {
	const rounds, connections = 9, 16
	perRound := 16000
	if size > 1000 {
		perRound = 800
	}
	request := "GET /function/echo?a=b HTTP/1.1\r\nHost: gateway\r\nAccept: */*\r\nUser-Agent: bench\r\n\r\n"
	if size > 0 {
		request = fmt.Sprintf("POST /function/echo HTTP/1.1\r\nHost: gateway\r\nUser-Agent: bench\r\nContent-Length: %d\r\n\r\n%s",
			size, strings.Repeat("x", size))
	}
	replica := startBenchChild(b, "replica")
	spent := map[string][]float64{}
	for _, name := range []string{"standard", "direct"} {
		proxy := startBenchChild(b, "proxy", name, replica.url)
		replica.others = append(replica.others, proxy)
	}
	for b.Loop() {
		for range rounds {
			for i, name := range []string{"standard", "direct"} {
				proxy := replica.others[i]
				before := proxy.cpu(b)
				benchLoad(b, proxy.url, request, connections, perRound)
				spent[name] = append(spent[name], float64(proxy.cpu(b)-before)/float64(perRound)/1e3)
			}
		}
	}
	median := func(v []float64) float64 { slices.Sort(v); return v[len(v)/2] }
	var ratios []float64
	for i := range spent["direct"] {
		ratios = append(ratios, spent["direct"][i]/spent["standard"][i])
	}
	b.ReportMetric(median(ratios), "ratio")
	b.ReportMetric(median(spent["standard"]), "standard-µs/req")
	b.ReportMetric(median(spent["direct"]), "direct-µs/req")
	b.ReportMetric(0, "ns/op")
}

// A benchChild is this test binary in the role of a replica or a proxy.
type benchChild struct {
	url    string
	pid    int
	others []*benchChild
}

func startBenchChild(b *testing.B, role ...string) *benchChild {
	b.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestTransportBenchChild$")
	cmd.Env = append(os.Environ(), benchRole+"="+strings.Join(role, " "))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		stdin.Close()
		cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		b.Fatalf("start %q: %v", role, err)
	}
	return &benchChild{url: strings.TrimSpace(line), pid: cmd.Process.Pid}
}

// cpu asks the child what it has used so far, since the clock of /proc ticks
// too slowly.
func (c *benchChild) cpu(b *testing.B) time.Duration {
	b.Helper()
	resp, err := http.Get(c.url + "/cpu")
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.Fatal(err)
	}
	n, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return time.Duration(n)
}

const benchRole = "TRANSPORT_BENCH_ROLE"

// TestTransportBenchChild is not a test: the benchmark runs it in a process of
// its own, which ends when its standard input does.
func TestTransportBenchChild(t *testing.T) {
	role := strings.Fields(os.Getenv(benchRole))
	if len(role) == 0 {
		t.Skip("only a part of BenchmarkTransportCPU")
	}
	runBenchChild(role)
	os.Exit(0)
}

func runBenchChild(role []string) {
	mux := http.NewServeMux()
	if role[0] == "replica" {
		answer := bytes.Repeat([]byte("x"), 128)
		mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			w.Write(answer)
		})
	} else {
		mux.Handle("/", benchProxy(role[2], benchTransports()[role[1]]))
	}
	mux.HandleFunc("/cpu", func(w http.ResponseWriter, r *http.Request) {
		var usage syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprint(w, usage.Utime.Nano()+usage.Stime.Nano())
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("http://%s\n", listener.Addr())
	go http.Serve(listener, mux)
	io.Copy(io.Discard, os.Stdin)
}

// benchLoad sends a request n times over some connections, as cheaply as it
// can.
func benchLoad(b *testing.B, target, request string, connections, n int) {
	b.Helper()
	addr := strings.TrimPrefix(target, "http://")
	var wg sync.WaitGroup
	for range connections {
		wg.Go(func() {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				b.Error(err)
				return
			}
			defer conn.Close()
			br := bufio.NewReader(conn)
			for range n / connections {
				if _, err := io.WriteString(conn, request); err != nil {
					b.Error(err)
					return
				}
				resp, err := http.ReadResponse(br, nil)
				if err != nil {
					b.Error(err)
					return
				}
				if n, err := io.Copy(io.Discard, resp.Body); n != 128 || err != nil {
					b.Errorf("got %d bytes, error %v, want 128", n, err)
					return
				}
			}
		})
	}
	wg.Wait()
}
