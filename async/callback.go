package main

// Callbacks: how a call ended is posted to the URL that its caller named. They
// have a queue of their own, with lanes by receiver, so that one that is slow
// or gone is only in the way of a few others.

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	callbackLanes   = 16
	callbackTimeout = 30 * time.Second

	userAgent = "queue-worker/faas-async"
)

// What came of an attempt to deliver a callback: the label outcome of
// async_callbacks_total.
const (
	callbackDelivered = "delivered"
	callbackFailed    = "failed" // and is tried again, or given up
	callbackPutOff    = "put_off"
	callbackRefused   = "refused" // by -callback-allow
)

// A caller back posts callbacks.
type callerBack struct {
	rules     callbackRules
	gateway   string // host:port
	base      string // the gateway's own path
	client    *http.Client
	functions *functions
	metrics   *metrics
}

// newCallerBack makes one that looks names up with resolver, nil for the
// system's.
func newCallerBack(c *config, f *functions, m *metrics, resolver *net.Resolver) *callerBack {
	cb := &callerBack{rules: c.callbacks, gateway: hostPort(c.gateway), base: c.gateway.EscapedPath(), functions: f, metrics: m}
	guarded := newCallbackDialer(&cb.rules, resolver)
	trusted := &net.Dialer{Timeout: guarded.Timeout, Resolver: resolver}
	cb.client = &http.Client{
		Transport: &http.Transport{
			// No Proxy: it would do the connecting, and not by our rules.
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				if cb.trusts(strings.ToLower(address)) {
					return trusted.DialContext(ctx, network, address)
				}
				return guarded.DialContext(ctx, network, address)
			},
			MaxIdleConnsPerHost:    2,
			MaxIdleConns:           64,
			IdleConnTimeout:        30 * time.Second,
			TLSHandshakeTimeout:    10 * time.Second,
			DisableCompression:     true,
			MaxResponseHeaderBytes: maxHeaderLen,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       callbackTimeout,
	}
	return cb
}

// trusts tells whether host:port is one that was named in the settings.
func (cb *callerBack) trusts(address string) bool {
	return cb.rules.names[address] || cb.rules.gateway && address == cb.gateway
}

// allowed keeps callbacks to the gateway away from all but functions: its API
// may trust whoever comes from this machine.
func (cb *callerBack) allowed(u *url.URL) bool {
	if hostPort(u) != cb.gateway {
		return true
	}
	path := u.EscapedPath()
	return strings.HasPrefix(path, cb.base+"/function/") || strings.HasPrefix(path, cb.base+"/async-function/")
}

func (cb *callerBack) weigh(_ *call, message int) int64 { return int64(message) + keptAnswer }

// attempt posts a callback once.
func (cb *callerBack) attempt(ctx context.Context, c *call, r record) result {
	res := cb.post(ctx, c, r)
	label := map[outcome]string{
		succeeded: callbackDelivered, failed: callbackFailed, hopeless: callbackFailed, later: callbackPutOff, forbidden: callbackRefused,
	}[res.outcome]
	if label != "" {
		cb.metrics.callbacks.WithLabelValues(c.function, label).Inc()
	}
	return res
}

func (cb *callerBack) post(ctx context.Context, c *call, r record) result {
	u, err := url.Parse(c.callback)
	if err != nil {
		return result{outcome: hopeless, reason: "the callback's URL is malformed"}
	}
	if !cb.allowed(u) {
		return result{outcome: forbidden, reason: errForbidden.Error()}
	}
	req := (&http.Request{Method: http.MethodPost, URL: u, Header: c.header.Clone()}).WithContext(ctx)
	setBody(req, c.body)
	resp, err := cb.client.Do(req)
	if err == nil {
		defer resp.Body.Close()
		var a *answer
		if a, err = readAnswer(&http.Response{
			StatusCode: resp.StatusCode, Header: resp.Header, Body: io.NopCloser(io.LimitReader(resp.Body, keptAnswer)),
		}, keptAnswer); err == nil || resp.StatusCode/100 == 2 {
			return cb.judge(c, resp.StatusCode, a)
		}
	}
	switch {
	case ctx.Err() != nil:
		return result{outcome: givenBack}
	case errors.Is(err, errForbidden):
		return result{outcome: forbidden, reason: errForbidden.Error()}
	}
	return result{outcome: failed, reason: "the callback's receiver cannot be reached, or broke off"}
}

func (cb *callerBack) judge(c *call, code int, a *answer) result {
	reason := fmt.Sprintf("the callback's receiver says %d", code)
	switch {
	case code/100 == 2:
		return result{outcome: succeeded, answer: a}
	case code == http.StatusTooManyRequests || code == http.StatusServiceUnavailable:
		return result{outcome: later, answer: a, reason: reason}
	case cb.functions.find(c.function).rules.failure(code):
		return result{outcome: failed, answer: a, reason: reason}
	}
	return result{outcome: hopeless, answer: a, reason: reason}
}

// callbackOf makes the callback of a call that ended.
func callbackOf(c *call, r record, a *answer, attempts int) *call {
	if a == nil {
		a = &answer{code: http.StatusServiceUnavailable, header: http.Header{}}
	}
	cb := &call{
		id: c.id, uid: c.uid, function: c.function, name: c.function, callback: c.callback, accepted: time.Now(),
		method: http.MethodPost, target: "/", header: endToEnd(a.header), body: a.body,
	}
	if a.cut {
		// Half of an answer would be taken for the whole.
		cb.body = nil
		cb.header.Set("X-Body-Too-Large", "true")
	}
	h := cb.header
	h.Set("User-Agent", userAgent)
	h.Set("X-Call-Id", c.id)
	h.Set("X-Function-Name", c.function)
	h.Set("X-Function-Status", strconv.Itoa(a.code))
	h.Set("X-Retry", strconv.Itoa(r.Attempt-1))
	h.Set("X-Retry-Max", strconv.Itoa(attempts-1))
	if h.Get("X-Duration-Seconds") == "" {
		h.Set("X-Duration-Seconds", strconv.FormatFloat(a.duration.Seconds(), 'f', 6, 64))
	}
	return cb
}

// callbackLane is the lane for a receiver.
func callbackLane(callback string) string {
	host := ""
	if u, err := url.Parse(callback); err == nil {
		host = hostPort(u)
	}
	h := fnv.New32a()
	io.WriteString(h, host)
	return fmt.Sprintf("%02d", h.Sum32()%callbackLanes)
}

// callBack puts the callback of a call that ended into its queue, or, if that is
// full, among the dead letters.
func callBack(ctx context.Context, q *queue, c *call, r record, a *answer, attempts int) error {
	lane := callbackLane(c.callback)
	if err := q.ensure(ctx, lane); err != nil {
		return err
	}
	cb := callbackOf(c, r, a, attempts)
	_, _, err := q.store.publish(ctx, cb.message(q.subject(lane, c.id, c.uid)), jetstream.WithMsgID("callback."+c.id+"."+c.uid))
	if noRoom(err) {
		// Else the call would run again, as often as it takes.
		return q.store.bury(ctx, q.name, cb, record{Reason: "the queue of callbacks is full"}, nil)
	}
	return err
}
