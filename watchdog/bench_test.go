package watchdog

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"syscall"
	"testing"
)

// cpu reports the processor time per operation, of this program and of the
// processes that it has waited for; on a machine with other work it says more
// than the time that passes.
func cpu(b *testing.B, run func()) {
	used := func() (us int64) {
		for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
			var u syscall.Rusage
			syscall.Getrusage(who, &u)
			us += (u.Utime.Nano() + u.Stime.Nano()) / 1e3
		}
		return us
	}
	before := used()
	b.ResetTimer()
	run()
	b.ReportMetric(float64(used()-before)/float64(b.N), "cpu-µs/op")
}

// post sends b.N requests, four at a time.
func post(b *testing.B, url string) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	defer client.CloseIdleConnections()
	b.SetParallelism(4)
	cpu(b, func() {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				resp, err := client.Post(url, "text/plain", strings.NewReader("hello\n"))
				if err != nil {
					b.Error(err)
					return
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					b.Errorf("got status %d", resp.StatusCode)
				}
			}
		})
	})
}

func BenchmarkFork(b *testing.B) {
	url, _, _ := serve(b, testConfig(b, "cat"))
	post(b, url)
}

func BenchmarkForkWithoutVariables(b *testing.B) {
	url, _, _ := serve(b, testConfig(b, "cat", "cgi_headers=false", "prefix_logs=false"))
	post(b, url)
}

func BenchmarkPrefork(b *testing.B) {
	url, _, _ := serve(b, testConfig(b, "cat", "cgi_headers=false", "prefork=8"))
	post(b, url)
}

// BenchmarkHTTP and BenchmarkReverseProxy do the same work, with the watchdog
// in between and with nothing but httputil.ReverseProxy; the former should cost
// no more.
func BenchmarkHTTP(b *testing.B) {
	upstream := upstreamForBench(b)
	url, h, _ := serve(b, testConfig(b, "sleep 3600", "mode=http", "upstream_url="+upstream.String()))
	if !h.upstream.await(b.Context()) {
		b.Fatal("the upstream does not come up")
	}
	post(b, url)
}

func BenchmarkReverseProxy(b *testing.B) {
	upstream := upstreamForBench(b)
	srv := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite:   func(pr *httputil.ProxyRequest) { pr.SetURL(upstream) },
		Transport: &http.Transport{MaxIdleConnsPerHost: upIdle},
	})
	defer srv.Close()
	post(b, srv.URL)
}

func upstreamForBench(b *testing.B) *url.URL {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }))
	b.Cleanup(srv.Close)
	u, err := url.Parse(srv.URL)
	if err != nil {
		b.Fatal(err)
	}
	return u
}

func BenchmarkRequestEnviron(b *testing.B) {
	r := httptest.NewRequest("POST", "/a/b?c=d", strings.NewReader("hello"))
	for _, name := range []string{"Accept", "User-Agent", "X-Call-Id", "X-Start-Time", "X-Forwarded-For", "Content-Type"} {
		r.Header.Set(name, "value")
	}
	base := make([]string, 20)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := requestEnviron(base, r); err != nil {
			b.Fatal(err)
		}
	}
}
