package main

// One request on its way through a function, and the request that the function
// gets.

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"net/http/httputil"
	"strconv"
	"time"
)

const maxCallIDLen = 128

// An invocation is one request on its way through a function.
type invocation struct {
	guard
	f        *function
	kind     string
	path     string // that the function sees; "" is the request's own
	rawPath  string
	prefix   string // that was cut off the request's path; "" for none
	route    routeMatch
	callID   string
	start    time.Time
	started  string   // start as the function is told it
	replica  *replica // that it is in
	tried    [4]*replica
	code     int // answered, or about to be
	err      error
	body     *replayBody   // the request's, once it is sent on; nil for none
	bodyHere bool          // all of the request's body was read ahead
	expects  bool          // the caller sends its body when it is told to go on
	conn     *upgradedConn // to the function after a 101; nil without one
	trailer  http.Header   // the request's, filled in at the end of its body
	answer   answerBody
}

// An invocationContext is the root of an invocation's contexts: it has the
// deadline, and the values of the request. It never ends by itself: the guard
// ends the one derived from it.
type invocationContext struct{ *invocation }

func (c invocationContext) Deadline() (time.Time, bool) { return c.deadline, true }
func (c invocationContext) Done() <-chan struct{}       { return nil }
func (c invocationContext) Err() error                  { return nil }

func (c invocationContext) Value(key any) any {
	if key == (invocationKey{}) {
		return c.invocation
	}
	return c.request.Value(key)
}

type invocationKey struct{}

func invocationOf(ctx context.Context) *invocation {
	return ctx.Value(invocationKey{}).(*invocation)
}

// release takes the invocation off the replica that it is in.
func (inv *invocation) release() {
	if inv.replica != nil {
		inv.replica.inflight.Add(-1)
		inv.replica = nil
	}
}

// unread reports whether a part of the request's body is still to be read off
// the caller's connection. r is the request, or the one that ReverseProxy made
// of it: its Body is nil where there is none.
func (inv *invocation) unread(r *http.Request) bool {
	return r.Body != nil && r.Body != http.NoBody && !inv.bodyHere && (inv.body == nil || !inv.body.ended.Load())
}

// bodyRead is called at the end of the request's body, before its trailers are
// sent on: all of them are there now, also those that were not announced.
func (inv *invocation) bodyRead() {
	dropOwnTrailers(inv.trailer)
	inv.guard.bodyRead()
}

// rewrite makes the request that the function gets.
func (g *gateway) rewrite(pr *httputil.ProxyRequest) {
	inv := invocationOf(pr.In.Context())
	out := pr.Out
	out.URL.Scheme = "http"
	if inv.path != "" {
		out.URL.Path, out.URL.RawPath = inv.path, inv.rawPath
	}
	// ReverseProxy drops query parameters that url.ParseQuery does not take;
	// the function gets what the caller sent.
	out.URL.RawQuery = pr.In.URL.RawQuery
	out.Trailer = pr.In.Trailer // filled in when the body has been read; a clone stays empty
	dropOwnTrailers(out.Trailer)
	inv.trailer = out.Trailer
	h := out.Header
	delete(h, "Expect") // the caller was told to go on when its body was read
	dropOwnHeaders(h)
	inv.route.setHeaders(h)
	g.forward.set(h, pr.In, inv.prefix)
	inv.started = strconv.FormatInt(inv.start.UnixNano(), 10)
	values := &[3]string{inv.callID, inv.started, inv.timeLeft()}
	h["X-Call-Id"] = values[0:1:1]
	h["X-Start-Time"] = values[1:2:2]
	h["X-Timeout"] = values[2:3:3]
}

// timeLeft is what the function is told in X-Timeout.
func (inv *invocation) timeLeft() string {
	return time.Until(inv.deadline).Round(time.Microsecond).String()
}

// callID returns the caller's own X-Call-Id if it is 1 to 128 visible ASCII
// characters, or else a new UUID (RFC 9562, version 4).
func callID(h http.Header) string {
	if v := h["X-Call-Id"]; len(v) == 1 && visible(v[0]) {
		return v[0]
	}
	var b [16]byte
	rand.Read(b[:])
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	var s [36]byte
	hex.Encode(s[:], b[:4])
	hex.Encode(s[9:], b[4:6])
	hex.Encode(s[14:], b[6:8])
	hex.Encode(s[19:], b[8:10])
	hex.Encode(s[24:], b[10:])
	s[8], s[13], s[18], s[23] = '-', '-', '-', '-'
	return string(s[:])
}

func visible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return s != "" && len(s) <= maxCallIDLen
}
