package watchdog

// Modes fork, streaming and cgi: one process per request.

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"syscall"
	"time"
)

const (
	// maxBriefWaits bounds the threads that wait for processes to end soon.
	maxBriefWaits = 32

	// maxRedirects bounds the local redirects of one request in mode cgi.
	maxRedirects = 5
)

func (h *Handler) serveFork(w *reply, r *http.Request) {
	for range maxRedirects {
		if r = h.invoke(w, r); r == nil {
			return
		}
	}
	h.log.Warn("too many local redirects", "call_id", r.Header.Get("X-Call-Id"), "limit", maxRedirects)
	fail(w, http.StatusBadGateway, "function redirects for ever")
}

// invoke runs one process and answers with its output. It returns nil, or the
// request to go on with after a local redirect.
func (h *Handler) invoke(w *reply, r *http.Request) *http.Request {
	buf := h.buffer()
	defer h.recycle(buf)
	i := &invocation{h: h, w: w, r: r, body: w.body}

	i.started = time.Now()
	i.ctx, i.cancel, i.limit = h.limited(r)
	defer i.cancel(nil)
	input, whole, err := i.readInput(*buf)
	if err != nil {
		i.bodyFailed(err)
		return nil
	}
	defer i.kept.close()
	env, err := h.requestEnviron(i.r)
	if err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return nil
	}

	i.answer = answer{w: w, buf: buf, hold: h.cfg.BufferOutput, open: i.open}
	if h.cfg.Mode == ModeStreaming {
		i.answer.hold, i.answer.flush = 0, true
	}
	if p := h.ready.take(); p != nil {
		i.p, i.input = p, input
	} else if i.p, err = h.program.start(env, h.wiring(input, whole), &h.family); err != nil {
		i.startFailed(err)
		return nil
	}
	defer i.p.release()
	stop := context.AfterFunc(i.ctx, i.p.terminate)
	defer stop()

	if whole && h.cfg.Mode != ModeStreaming && i.p.done == nil && h.endsSoon(i.p) {
		i.takeAll()
	} else {
		i.follow(whole)
	}
	return i.conclude()
}

// endsSoon waits a moment for the process to end, if not too many others are
// waited for in that way.
func (h *Handler) endsSoon(p *process) bool {
	defer h.briefWaits.Add(-1)
	return h.briefWaits.Add(1) <= maxBriefWaits && p.endsSoon()
}

func (h *Handler) requestEnviron(r *http.Request) ([]string, error) {
	switch {
	case h.cfg.Mode == ModeCGI:
		return cgiEnviron(h.environ, r)
	case h.cfg.CGIHeaders:
		return requestEnviron(h.environ, r)
	}
	return h.environ, nil
}

func (h *Handler) wiring(input []byte, whole bool) wiring {
	w := wiring{input: input, stdin: !whole, combine: h.cfg.CombineOut}
	if !h.cfg.PrefixLogs {
		w.stderr = os.Stderr
	}
	return w
}

// readInput reads a body that is known to be short into b, and reports whether
// that is the whole body. A body whose length the process has to be told is read
// to its end.
func (i *invocation) readInput(b []byte) (input []byte, whole bool, err error) {
	r := i.r
	if r.ContentLength == 0 || r.Body == nil || r.Body == http.NoBody {
		return nil, true, nil
	}
	if r.ContentLength < 0 && i.h.cfg.Mode == ModeCGI {
		return i.keepBody()
	}
	if r.ContentLength < 0 || r.ContentLength > pipeBody {
		return nil, false, nil
	}
	b = b[:r.ContentLength]
	i.body.limit(i.ctx)
	_, err = io.ReadFull(i.body, b)
	return b, true, err
}

// bodyFailed answers when a body broke off before there was a process, or could
// not be kept.
func (i *invocation) bodyFailed(err error) {
	if i.bodyNotKept(err) {
		return
	}
	if end, limited := i.ctx.Deadline(); limited && !time.Now().Before(end) {
		i.h.log.Warn("invocation failed", "call_id", i.callID(), "error", errLimit, "duration", time.Since(i.started))
		i.limitReached()
		return
	}
	i.h.log.Warn("cannot read body", "call_id", i.callID(), "error", err)
	fail(i.w, http.StatusBadRequest, "cannot read the request body")
}

// startFailed answers when no process could be started. A request that is too large
// for an environment is the caller's fault; other failures may be temporary.
func (i *invocation) startFailed(err error) {
	i.h.log.Error("cannot start process", "call_id", i.callID(), "error", err)
	if errors.Is(err, syscall.E2BIG) && (i.h.cfg.CGIHeaders || i.h.cfg.Mode == ModeCGI) {
		fail(i.w, http.StatusRequestHeaderFieldsTooLarge, "the request's headers do not fit into an environment")
		return
	}
	refuse(i.w, http.StatusServiceUnavailable, "the process cannot be started now")
}
