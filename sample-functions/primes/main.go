// Primes answers GET /N with the Nth prime number.
//
// It is a server that stays up (mode http): the primes found for one caller
// are there for the next.
package main

import (
	"fmt"
	"log"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"sync"
	"time"
)

const maxN = 1_000_000

func main() {
	// The watchdog's own setting says where it looks for this server.
	upstream, err := url.Parse(os.Getenv("upstream_url"))
	if err != nil || upstream.Host == "" {
		log.Fatalf("upstream_url %q: want http://host:port", os.Getenv("upstream_url"))
	}
	server := &http.Server{
		Addr:              upstream.Host,
		Handler:           newHandler(),
		ReadHeaderTimeout: 5 * time.Second,
	}
	log.Fatal(server.ListenAndServe())
}

func newHandler() http.Handler {
	var found primes
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{n}", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(r.PathValue("n"))
		if err != nil || n < 1 || n > maxN {
			http.Error(w, fmt.Sprintf("want /N with N from 1 to %d", maxN), http.StatusBadRequest)
			return
		}
		p, known := found.nth(n)
		w.Header().Set("X-Known", strconv.FormatBool(known))
		fmt.Fprintln(w, p)
	})
	return mux
}

// primes are the first prime numbers, as many as somebody asked for.
type primes struct {
	mu    sync.Mutex
	found []int
}

// nth returns the nth prime and whether it was known before.
func (p *primes) nth(n int) (prime int, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n <= len(p.found) {
		return p.found[n-1], true
	}
	if len(p.found) == 0 {
		p.found = []int{2}
	}
	for c := p.found[len(p.found)-1] + 1; len(p.found) < n; c++ {
		if p.isPrime(c) {
			p.found = append(p.found, c)
		}
	}
	return p.found[n-1], false
}

// isPrime needs every prime up to the square root of c to be found already.
func (p *primes) isPrime(c int) bool {
	for _, d := range p.found {
		if d*d > c {
			break
		}
		if c%d == 0 {
			return false
		}
	}
	return true
}
