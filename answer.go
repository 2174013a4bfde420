package main

// How an invocation ends: the function's answer, or the one that the gateway
// gives in its place.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"time"
)

// statusClientGone is counted and never sent: the caller went away.
const statusClientGone = 499

// brokenOff tells by whom an answer was cut short.
func brokenOff(ctx context.Context) int {
	switch {
	case errors.Is(context.Cause(ctx), context.DeadlineExceeded):
		return http.StatusGatewayTimeout
	case ctx.Err() != nil:
		return statusClientGone
	}
	return http.StatusBadGateway
}

// answered is called with the function's own answer.
func (g *gateway) answered(resp *http.Response) error {
	inv := invocationOf(resp.Request.Context())
	inv.code = resp.StatusCode
	values := &[3]string{inv.callID, inv.started, seconds(time.Since(inv.start))}
	resp.Header["X-Call-Id"] = values[0:1:1]
	resp.Header["X-Start-Time"] = values[1:2:2]
	resp.Header["X-Duration-Seconds"] = values[2:3:3]
	// What is left of a body must never be read as the next request.
	if inv.body != nil && !inv.body.ended.Load() && resp.Request.ProtoMajor == 1 {
		resp.Header["Connection"] = []string{"close"}
	}
	return nil
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', 6, 64) }

// failed answers an invocation that got no answer from its function.
func (g *gateway) failed(w http.ResponseWriter, r *http.Request, err error) {
	inv := invocationOf(r.Context())
	var text string
	inv.code, text = outcome(r.Context(), inv.f, err)
	inv.err = err
	if inv.code == statusClientGone {
		panic(http.ErrAbortHandler) // returning would answer with an empty 200
	}
	h := w.Header()
	if inv.unread(r) && r.ProtoMajor == 1 {
		h.Set("Connection", "close")
	}
	h.Set("X-Call-Id", inv.callID)
	h.Set("X-Start-Time", strconv.FormatInt(inv.start.UnixNano(), 10))
	h.Set("X-Duration-Seconds", seconds(time.Since(inv.start)))
	if inv.code == http.StatusServiceUnavailable || inv.code == http.StatusTooManyRequests {
		h.Set("Retry-After", "1")
	}
	refuse(w, inv.code, text)
	if inv.code >= 500 {
		g.log.Warn("invocation failed", "function", inv.f.name, "call_id", inv.callID, "status", inv.code, "error", err)
	}
}

// outcome is the one place where errors become statuses. The text names the
// function and the limit, and nothing internal.
func outcome(ctx context.Context, f *function, err error) (code int, text string) {
	def := f.def.Load()
	switch {
	case errors.Is(err, errNotFound):
		return http.StatusNotFound, fmt.Sprintf("function %q not found", f.name)
	case errors.Is(err, errTooMany):
		return http.StatusTooManyRequests, fmt.Sprintf("function %q: %s", f.name, err)
	case errors.Is(err, errNoReplica):
		return http.StatusServiceUnavailable, fmt.Sprintf("function %q: no replica became ready in time", f.name)
	case errors.Is(err, errUnreachable): // before the limit: a dial that timed out is a DeadlineExceeded too
		return http.StatusBadGateway, fmt.Sprintf("function %q: no replica accepts connections", f.name)
	case errors.Is(err, errInvalidRequest):
		return http.StatusBadRequest, "the request is malformed: its method, host or a trailer's name cannot be sent on"
	case errors.Is(err, context.DeadlineExceeded) && stageOf(err) != stageDial:
		return http.StatusGatewayTimeout, fmt.Sprintf("function %q did not answer within %s", f.name, def.timeout)
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return statusClientGone, ""
	case errors.Is(err, errRequestBody), errors.Is(err, errRefused):
		return http.StatusBadRequest, "the request's body is malformed or incomplete"
	}
	return http.StatusBadGateway, fmt.Sprintf("function %q: the connection to its replica broke", f.name)
}

// refuse answers with one line of text.
func refuse(w http.ResponseWriter, code int, text string) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	io.WriteString(w, text+"\n")
}

// refuseUnknown answers for a name that is no function's. It repeats the name
// only as far as it could be one.
func refuseUnknown(w http.ResponseWriter, name string) {
	if !validName(name) {
		refuse(w, http.StatusNotFound, "no function can have this name: a letter or digit, then letters, digits and ._-, 63 at most")
		return
	}
	refuse(w, http.StatusNotFound, fmt.Sprintf("function %q not found", name))
}

func (g *gateway) refuseAlexa(w http.ResponseWriter, r *http.Request, err error) {
	reason := "internal"
	if refusal, ok := errors.AsType[*alexaRefusal](err); ok {
		reason = refusal.reason
	}
	g.metrics.alexaRefusals.WithLabelValues(reason).Inc()
	g.log.Warn("alexa request refused", "reason", reason, "remote", r.RemoteAddr, "error", err)
	refuse(w, http.StatusBadRequest, "this request does not pass the checks of the Alexa Skills Kit: "+reason)
}

func (g *gateway) logAccess(r *http.Request, inv *invocation, now time.Time) {
	if !g.config.accessLog {
		return
	}
	attrs := []slog.Attr{
		slog.String("function", inv.f.name), slog.String("route", inv.kind), slog.String("method", r.Method),
		slog.String("path", r.URL.EscapedPath()), slog.Int("status", inv.code),
		slog.Duration("duration", now.Sub(inv.start)), slog.String("call_id", inv.callID), slog.String("remote", r.RemoteAddr),
	}
	if inv.err != nil {
		attrs = append(attrs, slog.String("error", inv.err.Error()))
	}
	g.log.LogAttrs(r.Context(), slog.LevelInfo, "request", attrs...)
}
