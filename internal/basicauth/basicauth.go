// Package basicauth decides who may come in: by HTTP Basic (RFC 7617) with
// credentials from files, and nobody where there are none.
package basicauth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io/fs"
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
	userFile     = "basic-auth-user"
	passwordFile = "basic-auth-password"

	// A second login may look, and change nothing. It is there if its files are.
	readerUserFile     = "basic-auth-reader-user"
	readerPasswordFile = "basic-auth-reader-password"

	maxFile = 4 << 10

	// Failures that an address has for free. Each further attempt from it,
	// right or wrong, takes its turn, one every pause.
	freeFailures = 10
	pause        = time.Second
	maxTurns     = 5    // waiting for their turn; more get 429
	maxAddresses = 4096 // remembered; the one that waits least is forgotten first
	forgetAfter  = 10 * time.Minute
)

// An Authenticator guards a handler. The credentials are in the files
// basic-auth-user and basic-auth-password, and those of who may only look in
// basic-auth-reader-user and basic-auth-reader-password.
type Authenticator struct {
	dir   string // of the credentials; read at each request, so that a changed file counts at once
	open  bool   // without credentials loopback may come in: the local provider
	now   func() time.Time
	count func(outcome string) // outcomes: OK, Wrong, ...

	mu       sync.Mutex
	failures map[netip.Addr]*failures
}

// Outcomes of an authentication: a closed set, fit to label a metric.
const (
	OK     = "ok"
	None   = "none" // no credentials came
	Wrong  = "wrong"
	Closed = "closed" // there are none to compare with
	Busy   = "busy"   // too many failures
)

// Outcomes are all of them.
var Outcomes = []string{OK, None, Wrong, Closed, Busy}

// failures are the failures of one address.
type failures struct {
	count int
	last  time.Time
	turn  time.Time // of the next attempt
}

// New returns a guard with the credentials of dir. open lets this machine in where
// there are none; count is called with the outcome of each request.
func New(dir string, open bool, now func() time.Time, count func(outcome string)) *Authenticator {
	return &Authenticator{dir: dir, open: open, now: now, count: count, failures: map[netip.Addr]*failures{}}
}

// A Caller is who sends a request.
type Caller struct {
	User  string
	Reads bool // and is to change nothing
}

// Authenticate returns who sends r, or a Refusal that says why nobody may.
// It waits where the address has failed too often.
func (a *Authenticator) Authenticate(w http.ResponseWriter, r *http.Request) (Caller, error) {
	wantUser, wantPassword, err := a.Credentials()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if refusal := a.without(r); refusal != nil {
			a.count(Closed)
			return Caller{}, refusal
		}
		return Caller{User: "local"}, nil
	case err != nil:
		a.count(Closed)
		return Caller{}, fmt.Errorf("credentials: %w", err)
	}
	readerUser, readerPassword, err := a.login(readerUserFile, readerPasswordFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.count(Closed)
		return Caller{}, fmt.Errorf("credentials: %w", err)
	}
	hasReader := err == nil
	user, password, ok := r.BasicAuth()
	if !ok {
		a.count(None)
		return Caller{}, unauthorized(w)
	}
	if err := a.takeTurn(r); err != nil {
		return Caller{}, err
	}
	// Hashes have one length, so that the comparison takes the same time.
	owns := sameHash(user, wantUser)&sameHash(password, wantPassword) == 1
	reads := sameHash(user, readerUser)&sameHash(password, readerPassword) == 1 && hasReader
	if !owns && !reads {
		a.fail(Remote(r))
		a.count(Wrong)
		return Caller{}, unauthorized(w)
	}
	a.count(OK)
	return Caller{user, !owns}, nil
}

// without is what r is told where there are no credentials; nil: it may come in.
func (a *Authenticator) without(r *http.Request) *Refusal {
	switch {
	case a.open && isLoopback(r):
		return nil
	case a.open:
		return &Refusal{http.StatusForbidden, "without credentials only this machine may use the API, at a loopback address: put " + userFile + " and " + passwordFile + " into a folder and name it with -auth-dir"}
	}
	return &Refusal{http.StatusForbidden, "the API is closed: the gateway has no credentials; make the Docker secrets " + userFile + " and " + passwordFile + " and mount them, see docs/api.md"}
}

// Open reports whether r needs no login, or the Refusal that no login changes.
func (a *Authenticator) Open(r *http.Request) (bool, *Refusal) {
	if _, _, err := a.Credentials(); !errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	refusal := a.without(r)
	return refusal == nil, refusal
}

// A Refusal is what a caller is told that may not come in.
type Refusal struct {
	Status int
	Text   string
}

func (e *Refusal) Error() string { return e.Text }

func unauthorized(w http.ResponseWriter) error {
	w.Header().Set("WWW-Authenticate", `Basic realm="Restricted"`)
	return &Refusal{http.StatusUnauthorized, "invalid credentials"}
}

func sameHash(a, b string) int {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:])
}

// Credentials reads the login that may do everything. fs.ErrNotExist: one of its
// files is not there, or empty.
func (a *Authenticator) Credentials() (user, password string, err error) {
	return a.login(userFile, passwordFile)
}

func (a *Authenticator) login(userFile, passwordFile string) (user, password string, err error) {
	if user, err = readCredential(filepath.Join(a.dir, userFile)); err != nil {
		return "", "", err
	}
	if password, err = readCredential(filepath.Join(a.dir, passwordFile)); err != nil {
		return "", "", err
	}
	return user, password, nil
}

func readCredential(name string) (string, error) {
	info, err := os.Stat(name)
	if err != nil {
		return "", err
	}
	if info.Size() > maxFile {
		return "", fmt.Errorf("%s: more than %d bytes", name, maxFile)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	text := strings.TrimSpace(string(b))
	if text == "" {
		return "", fmt.Errorf("%s: empty: %w", name, fs.ErrNotExist)
	}
	return text, nil
}

// takeTurn waits until r's address may try again.
func (a *Authenticator) takeTurn(r *http.Request) error {
	a.mu.Lock()
	f := a.failures[Remote(r)]
	now := a.now()
	if f == nil || f.count < freeFailures || now.Sub(f.last) > forgetAfter {
		a.mu.Unlock()
		return nil
	}
	wait := f.turn.Sub(now)
	if wait > maxTurns*pause {
		a.mu.Unlock()
		a.count(Busy)
		return &Refusal{http.StatusTooManyRequests, "too many failed logins from this address"}
	}
	f.turn = now.Add(max(wait, 0) + pause)
	a.mu.Unlock()
	select {
	case <-time.After(max(wait, 0)):
		return nil
	case <-r.Context().Done():
		return context.Cause(r.Context())
	}
}

func (a *Authenticator) fail(addr netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	f := a.failures[addr]
	if f == nil {
		if len(a.failures) >= maxAddresses {
			a.forget(now)
		}
		f = &failures{}
		a.failures[addr] = f
	}
	if now.Sub(f.last) > forgetAfter {
		f.count = 0
	}
	f.count++
	f.last = now
}

// forget makes room: for all whose failures are old, or for the oldest.
func (a *Authenticator) forget(now time.Time) {
	var oldest netip.Addr
	for addr, f := range a.failures {
		if now.Sub(f.last) > forgetAfter {
			delete(a.failures, addr)
		} else if o := a.failures[oldest]; o == nil || f.last.Before(o.last) {
			oldest = addr
		}
	}
	if len(a.failures) >= maxAddresses {
		delete(a.failures, oldest)
	}
}

// Remote is the address that r came from, the zero Addr if it has none.
func Remote(r *http.Request) netip.Addr {
	addr, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return addr.Addr().Unmap().WithZone("")
}

// isLoopback reports whether r came from this machine and asked for it by a
// loopback name: a page of another origin, whose name was made to resolve to
// this machine, asks for its own (DNS rebinding).
func isLoopback(r *http.Request) bool {
	if !Remote(r).IsLoopback() {
		return false
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}
