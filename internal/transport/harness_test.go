package transport

// Servers below net/http, and the transports that are compared.

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/http/httputil"
	"net/textproto"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func newTestTransport() *Transport {
	return New((&net.Dialer{Timeout: time.Second}).DialContext, Limits{
		IdlePerAddr: 1024, Idle: 4096, IdleTimeout: time.Minute, Head: 64 << 10,
	})
}

// stats returns the number of connections, and how many of them are idle.
func (t *Transport) stats() (open, idle int) {
	return int(t.open.Load()), int(t.idle.Load())
}

// transportsUnderTest returns the model and ours, with equal limits.
func transportsUnderTest(t *testing.T) map[string]http.RoundTripper {
	standard := &http.Transport{DisableCompression: true, MaxResponseHeaderBytes: 64 << 10}
	direct := newTestTransport()
	t.Cleanup(standard.CloseIdleConnections)
	t.Cleanup(direct.CloseIdleConnections)
	return map[string]http.RoundTripper{"standard": standard, "direct": direct}
}

// dialedConns remembers what it dialled, so that a test can wait until the
// peer's end of a connection has arrived.
type dialedConns struct {
	mu    sync.Mutex
	conns []net.Conn
}

func (d *dialedConns) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, network, addr)
	if err == nil {
		d.mu.Lock()
		d.conns = append(d.conns, conn)
		d.mu.Unlock()
	}
	return conn, err
}

// awaitEnd waits until the latest connection was closed by either side.
func (d *dialedConns) awaitEnd(t *testing.T) {
	t.Helper()
	d.mu.Lock()
	conn := d.conns[len(d.conns)-1]
	d.mu.Unlock()
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Read(func(fd uintptr) bool {
		_, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK)
		return err != syscall.EAGAIN
	})
}

// A rawReplica speaks to each connection as its script says.
type rawReplica struct {
	addr     string
	accepted atomic.Int32
}

// startRawReplica runs serve for every connection, and closes the connection
// when serve returns or the test ends.
func startRawReplica(t *testing.T, serve func(conn net.Conn, br *bufio.Reader)) *rawReplica {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &rawReplica{addr: listener.Addr().String()}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			r.accepted.Add(1)
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			wg.Go(func() {
				defer stop()
				defer conn.Close()
				serve(conn, bufio.NewReader(conn))
			})
		}
	})
	t.Cleanup(func() {
		cancel()
		listener.Close()
		wg.Wait()
	})
	return r
}

// answering reads whole requests and sends answer after each.
func answering(answer string, hangUp bool) func(net.Conn, *bufio.Reader) {
	return func(conn net.Conn, br *bufio.Reader) {
		for {
			req, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				return
			}
			io.WriteString(conn, answer)
			if hangUp {
				return
			}
		}
	}
}

// A wireResult is what a caller gets out of one request.
type wireResult struct {
	status  int
	body    string
	trailer http.Header
	interim []int
	err     error // of the round trip
	bodyErr error
}

// wireSides are the two ways to use a transport. The proxied one reports a
// failed round trip, which is a 502 then, as an error too.
var wireSides = map[string]func(t *testing.T, rt http.RoundTripper) http.RoundTripper{
	"plain": func(_ *testing.T, rt http.RoundTripper) http.RoundTripper { return rt },
	"proxied": func(t *testing.T, rt http.RoundTripper) http.RoundTripper {
		proxy := &httputil.ReverseProxy{
			Rewrite: func(r *httputil.ProxyRequest) {
				r.Out.URL.Scheme, r.Out.URL.Host = "http", r.In.Host
				r.Out.Trailer = r.In.Trailer
			},
			Transport: rt,
			ErrorLog:  log.New(io.Discard, "", 0),
			ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
				w.Header().Set("X-Proxy-Error", strings.ReplaceAll(err.Error(), "\n", " "))
				w.WriteHeader(http.StatusBadGateway)
			},
		}
		server := httptest.NewUnstartedServer(proxy)
		server.Config.ErrorLog = proxy.ErrorLog
		server.Start()
		t.Cleanup(server.Close)
		client := &http.Transport{DisableCompression: true}
		t.Cleanup(client.CloseIdleConnections)
		return &throughProxy{client, server.Listener.Addr().String()}
	},
}

// throughProxy sends requests to a proxy that forwards them by their Host.
type throughProxy struct {
	rt   http.RoundTripper
	addr string
}

func (p *throughProxy) RoundTrip(req *http.Request) (*http.Response, error) {
	out := req.Clone(req.Context())
	out.Trailer = req.Trailer
	out.Host = req.URL.Host
	out.URL.Host = p.addr
	resp, err := p.rt.RoundTrip(out)
	if err == nil && resp.Header.Get("X-Proxy-Error") != "" {
		resp.Body.Close()
		return nil, errors.New(resp.Header.Get("X-Proxy-Error"))
	}
	return resp, err
}

func wireTrip(rt http.RoundTripper, req *http.Request) (res wireResult) {
	req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, _ textproto.MIMEHeader) error {
			res.interim = append(res.interim, code)
			return nil
		},
	}))
	resp, err := rt.RoundTrip(req)
	if err != nil {
		res.err = err
		return res
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	res.status, res.body, res.bodyErr, res.trailer = resp.StatusCode, string(body), err, resp.Trailer
	return res
}

// A watchedBody counts what is done to a request's body.
type watchedBody struct {
	io.Reader
	reads, closes atomic.Int32
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.reads.Add(1)
	return b.Reader.Read(p)
}

func (b *watchedBody) Close() error {
	b.closes.Add(1)
	return nil
}
