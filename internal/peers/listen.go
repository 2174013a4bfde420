package peers

// The listener that answers other gateways, and nobody else.

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

const (
	loadsPath  = "/1/loads"
	claimsPath = "/1/claims"

	maxConns = 256 // of all peers
)

// A listener serves on the addresses by which this machine reaches its peers. A
// container on several networks has an address on each of them, and must not be
// reached over one that functions are on. So it does not listen on all: DNS names the
// peers on their network, and the kernel knows which own address leads there.
//
// Whoever connects is let in only if DNS names its address, too.
type listener struct {
	node    *Node
	host    netip.Addr // the only address; not valid: those that lead to peers
	port    int
	server  *http.Server
	serving *sync.WaitGroup

	mu    sync.Mutex
	open_ map[netip.Addr]net.Listener
	conns int
}

func (n *Node) newListener(ctx context.Context, wg *sync.WaitGroup) (*listener, error) {
	host, port, err := net.SplitHostPort(n.Listen)
	if err != nil {
		return nil, err
	}
	l := &listener{node: n, serving: wg, open_: map[netip.Addr]net.Listener{}}
	if l.port, err = strconv.Atoi(port); err != nil {
		return nil, err
	}
	if host != "" {
		if l.host, err = netip.ParseAddr(host); err != nil {
			return nil, err
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+loadsPath+"/{identity}/{sequence}", n.serveLoads)
	mux.HandleFunc("POST "+claimsPath+"/{key}", n.serveClaim)
	mux.HandleFunc("DELETE "+claimsPath+"/{key}", n.serveForget)
	l.server = &http.Server{
		Handler:        mux,
		BaseContext:    func(net.Listener) context.Context { return ctx },
		ReadTimeout:    askTimeout, // of the head, too
		WriteTimeout:   askTimeout,
		IdleTimeout:    10 * time.Second,
		MaxHeaderBytes: maxHeaderBytes,
		ConnState:      l.count,
		ErrorLog:       slog.NewLogLogger(n.Log.Handler(), slog.LevelDebug),
	}
	if l.host.IsValid() {
		if err := l.listen(l.host); err != nil {
			return nil, fmt.Errorf("%w; -peer-listen takes another address", err)
		}
	}
	return l, nil
}

// open listens on the addresses that lead to peers, if it does not yet.
func (l *listener) open(peers map[netip.Addr]bool) {
	if l.host.IsValid() {
		return
	}
	for p := range peers {
		own, err := towards(p)
		if err == nil && l.open_[own] == nil {
			err = l.listen(own)
		}
		if err != nil {
			l.node.Log.Warn("other gateways cannot reach this one", "peer", p, "error", err)
		}
	}
}

// towards returns this machine's address on the way to ip. Nothing is sent.
func towards(ip netip.Addr) (netip.Addr, error) {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, 9)))
	if err != nil {
		return netip.Addr{}, err
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}

func (l *listener) listen(own netip.Addr) error {
	ln, err := net.Listen("tcp", netip.AddrPortFrom(own, uint16(l.port)).String())
	if err != nil {
		return err
	}
	l.open_[own] = ln
	l.node.Log.Info("listening to other gateways", "address", ln.Addr().String())
	l.serving.Go(func() { l.server.Serve(door{ln, l}) })
	return nil
}

func (l *listener) close() { l.server.Close() }

// count keeps the number of connections.
func (l *listener) count(_ net.Conn, s http.ConnState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch s {
	case http.StateNew:
		l.conns++
	case http.StateClosed, http.StateHijacked:
		l.conns--
	}
}

func (l *listener) full() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conns >= maxConns
}

// A door lets in the connections of peers alone.
type door struct {
	net.Listener
	l *listener
}

func (d door) Accept() (net.Conn, error) {
	for {
		c, err := d.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
		known := d.l.node.known()[from]
		if known && !d.l.full() {
			return c, nil
		}
		c.Close()
		if !known {
			d.l.node.Log.Debug("a caller that is no gateway was sent away", "remote", from)
			select {
			case d.l.node.look <- struct{}{}: // it may be a new one
			default:
			}
		}
	}
}

func (n *Node) serveLoads(w http.ResponseWriter, r *http.Request) {
	a, err := parseAsk(r.PathValue("identity"), r.PathValue("sequence"))
	if err != nil {
		http.Error(w, "bad ask", http.StatusBadRequest)
		return
	}
	h := w.Header()
	h["Date"] = nil // it is nobody's business
	h["Content-Type"] = nil
	body := n.Book.Answer(a, n.Now())
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.Write(body)
}

func (n *Node) serveClaim(w http.ResponseWriter, r *http.Request) {
	key, ok := parseKey(r.PathValue("key"))
	switch {
	case !ok || n.Claimed == nil:
		http.Error(w, "bad claim", http.StatusBadRequest)
	case n.Claimed(key):
		w.WriteHeader(http.StatusNoContent)
	default:
		w.WriteHeader(http.StatusConflict)
	}
}

func (n *Node) serveForget(w http.ResponseWriter, r *http.Request) {
	key, ok := parseKey(r.PathValue("key"))
	if !ok || n.Forgotten == nil {
		http.Error(w, "bad claim", http.StatusBadRequest)
		return
	}
	n.Forgotten(key)
	w.WriteHeader(http.StatusNoContent)
}
