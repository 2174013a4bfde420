package watchdog

// Mode http: one process that is an HTTP server, kept running and proxied to.

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"sync"
	"time"

	"faas/internal/transport"
)

const (
	dialTimeout   = time.Second
	probeInterval = 10 * time.Millisecond // between looks whether the process accepts
	upIdle        = 512                   // connections kept to the process
	maxHead       = 1 << 20               // bytes of an answer's status line and headers
	steadyAfter   = 10 * time.Second      // a process that ran so long is started again at once
	quietFor      = 5 * time.Second       // a process that does not accept for so long is worth a word
)

// An upstream is the process, and the way to it.
type upstream struct {
	h      *Handler
	target *url.URL
	proxy  *httputil.ReverseProxy

	transport *transport.Transport

	mu      sync.Mutex
	state   upstreamState
	started chan struct{} // closed when the process being started is up, or has failed
}

// An upstreamState is what a caller can expect of the process.
type upstreamState int

const (
	starting upstreamState = iota // for the first time, or after a doze: wait for it
	up
	dozing // it is well, and there is none
	down
)

func newUpstream(h *Handler) (*upstream, error) {
	target, err := url.Parse(h.cfg.UpstreamURL)
	if err != nil {
		return nil, err
	}
	u := &upstream{h: h, target: target, started: make(chan struct{})}
	u.transport = transport.New((&net.Dialer{Timeout: dialTimeout}).DialContext, transport.Limits{
		IdlePerAddr: upIdle,
		Idle:        upIdle,
		IdleTimeout: idleTimeout,
		Head:        maxHead,
	})
	u.proxy = &httputil.ReverseProxy{
		Rewrite:        u.rewrite,
		Transport:      u,
		ModifyResponse: modifyResponse,
		ErrorHandler:   failed,
		BufferPool:     (*proxyBuffers)(h),
		ErrorLog:       slog.NewLogLogger(h.log.Handler(), slog.LevelWarn),
	}
	return u, nil
}

// RoundTrip sends the request to the process, and again if the connection was kept and
// has ended instead of an answer: the process may have closed it before. As with
// net/http that is for a request that may be sent twice, without a body.
func (u *upstream) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := u.transport.RoundTrip(req)
	if failed, ok := errors.AsType[*transport.Error](err); ok && failed.Stale && req.Body == nil && repeatable(req) {
		u.transport.CloseIdleConnections() // they are as old
		return u.transport.RoundTrip(req)
	}
	return resp, err
}

func repeatable(req *http.Request) bool {
	switch req.Method {
	case "GET", "HEAD", "OPTIONS", "TRACE":
		return true
	}
	return req.Header["Idempotency-Key"] != nil || req.Header["X-Idempotency-Key"] != nil
}

// proxyBuffers lends the handler's buffers to the proxy.
type proxyBuffers Handler

func (p *proxyBuffers) Get() []byte { return (*(*Handler)(p).buffer())[:bufferSize] }

func (p *proxyBuffers) Put(b []byte) { (*Handler)(p).recycle(&b) }

// await waits for a process that is being started for the first time or after a
// doze, so that its first callers are answered late and not with an error. Else
// it only reports whether the process is up.
func (u *upstream) await(ctx context.Context) bool {
	u.mu.Lock()
	started := u.started
	u.mu.Unlock()
	select {
	case <-started:
	case <-ctx.Done():
	}
	return u.is(up)
}

func (u *upstream) is(s upstreamState) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.state == s
}

// isWell reports whether the function is healthy.
func (u *upstream) isWell() bool { return u.is(up) || u.is(dozing) }

// set is called when the process that was being started is up, or is no more.
func (u *upstream) set(s upstreamState) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.state = s
	select {
	case <-u.started:
	default:
		close(u.started)
	}
}

// mayDoze makes the process one that is to end and be started again by the next
// call. It objects if there is none that is up.
func (u *upstream) mayDoze() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.state != up {
		return false
	}
	u.state, u.started = dozing, make(chan struct{})
	return true
}

// run keeps the process running until ctx is done, and ends it then.
func (u *upstream) run(ctx context.Context) {
	backoff := minBackoff
	for ctx.Err() == nil {
		started := time.Now()
		err := u.h.doze.whileAwake(ctx, u.mayDoze, func(awake context.Context) error {
			defer u.transport.CloseIdleConnections() // none leads to the next process
			return u.runOnce(awake)
		})
		if err == errDoze {
			backoff = minBackoff
			continue
		}
		u.set(down)
		if ctx.Err() != nil {
			return
		}
		if time.Since(started) > steadyAfter {
			backoff = minBackoff
		}
		u.h.log.Error("process is lost", "error", err, "after", time.Since(started), "retry_in", backoff)
		pause(ctx, nil, backoff)
		backoff = min(2*backoff, maxBackoff)
	}
}

// runOnce runs the process once, and says why it ended.
func (u *upstream) runOnce(ctx context.Context) error {
	w := u.h.wiring(nil, true)
	w.stdout = os.Stdout
	w.combine = false
	p, err := u.h.program.start(u.h.environ, w, &u.h.family)
	if err != nil {
		return err
	}
	p.attach()
	defer p.release()
	stop := context.AfterFunc(ctx, func() {
		grace := killDelay
		if context.Cause(ctx) == errDoze {
			grace = dozeGrace
			u.h.log.Info("process dozes", "pid", p.pid)
		}
		p.terminateIn(grace)
	})
	defer stop()
	var logged sync.WaitGroup
	if p.stderr != nil {
		logged.Go(func() { logLines(u.h.log, p.stderr, "") })
	}
	if u.awaitAccept(ctx, p.done) {
		u.set(up)
		u.h.log.Info("process is up", "pid", p.pid, "upstream", u.target.String())
	}
	<-p.done
	logged.Wait()
	if code := exitError(p.exitCode()); code != 0 {
		return code
	}
	return errors.New("exited")
}

// awaitAccept waits until the process accepts connections, and reports whether
// it does.
func (u *upstream) awaitAccept(ctx context.Context, ended <-chan struct{}) bool {
	address := u.target.Host
	if u.target.Port() == "" {
		address = net.JoinHostPort(u.target.Hostname(), "80")
	}
	d := net.Dialer{Timeout: dialTimeout}
	late := time.AfterFunc(quietFor, func() {
		u.h.log.Warn("nothing accepts connections at upstream_url: is it where the process listens?",
			"upstream_url", u.target.String(), "after", quietFor)
	})
	defer late.Stop()
	for {
		if c, err := d.DialContext(ctx, "tcp", address); err == nil {
			c.Close()
			return true
		}
		pause(ctx, ended, probeInterval)
		select {
		case <-ended:
			return false
		case <-ctx.Done():
			return false
		default:
		}
	}
}
