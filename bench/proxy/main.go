// Command proxy is the baseline: httputil.ReverseProxy on http.Transport and
// nothing else, with its connection pool and its copy buffers set as whoever
// measured it once would set them.
//
//	proxy ADDRESS UPSTREAM
//
// On /debug/vars of ADDRESS it answers how much it has allocated.
package main

import (
	_ "expvar" // registers /debug/vars
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"sync"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: proxy ADDRESS UPSTREAM")
		os.Exit(2)
	}
	target, err := url.Parse(os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, "proxy:", err)
		os.Exit(2)
	}
	http.Handle("/", &httputil.ReverseProxy{
		Rewrite:    func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport:  &http.Transport{MaxIdleConnsPerHost: 1024, DisableCompression: true},
		BufferPool: &buffers{},
	})
	err = http.ListenAndServe(os.Args[1], nil)
	fmt.Fprintln(os.Stderr, "proxy:", err)
	os.Exit(1)
}

type buffers struct{ pool sync.Pool }

func (p *buffers) Get() []byte {
	if b, ok := p.pool.Get().(*[32 << 10]byte); ok {
		return b[:]
	}
	return make([]byte, 32<<10)
}

func (p *buffers) Put(b []byte) { p.pool.Put((*[32 << 10]byte)(b)) }
