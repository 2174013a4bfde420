package peers

// The network: who there is, by DNS, and what they say, by HTTP.

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	lookupInterval = time.Second
	lookupTimeout  = time.Second
	dialTimeout    = 500 * time.Millisecond
	askTimeout     = time.Second

	// claimTimeout is short, as a caller waits.
	claimTimeout = 500 * time.Millisecond

	maxPeers       = 64      // addresses that are asked
	maxHeaderBytes = 4 << 10 // of an answer and of a question
)

// Options configure a Node. All but Claimed and Forgotten are required.
type Options struct {
	Book   *Book
	Names  []string // host:port of the gateways; a host may stand for several
	Listen string   // host:port; without a host: the address by which the others are reached
	Now    func() time.Duration
	Log    *slog.Logger

	Heard func() // called after each answer; must not block

	// Claimed has this gateway remember a key that it owns, and reports whether it
	// is new. Forgotten undoes that.
	Claimed   func(Key) bool
	Forgotten func(Key)
}

// A Node keeps a Book up to date.
type Node struct {
	Options
	transport *http.Transport

	look chan struct{} // somebody unknown has called

	mu        sync.Mutex
	asks      map[string]chan time.Duration // by address: that a Sample was taken
	addresses map[netip.Addr]bool           // of peers, as DNS names them
}

// NewNode makes a Node that Run starts.
func NewNode(o Options) *Node {
	return &Node{
		Options: o,
		look:    make(chan struct{}, 1),
		asks:    map[string]chan time.Duration{},
		transport: &http.Transport{
			DialContext:            (&net.Dialer{Timeout: dialTimeout}).DialContext,
			MaxIdleConnsPerHost:    4,
			MaxConnsPerHost:        16,
			IdleConnTimeout:        10 * time.Second,
			MaxResponseHeaderBytes: maxHeaderBytes,
			DisableCompression:     true,
		},
	}
}

// Run listens, asks and answers until ctx is done.
func (n *Node) Run(ctx context.Context) error {
	defer n.transport.CloseIdleConnections()
	var wg sync.WaitGroup
	defer wg.Wait()
	l, err := n.newListener(ctx, &wg)
	if err != nil {
		return err
	}
	defer l.close()
	asked := map[string]context.CancelFunc{}
	tick := time.NewTicker(lookupInterval)
	defer tick.Stop()
	for {
		n.lookUp(ctx)
		l.open(n.known())
		there := n.Book.Asked(n.Now())
		for _, a := range there {
			if asked[a] == nil && len(asked) < maxPeers {
				var asking context.Context
				asking, asked[a] = context.WithCancel(ctx)
				samples := make(chan time.Duration, 1)
				n.setAsks(a, samples)
				wg.Go(func() { n.keepAsking(asking, a, samples) })
			}
		}
		for a, stop := range asked {
			if !slices.Contains(there, a) {
				stop()
				delete(asked, a)
				n.setAsks(a, nil)
			}
		}
		select {
		case <-tick.C:
		case <-n.look:
			if sleep(ctx, lookupInterval/4) != nil { // so that callers cannot have us look all the time
				return nil
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// lookUp has the names resolved. If one cannot be, what they named before holds.
func (n *Node) lookUp(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	var all []string
	addresses := map[netip.Addr]bool{}
	for _, name := range n.Names {
		host, port, err := net.SplitHostPort(name)
		if err != nil {
			continue // NewNode's user has checked it
		}
		if strings.Contains(host, ".") {
			host += "." // not below a search domain
		}
		ips, err := resolve(ctx, host)
		if err != nil {
			n.Log.Debug("gateways not looked up", "name", name, "error", err)
			return
		}
		for _, ip := range ips {
			ip = ip.Unmap()
			addresses[ip] = true
			all = append(all, net.JoinHostPort(ip.String(), port))
		}
	}
	n.mu.Lock()
	n.addresses = addresses
	n.mu.Unlock()
	n.Book.Name(all, n.Now())
}

// resolve returns no address without an error if DNS knows that there is none.
func resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(strings.TrimSuffix(host, ".")); err == nil {
		return []netip.Addr{ip}, nil
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip4", host)
	if e, ok := errors.AsType[*net.DNSError](err); ok && e.IsNotFound {
		return nil, nil
	}
	return ips, err
}

// known returns the addresses that may call.
func (n *Node) known() map[netip.Addr]bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.addresses
}

// Ask has all peers asked for the Sample that was taken at the time at. A peer that has
// not yet answered the last question is left out.
func (n *Node) Ask(at time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, samples := range n.asks {
		select {
		case samples <- at:
		default:
		}
	}
}

// setAsks has Ask tell samples; nil: no longer.
func (n *Node) setAsks(address string, samples chan time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if samples == nil {
		delete(n.asks, address)
	} else {
		n.asks[address] = samples
	}
}

// keepAsking asks the peer at address at each sample. One that fails again and again is
// asked less often, up to once in four.
func (n *Node) keepAsking(ctx context.Context, address string, samples <-chan time.Duration) {
	failures, skip := 0, 0
	for {
		var at time.Duration
		select {
		case at = <-samples:
		case <-ctx.Done():
			return
		}
		if skip > 0 {
			skip--
			continue
		}
		err := n.ask(ctx, address, at)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			failures = 0
			n.Heard()
		case errors.Is(err, errOwn):
			skip = 40 // the address may become another's
		default:
			if failures++; failures == 1 {
				n.Log.Debug("a gateway does not answer", "peer", address, "error", err)
			}
			skip = min(failures-1, 3)
		}
	}
}

func (n *Node) ask(ctx context.Context, address string, at time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	asked := n.Now()
	a := n.Book.Ask(address, asked)
	body, status, err := n.do(ctx, http.MethodGet, address, fmt.Sprintf("%s/%016x/%d", loadsPath, a.Identity, a.Sequence))
	switch {
	case err != nil:
		return err
	case status == http.StatusNotFound:
		return fmt.Errorf("%w than %d", errVersion, Version)
	case status != http.StatusOK:
		return fmt.Errorf("%w: status %d", errGarbage, status)
	}
	// The best guess of when the peer has read its loads.
	return n.Book.Hear(address, body, (asked+n.Now())/2, at)
}

// do makes one request. It reads maxAnswer bytes at most, and what is longer is an
// error.
func (n *Node) do(ctx context.Context, method, address, path string) (body []byte, status int, err error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+address+path, nil)
	if err != nil {
		return nil, 0, err
	}
	req.Header["User-Agent"] = nil // a few bytes, four times a second
	resp, err := n.transport.RoundTrip(req)
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	if resp.ContentLength > maxAnswer {
		return nil, 0, fmt.Errorf("%w: %d bytes", errGarbage, resp.ContentLength)
	}
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err == nil && len(body) == maxAnswer {
		err = fmt.Errorf("%w: more than %d bytes", errGarbage, maxAnswer-1)
	}
	return body, resp.StatusCode, err
}

// How a claim was decided: a closed set that labels a metric.
const (
	ByOwner     = "owner"       // by the gateway that owns the key
	Locally     = "local"       // by this one, which owns it
	Unreachable = "unreachable" // by this one, as the owner did not answer
)

// Claim asks the owner of key whether it is new, and has it remembered. If this gateway
// is the owner, or the owner does not answer, it is new as far as this gateway knows.
func (n *Node) Claim(ctx context.Context, key Key) (first bool, by string) {
	owner := n.Book.owner(key, n.Now())
	if owner == "" {
		return true, Locally
	}
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	_, status, err := n.do(ctx, http.MethodPost, owner, claimsPath+"/"+hex.EncodeToString(key[:]))
	switch {
	case err == nil && status == http.StatusNoContent:
		return true, ByOwner
	case err == nil && status == http.StatusConflict:
		return false, ByOwner
	}
	n.Log.Warn("a gateway was not asked for a replay", "peer", owner, "status", status, "error", err)
	return true, Unreachable
}

// Forget undoes a Claim.
func (n *Node) Forget(key Key) {
	owner := n.Book.owner(key, n.Now())
	if owner == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), claimTimeout)
	defer cancel()
	if _, _, err := n.do(ctx, http.MethodDelete, owner, claimsPath+"/"+hex.EncodeToString(key[:])); err != nil {
		n.Log.Warn("a gateway does not know that a request failed, and refuses it when it is repeated", "peer", owner, "error", err)
	}
}

func parseKey(s string) (k Key, ok bool) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(k) {
		return k, false
	}
	return Key(b), true
}

func parseAsk(identity, sequence string) (a Ask, err error) {
	var e1, e2 error
	a.Identity, e1 = strconv.ParseUint(identity, 16, 64)
	a.Sequence, e2 = strconv.ParseUint(sequence, 10, 64)
	return a, errors.Join(e1, e2)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
