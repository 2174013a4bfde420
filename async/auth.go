package main

// Who may look at dead letters and run them again: whoever has the gateway's
// own login. The same credentials get us into the gateway's API.

import (
	"crypto/sha256"
	"crypto/subtle"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	// A wrong password costs its address a wait, twice as long each time.
	firstPenalty = 100 * time.Millisecond
	maxPenalty   = 5 * time.Second
	penaltyFor   = 5 * time.Minute
	maxPenalized = 1000 // addresses; the rest share one
)

// auth checks the logins of the management endpoints.
type auth struct {
	dir     string
	metrics *metrics
	log     *slog.Logger

	mu       sync.Mutex
	failures map[netip.Addr]failures
}

type failures struct {
	n    int
	last time.Time
}

func newAuth(dir string, m *metrics, log *slog.Logger) *auth {
	return &auth{dir: dir, metrics: m, log: log, failures: map[netip.Addr]failures{}}
}

// credentials reads the files, so that a change counts from the next request
// on. ok is false if there are none.
func (a *auth) credentials() (user, password string, ok bool) {
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(a.dir, name))
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(b))
	}
	user, password = read("basic-auth-user"), read("basic-auth-password")
	return user, password, user != "" && password != ""
}

// guard lets only those through to h who may.
func (a *auth) guard(h http.Handler) http.Handler {
	return http.NewCrossOriginProtection().Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, ok := a.credentials()
		from := remoteAddr(r)
		if !ok {
			if !from.IsLoopback() || !loopbackHost(r.Host) {
				refuse(w, http.StatusForbidden, "closed: put a user and a password into the files basic-auth-user and basic-auth-password in the folder of -auth-dir, or come from this machine itself")
				return
			}
			h.ServeHTTP(w, r)
			return
		}
		gotUser, gotPassword, _ := r.BasicAuth()
		if equal(gotUser, user)&equal(gotPassword, password) == 1 {
			a.forgive(from)
			h.ServeHTTP(w, r)
			return
		}
		if r.Header.Get("Authorization") != "" { // else it has not tried yet
			a.metrics.loginFailures.Inc()
			a.log.Warn("login failed", "from", from.String())
			if sleep(r.Context(), a.penalty(from)) != nil {
				return
			}
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="Restricted"`)
		refuse(w, http.StatusUnauthorized, "user or password is wrong")
	}))
}

// equal compares without telling by its time how far the two agree.
func equal(a, b string) int {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:])
}

// penalty counts a failure and returns the wait that it costs.
func (a *auth) penalty(from netip.Addr) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	for addr, f := range a.failures {
		if time.Since(f.last) > penaltyFor {
			delete(a.failures, addr)
		}
	}
	if _, known := a.failures[from]; !known && len(a.failures) >= maxPenalized {
		from = netip.Addr{}
	}
	f := a.failures[from]
	d := min(firstPenalty<<min(f.n, 10), maxPenalty)
	a.failures[from] = failures{f.n + 1, time.Now()}
	return d
}

func (a *auth) forgive(from netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.failures, from)
}

func remoteAddr(r *http.Request) netip.Addr {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return at.Addr().Unmap()
}

// loopbackHost tells whether a Host header names this machine itself. Any
// other may be a page's that had its own name resolve to us.
func loopbackHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.Trim(host, "[]")
	ip, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && ip.IsLoopback()
}
