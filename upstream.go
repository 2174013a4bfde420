package main

// The way to a replica: choose, send, and choose again where that is safe.

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"syscall"
	"time"

	"faas/internal/transport"
	"faas/internal/wire"
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
	backOffLimit       = time.Second      // before what was lost is sent again; Linux takes no less
)

// newDialer makes connections to replicas. Keep-alive probes find out within
// 3 s that a silent peer is gone (its node was cut off, say) while a request
// waits in it; for what is not acknowledged see unackedTimeout.
func newDialer() *net.Dialer {
	return &net.Dialer{
		Timeout:         dialTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 2},
		Control: func(_, _ string, c syscall.RawConn) error {
			transport.LimitBackOff(c, backOffLimit)
			return nil // without the limit it only takes longer
		},
	}
}

// noteReached returns dial for invocations: their functions are told when a
// replica accepts a connection.
func noteReached(dial transport.DialFunc) transport.DialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if inv, ok := ctx.Value(invocationKey{}).(*invocation); ok && err == nil {
			inv.f.reached.Store(true)
		}
		return conn, err
	}
}

// A replicaTransport sends requests to addresses of replicas.
type replicaTransport interface {
	http.RoundTripper
	CloseIdle(addr string) // the replica left
}

// newTransport returns the transport named kind: direct, or std for
// net/http's.
func newTransport(kind string, dial transport.DialFunc) replicaTransport {
	limits := transport.Limits{
		IdlePerAddr: maxIdlePerReplica,
		Idle:        maxIdle,
		IdleTimeout: replicaIdleTimeout,
		Head:        maxAnswerHead,
		Unacked:     unackedTimeout,
		BackOff:     backOffLimit,
	}
	if kind == "std" {
		return transport.NewStandard(dial, limits)
	}
	return transport.New(dial, limits)
}

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
		body = newReplayBody(req.Body, inv.bodyRead)
	}
	inv.body = body
	tried := inv.tried[:0]
	var refusedSince time.Time // since when no replica accepts a connection
	pause := 25 * time.Millisecond
	resent, unsent := 0, 0
	var err error
	for attempt := 0; ; {
		now := time.Now()
		if inv.f.stale(now) {
			u.refresh(inv.f)
		}
		r := inv.f.balancer.pick(tried, now)
		if r != nil && r.doubt(now) {
			u.refresh(inv.f) // which probes it
			r.inflight.Add(-1)
			r = inv.f.balancer.pick(tried, now)
		}
		if r == nil {
			switch {
			case len(inv.f.balancer.replicas()) == 0:
				err = u.await(ctx, inv.f)
				refusedSince = time.Time{}
				req.Header["X-Timeout"] = []string{inv.timeLeft()} // less than it was
			case !refusedSince.IsZero() && time.Since(refusedSince) > connectBudget:
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
			inv.f.balancer.answered(r, resp.StatusCode, now)
			inv.watchAnswer(ctx, resp)
			return resp, nil
		}
		inv.release()
		if over := inv.over(req, err); over != nil {
			return nil, over
		}
		if errors.Is(err, transport.ErrRequestBody) || errors.Is(err, transport.ErrInvalidRequest) {
			return nil, err // no replica's fault
		}
		stage := stageOf(err)
		if stage == transport.StageDial || lost(err) {
			inv.f.balancer.failed(r, time.Now())
			u.refresh(inv.f)
		}
		if stage == transport.StageSent {
			inv.f.balancer.outcome(r, true, now, time.Now())
			if resent++; resent > resendLimit || !idempotent(req) {
				return nil, fmt.Errorf("replica %s: %w", r.addr, err)
			}
		}
		if stage == transport.StageUnsent {
			if unsent++; unsent > unsentLimit {
				return nil, fmt.Errorf("replica %s: %w", r.addr, err)
			}
			if err := sleep(ctx, pause); err != nil {
				return nil, err
			}
			pause = min(2*pause, 200*time.Millisecond)
		}
		if !body.rewindable() {
			if stage == transport.StageDial {
				err = fmt.Errorf("%w: %w", errUnreachable, err)
			}
			return nil, fmt.Errorf("replica %s, and the body cannot be sent again: %w", r.addr, err)
		}
		if stage != transport.StageDial {
			refusedSince = time.Time{} // it did accept one
		} else {
			if refusedSince.IsZero() {
				refusedSince = time.Now()
			}
			// However many more there are: each may hang for dialTimeout.
			if time.Since(refusedSince) > connectBudget {
				return nil, fmt.Errorf("%w: %w", errUnreachable, err)
			}
			tried = append(tried, r)
		}
		inv.f.metrics.retries.Inc()
		u.log.Debug("trying again", "function", inv.f.name, "call_id", inv.callID, "replica", r.addr, "error", err)
	}
}

// over returns why no further attempt can help an invocation that has just
// failed in one, as failed says: its limit, its caller, or the body that the
// caller sends; nil if the replica is to blame.
func (inv *invocation) over(req *http.Request, failed error) error {
	ctx := req.Context()
	if !time.Now().Before(inv.deadline) {
		if stageOf(failed) == transport.StageUnsent && inv.body != nil && !inv.body.ended.Load() {
			return errStalledBody
		}
		return context.DeadlineExceeded // the guard may be a moment behind
	}
	if ctx.Err() != nil && inv.request.Err() != nil {
		inv.body.settle() // net/http ends the request first, then the Read that failed
	}
	err := inv.body.failure()
	if err == nil {
		return context.Cause(ctx)
	}
	// A caller that closed its side in the middle may still read an answer.
	if _, broken := errors.AsType[*net.OpError](err); inv.request.Err() != nil &&
		(broken && !errors.Is(err, wire.ErrRefused) || req.ProtoMajor > 1) {
		inv.end(context.Cause(inv.request))
		return context.Cause(ctx)
	}
	return fmt.Errorf("%w: %w", transport.ErrRequestBody, err)
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
	if errors.Is(err, errNoReplica) || errors.Is(err, context.DeadlineExceeded) { // or the invocation's own limit
		return f.admission.noReplica()
	}
	return err
}

// stageOf says how far a failed attempt got; what is unknown counts as sent.
func stageOf(err error) transport.Stage {
	if attempt, ok := errors.AsType[*transport.Error](err); ok {
		return attempt.Stage
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return transport.StageDial
	}
	return transport.StageSent
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

// A backoff grows from first to most, each time by half to twice as much.
type backoff struct{ first, most, last time.Duration }

func (b *backoff) next() time.Duration {
	b.last = min(max(b.first, b.last+b.last/2+rand.N(b.last/2+1)), b.most)
	return b.last
}

func (b *backoff) reset() { b.last = 0 }
