package main

// Accepting calls. A 202 means that the call is on disk and will run.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/semaphore"
)

const (
	asyncPrefix  = "/async-function/"
	maxTargetLen = 16 << 10
	maxKeyLen    = 256

	// acceptMemory bounds the large bodies that are being accepted at once, and
	// smallMemory those up to smallBody: a large one may be long in coming.
	acceptMemory = 64 << 20
	smallMemory  = 16 << 20
	smallBody    = 64 << 10
	// leastBody is what a request counts for at least.
	leastBody   = 16 << 10
	memoryWait  = 5 * time.Second
	bodyTimeout = time.Minute

	// withdrawFor is how long it is tried to take back a call whose fate was
	// not known when its caller got a 503; maxWithdrawals at once.
	withdrawFor    = 2 * time.Minute
	maxWithdrawals = 1000
)

// An acceptor takes calls in.
type acceptor struct {
	store     *store
	calls     *queue
	functions *functions
	metrics   *metrics
	engine    *engine             // nil: the servers are elsewhere
	memory    *semaphore.Weighted // of large bodies
	small     *semaphore.Weighted
	maxBody   int64
	log       *slog.Logger

	draining, stopping atomic.Bool // unhealthy; refusing
	withdrawals        atomic.Int64
	withdrawing        context.Context // ends with the process
	bodyDeadline       time.Duration
}

// ServeHTTP takes everything below /async-function/.
func (a *acceptor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Not from r.URL, which may write a path in another way than it came.
	uri := r.RequestURI
	if !strings.HasPrefix(uri, "/") {
		uri = r.URL.RequestURI()
	}
	switch {
	case len(uri) > maxTargetLen:
		refuse(w, http.StatusRequestURITooLong, fmt.Sprintf("the URL is longer than %d bytes", maxTargetLen))
		return
	case strings.ContainsFunc(uri, func(c rune) bool { return c <= ' ' || c == 0x7f }): // as may come by HTTP/2
		refuse(w, http.StatusBadRequest, "the URL has a space or a control character")
		return
	case !strings.HasPrefix(uri, asyncPrefix):
		refuse(w, http.StatusNotFound, "not found")
		return
	}
	path, query, hasQuery := strings.Cut(uri, "?")
	name, rest, hasRest := strings.Cut(path[len(asyncPrefix):], "/")
	if !hasRest && (r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodDelete) {
		// A function's name or a call's ID. The function wins: nobody can
		// hide one behind an ID of his own.
		if a.functions.current.Load().functions[name] == nil {
			a.byID(w, r, name)
			return
		}
	}
	if !validName(name) {
		refuse(w, http.StatusNotFound, "no function can have this name: a letter or digit, then letters, digits and ._-, 63 at most")
		return
	}
	function, exists := a.functions.resolve(r.Context(), name)
	if !exists {
		refuse(w, http.StatusNotFound, fmt.Sprintf("function %q not found", name))
		return
	}
	target := "/" + rest
	if hasQuery {
		target += "?" + query
	}
	a.accept(w, r, &call{function: function, name: name, target: target, method: r.Method, host: r.Host})
}

// accept reads the rest of a call and answers when it is stored.
func (a *acceptor) accept(w http.ResponseWriter, r *http.Request, c *call) {
	if a.stopping.Load() || !a.store.ready.Load() {
		a.refused("not_ready")
		refuseUnready(w)
		return
	}
	if a.engine != nil && a.engine.full() {
		a.refused("disk_full")
		w.Header().Set("Retry-After", "10")
		refuse(w, http.StatusServiceUnavailable, "there is no space left for calls")
		return
	}
	callbacks, keys := r.Header.Values("X-Callback-Url"), r.Header.Values("Idempotency-Key")
	if len(callbacks) > 1 || len(keys) > 1 {
		refuse(w, http.StatusBadRequest, "X-Callback-Url and Idempotency-Key may be given once")
		return
	}
	if len(callbacks) == 1 {
		if err := validCallback(callbacks[0]); err != nil {
			refuse(w, http.StatusBadRequest, err.Error())
			return
		}
		c.callback = callbacks[0]
	}
	if len(keys) == 1 && (keys[0] == "" || len(keys[0]) > maxKeyLen) {
		refuse(w, http.StatusBadRequest, fmt.Sprintf("Idempotency-Key has to have 1 to %d bytes", maxKeyLen))
		return
	}
	release, ok := a.readBody(w, r, c)
	if !ok {
		return
	}
	defer release()
	c.header = endToEnd(r.Header)
	for _, name := range queueHeaders {
		c.header.Del(name)
	}
	c.id, c.uid, c.accepted = r.Header.Get("X-Call-Id"), newUID(), time.Now()
	if !validCallID(c.id) {
		c.id = newCallID()
	}
	// What the gateway told its own caller already.
	if n, err := strconv.ParseInt(r.Header.Get("X-Start-Time"), 10, 64); err == nil && n > 0 {
		if t := time.Unix(0, n); time.Since(t).Abs() < time.Hour {
			c.accepted = t
		}
	}
	var err error
	if len(keys) == 1 {
		err = a.once(r.Context(), c, keys[0])
	} else {
		_, err = a.enqueue(r.Context(), c, "")
		if err != nil && unsure(err) {
			a.withdraw(c)
		}
	}
	if err != nil {
		a.refused("jetstream")
		a.log.Warn("call not accepted", "function", c.function, "error", err)
		w.Header().Set("Retry-After", "1")
		refuse(w, http.StatusServiceUnavailable, "the call could not be stored")
		return
	}
	a.metrics.accepted.WithLabelValues(c.function).Inc()
	w.Header().Set("X-Call-Id", c.id)
	w.Header().Set("X-Start-Time", strconv.FormatInt(c.accepted.UnixNano(), 10))
	w.WriteHeader(http.StatusAccepted)
}

func (a *acceptor) refused(reason string) { a.metrics.refused.WithLabelValues(reason).Inc() }

// readBody reads the body into c. The memory that it takes counts until
// release.
func (a *acceptor) readBody(w http.ResponseWriter, r *http.Request, c *call) (release func(), ok bool) {
	size := r.ContentLength
	if size < 0 {
		size = a.maxBody
	}
	if size > a.maxBody {
		a.tooLarge(w)
		return nil, false
	}
	memory, weight := a.memory, max(size, leastBody)
	if size <= smallBody {
		memory = a.small
	}
	ctx, cancel := context.WithTimeout(r.Context(), memoryWait)
	defer cancel()
	if memory.Acquire(ctx, weight) != nil {
		a.refused("busy")
		w.Header().Set("Retry-After", "1")
		refuse(w, http.StatusServiceUnavailable, "too many bodies are being read at once")
		return nil, false
	}
	release = func() { memory.Release(weight) }
	http.NewResponseController(w).SetReadDeadline(time.Now().Add(a.bodyDeadline))
	body := make([]byte, 0, max(r.ContentLength, 0)+1)
	var err error
	if c.body, err = readAll(http.MaxBytesReader(w, r.Body, a.maxBody), body); err == nil {
		http.NewResponseController(w).SetReadDeadline(time.Time{})
		return release, true
	}
	release()
	_, large := errors.AsType[*http.MaxBytesError](err)
	switch {
	case large:
		a.tooLarge(w)
	case errors.Is(err, os.ErrDeadlineExceeded):
		w.Header().Set("Connection", "close")
		refuse(w, http.StatusRequestTimeout, fmt.Sprintf("the body did not arrive within %s", a.bodyDeadline))
	default:
		refuse(w, http.StatusBadRequest, "the body could not be read")
	}
	return nil, false
}

func (a *acceptor) tooLarge(w http.ResponseWriter) {
	a.refused("too_large")
	refuse(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is larger than %d bytes", a.maxBody))
}

// readAll is io.ReadAll into a buffer that may be large enough already.
func readAll(r io.Reader, b []byte) ([]byte, error) {
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if err == io.EOF {
			return b, nil
		}
		if err != nil {
			return b, err
		}
	}
}

// enqueue stores a call. With an ID it is stored once, however often it is
// enqueued within dedupeWindow.
func (a *acceptor) enqueue(ctx context.Context, c *call, id string) (duplicate bool, err error) {
	if err := a.calls.ensure(ctx, c.function); err != nil {
		return false, err
	}
	if a.engine != nil {
		a.engine.taken(len(c.body))
	}
	m := c.message(a.calls.subject(c.function, c.id, c.uid))
	if id == "" {
		_, err = a.store.calls.commit(ctx, m)
		return false, err
	}
	_, duplicate, err = a.store.publish(ctx, m, jetstream.WithMsgID(id))
	return duplicate, err
}

// withdraw takes back a call that may have been stored although its caller was
// told that it was not.
func (a *acceptor) withdraw(c *call) {
	if a.withdrawals.Add(1) > maxWithdrawals {
		a.withdrawals.Add(-1)
		return
	}
	go func() {
		defer a.withdrawals.Add(-1)
		ctx, cancel := context.WithTimeout(a.withdrawing, withdrawFor)
		defer cancel()
		for {
			err := a.cancel(ctx, c.function, c.id, c.uid, 0, c.accepted)
			if err == nil || errors.Is(err, errStarted) || sleep(ctx, time.Second) != nil {
				return
			}
		}
	}()
}

// refuse answers with one line of text.
func refuse(w http.ResponseWriter, code int, text string) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	io.WriteString(w, text+"\n")
}

func refuseUnready(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "1")
	refuse(w, http.StatusServiceUnavailable, "not ready: stopping, or JetStream cannot be reached")
}
