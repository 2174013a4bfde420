package main

// The way to a replica: choose, send, and choose again where that is safe.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	dialTimeout   = time.Second
	connectBudget = 2500 * time.Millisecond // to find a replica that accepts a connection
	resendLimit   = 2                       // times that a request is sent again after its bytes went out
	unsentLimit   = 5                       // times that a request is tried again after no byte of it could be written
	replayLimit   = 32 << 10                // bytes of a request body kept, so that it can be sent again

	maxIdlePerReplica  = 256              // connections kept
	maxIdle            = 4096             // in all
	maxAnswerHead      = 1 << 20          // bytes of a function's status line and headers
	replicaIdleTimeout = 90 * time.Second // less than a function's server keeps them, mostly
	unackedTimeout     = 2 * time.Second  // of a replica's machine, not of its process
)

// newDialer makes connections to replicas. Keep-alive probes find out within
// 3 s that a silent peer is gone (its node was cut off, say) while a request
// waits in it; for what is not acknowledged see unackedTimeout.
func newDialer() *net.Dialer {
	return &net.Dialer{
		Timeout:         dialTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 2},
	}
}

// A replicaTransport sends requests to addresses of replicas.
type replicaTransport interface {
	http.RoundTripper
	closeIdle(addr string) // the replica left
}

// newTransport returns the transport named kind: direct, or std for
// net/http's.
func newTransport(kind string, dial dialFunc) replicaTransport {
	if kind == "std" {
		return stdTransport{&http.Transport{
			DialContext:            dial,
			DisableCompression:     true,
			MaxIdleConns:           maxIdle,
			MaxIdleConnsPerHost:    maxIdlePerReplica,
			IdleConnTimeout:        replicaIdleTimeout,
			MaxResponseHeaderBytes: maxAnswerHead,
		}}
	}
	return newDirectTransport(dial, transportLimits{
		idlePerAddr: maxIdlePerReplica,
		idle:        maxIdle,
		idleTimeout: replicaIdleTimeout,
		head:        maxAnswerHead,
		unacked:     unackedTimeout,
	})
}

type dialFunc = func(ctx context.Context, network, addr string) (net.Conn, error)

// stdTransport is net/http's own. It cannot close the idle connections of one
// address, so all of them are.
type stdTransport struct{ *http.Transport }

func (t stdTransport) closeIdle(string) { t.CloseIdleConnections() }

// An upstream is the RoundTripper of all invocations. It owns the request: its
// URL.Host becomes the address of the replica.
type upstream struct {
	transport http.RoundTripper
	refresh   func(*function)   // look for the function's replicas soon; never blocks
	wake      func(name string) // a caller waits for a function without replicas; never blocks

	log *slog.Logger

	queue        int
	queueTimeout time.Duration
}

// RoundTrip sends req to one of the function's replicas. Errors are
// errNoReplica, errTooMany, errUnreachable, the context's, or what broke off
// after the request was sent.
func (u *upstream) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	inv := invocationOf(ctx)
	var body *replayBody
	if req.Body != nil {
		body = &replayBody{src: req.Body, atEnd: inv.bodyRead}
	}
	inv.body = body
	tried := inv.tried[:0]
	var vain time.Time // since when no replica accepts a connection
	pause := 25 * time.Millisecond
	resent, unsent := 0, 0
	if err := checkRequest(req); err != nil {
		return nil, err
	}
	var err error
	for attempt := 0; ; {
		now := time.Now()
		if inv.f.stale(now) {
			u.refresh(inv.f)
		}
		r := inv.f.balancer.pick(tried)
		if r != nil && r.doubt(now) {
			u.refresh(inv.f) // which probes it
			r.inflight.Add(-1)
			r = inv.f.balancer.pick(tried)
		}
		if r == nil {
			switch {
			case len(inv.f.balancer.replicas()) == 0:
				err = u.await(ctx, inv.f)
				vain = time.Time{}
				req.Header["X-Timeout"] = []string{inv.timeLeft()} // less than it was
			case !vain.IsZero() && time.Since(vain) > connectBudget:
				err = errUnreachable
			default:
				err = sleep(ctx, pause)
				pause = min(2*pause, 200*time.Millisecond)
			}
			if err != nil {
				return nil, err
			}
			tried = tried[:0]
			continue
		}

		if attempt++; attempt > 1 {
			req = again(req) // net/http's transport may still read the last one
			req.Header["X-Timeout"] = []string{inv.timeLeft()}
		}
		req.URL.Host = r.addr
		if body != nil {
			req.Body = body.open()
			req.GetBody = body.reopen
		}
		inv.replica = r
		var resp *http.Response
		if resp, err = u.transport.RoundTrip(req); err == nil {
			inv.f.balancer.answered(r, now)
			return resp, nil
		}
		inv.release()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if body != nil && body.broken.Load() && !errors.Is(err, errRequestBody) {
			err = fmt.Errorf("%w: %w", errRequestBody, err) // net/http's transport does not say so
		}
		if errors.Is(err, errRequestBody) || errors.Is(err, errInvalidRequest) {
			return nil, err // no replica's fault
		}
		stage := stageOf(err)
		if stage == stageDial || lost(err) {
			inv.f.balancer.failed(r, time.Now())
			u.refresh(inv.f)
		}
		if stage == stageSent {
			if resent++; resent > resendLimit || !idempotent(req) {
				return nil, fmt.Errorf("replica %s: %w", r.addr, err)
			}
		}
		if stage == stageUnsent {
			if unsent++; unsent > unsentLimit {
				return nil, fmt.Errorf("replica %s: %w", r.addr, err)
			}
			if err := sleep(ctx, pause); err != nil {
				return nil, err
			}
			pause = min(2*pause, 200*time.Millisecond)
		}
		if !body.rewindable() {
			return nil, fmt.Errorf("replica %s, and the body cannot be sent again: %w", r.addr, err)
		}
		if stage != stageDial {
			vain = time.Time{} // it did accept one
		} else {
			if vain.IsZero() {
				vain = time.Now()
			}
			// However many more there are: each may hang for dialTimeout.
			if time.Since(vain) > connectBudget {
				return nil, fmt.Errorf("%w: %w", errUnreachable, err)
			}
			tried = append(tried, r)
		}
		inv.f.metrics.retries.Inc()
		u.log.Debug("trying again", "function", inv.f.name, "call_id", inv.callID, "replica", r.addr, "error", err)
	}
}

// checkRequest finds what cannot be sent as HTTP/1.1, whichever the transport:
// the caller's mistake, and no replica's.
func checkRequest(req *http.Request) error {
	if !isToken(req.Method) {
		return fmt.Errorf("%w: method %q", errInvalidRequest, req.Method)
	}
	if !isHost(req.Host) && req.Host != "" {
		return fmt.Errorf("%w: host %q", errInvalidRequest, req.Host)
	}
	for name := range req.Trailer {
		if !isToken(name) || isOwnField(name) {
			return fmt.Errorf("%w: trailer %q", errInvalidRequest, name)
		}
	}
	return nil
}

// again returns a copy of req whose URL and header can be changed.
func again(req *http.Request) *http.Request {
	next, u := *req, *req.URL
	next.URL, next.Header = &u, maps.Clone(req.Header)
	return &next
}

// await holds the caller until the function has a replica.
func (u *upstream) await(ctx context.Context, f *function) error {
	if f.gone.Load() {
		return errNotFound
	}
	waiting, cancel := context.WithTimeoutCause(ctx, u.queueTimeout, errNoReplica)
	defer cancel()
	err := f.admission.wait(waiting, u.queue, func(first bool) {
		if first {
			u.wake(f.name)
		}
		u.refresh(f)
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return errNoReplica // the invocation's own limit came first
	}
	return err
}

// stageOf says how far a failed attempt got; what is unknown counts as sent.
func stageOf(err error) attemptStage {
	if attempt, ok := errors.AsType[*attemptError](err); ok {
		return attempt.stage
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return stageDial
	}
	return stageSent
}

// lost reports whether err means that the peer's machine is silent or gone,
// rather than that its process ended.
func lost(err error) bool {
	return errors.Is(err, syscall.ETIMEDOUT) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH)
}

// idempotent reports whether a request may be sent twice: RFC 9110, section
// 9.2.2, or the caller says so with an Idempotency-Key, as in net/http.
func idempotent(req *http.Request) bool {
	switch req.Method {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	}
	return req.Header["Idempotency-Key"] != nil || req.Header["X-Idempotency-Key"] != nil
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// A replayBody is a request body that can be read from its start again as long
// as no more than replayLimit has been read. One reader at a time: a
// RoundTripper does not read after it has returned an error.
type replayBody struct {
	src  io.ReadCloser
	kept []byte
	over bool // more was read than is kept

	atEnd func() // called when its end has been read; may be nil
	ended atomic.Bool

	broken atomic.Bool // reading src has failed
}

// rewindable reports whether open gives the whole body. No body is.
func (b *replayBody) rewindable() bool { return b == nil || !b.over }

func (b *replayBody) open() io.ReadCloser { return &replayReader{b: b} }

// reopen is a http.Request.GetBody.
func (b *replayBody) reopen() (io.ReadCloser, error) {
	if b.over {
		return nil, errors.New("too much of the body was sent to send it again")
	}
	return b.open(), nil
}

// A replayReader reads what is kept, then the source. Its Close leaves the
// source open for the next attempt; ReverseProxy closes it.
type replayReader struct {
	b   *replayBody
	off int
}

func (r *replayReader) Read(p []byte) (int, error) {
	b := r.b
	if r.off < len(b.kept) {
		n := copy(p, b.kept[r.off:])
		r.off += n
		return n, nil
	}
	n, err := b.src.Read(p)
	if err == io.EOF && !b.ended.Swap(true) && b.atEnd != nil {
		b.atEnd()
	}
	if err != nil && err != io.EOF {
		b.broken.Store(true)
	}
	switch {
	case b.over:
	case len(b.kept)+n <= replayLimit:
		b.kept = append(b.kept, p[:n]...)
		r.off += n
	case n > 0:
		b.over, b.kept = true, nil
		r.off = 0
	}
	return n, err
}

func (r *replayReader) Close() error { return nil }
