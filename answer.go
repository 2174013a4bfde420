package main

// How an invocation ends: the function's answer, or the one that the gateway
// gives in its place; and requests that can be sent to no function.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"faas/internal/field"
	"faas/internal/transport"
	"faas/internal/wire"
)

// statusClientGone is counted and never sent: the caller went away.
const statusClientGone = 499

// brokenOff tells by whom an answer was cut short.
func brokenOff(ctx context.Context) int {
	switch {
	case errors.Is(context.Cause(ctx), context.DeadlineExceeded):
		return http.StatusGatewayTimeout
	case ctx.Err() != nil, invocationOf(ctx).body.failure() != nil:
		return statusClientGone
	}
	return http.StatusBadGateway
}

// modifyResponse is called with the function's own answer.
func (g *gateway) modifyResponse(resp *http.Response) error {
	inv := invocationOf(resp.Request.Context())
	inv.code = resp.StatusCode
	values := &[3]string{inv.callID, inv.started, seconds(time.Since(inv.start))}
	resp.Header["X-Call-Id"] = values[0:1:1]
	resp.Header["X-Start-Time"] = values[1:2:2]
	resp.Header["X-Duration-Seconds"] = values[2:3:3]
	if conn, ok := resp.Body.(io.ReadWriteCloser); ok && resp.StatusCode == http.StatusSwitchingProtocols {
		inv.upgrade()
		inv.conn = &upgradedConn{conn, &inv.guard}
		resp.Body = inv.conn
	}
	if resp.Header["Content-Type"] == nil {
		inv.w.Header()["Content-Type"] = nil // or net/http would guess one
	}
	// What is left of a body must never be read as the next request.
	if inv.unread(resp.Request) {
		if resp.Request.ProtoMajor == 1 {
			resp.Header["Connection"] = []string{"close"}
		}
		// A caller that still sends may wait for what was answered so far.
		// ReverseProxy flushes at once where it does not know the length; the
		// header keeps it.
		resp.ContentLength = -1
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
	if errors.Is(err, transport.ErrRequestBody) && !errors.Is(err, wire.ErrRefused) { // that has been counted
		g.metrics.refused(malformedShortEnd)
	}
	if errors.Is(err, errStalledBody) {
		g.metrics.refused(stalledBody)
	}
	if inv.code == statusClientGone {
		panic(http.ErrAbortHandler) // returning would answer with an empty 200
	}
	h := w.Header()
	inv.settle(w, r)
	inv.guard.answer(http.NewResponseController(w))
	h.Set("X-Call-Id", inv.callID)
	h.Set("X-Start-Time", strconv.FormatInt(inv.start.UnixNano(), 10))
	h.Set("X-Duration-Seconds", seconds(time.Since(inv.start)))
	if inv.code == http.StatusServiceUnavailable || inv.code == http.StatusTooManyRequests {
		h.Set("Retry-After", "1")
	}
	if inv.code >= http.StatusInternalServerError || inv.code == http.StatusTooManyRequests {
		h.Set("X-OpenFaaS-Internal", "gateway") // OpenFaaS's queue-workers try again what no function answered
	}
	writeLine(w, inv.code, text)
	if t, _ := errors.AsType[*trouble](err); inv.code >= 500 && !t.isFailing() { // that, the registry logs once
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
		text = fmt.Sprintf("function %q: no replica became ready in time", f.name)
		if t, ok := errors.AsType[*trouble](err); ok {
			text += ": " + t.reason
		}
		return http.StatusServiceUnavailable, text
	case errors.Is(err, errUnreachable): // before the limit: a dial that timed out is a DeadlineExceeded too
		return http.StatusBadGateway, fmt.Sprintf("function %q: no replica accepts connections", f.name)
	case errors.Is(err, transport.ErrInvalidRequest):
		return http.StatusBadRequest, "the request is malformed"
	case errors.Is(err, transport.ErrRequestBody):
		return http.StatusBadRequest, "the request's body is malformed or incomplete"
	case errors.Is(err, errStalledBody): // RFC 9110, section 15.5.9
		return http.StatusRequestTimeout, fmt.Sprintf("function %q was not called: the request's body did not arrive within %s", f.name, def.timeout)
	case errors.Is(err, context.DeadlineExceeded):
		return http.StatusGatewayTimeout, fmt.Sprintf("function %q did not answer within %s", f.name, def.timeout)
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return statusClientGone, ""
	}
	return http.StatusBadGateway, fmt.Sprintf("function %q: the connection to its replica broke", f.name)
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

const (
	malformedMethod   = "invalid method"
	malformedHost     = "invalid host"
	malformedQuery    = "space or control character in the query"
	malformedUpgrade  = "invalid Upgrade"
	malformedShortEnd = "incomplete body"
	stalledBody       = "stalled body"
	malformedTrailer  = "forbidden trailer" // as internal/wire says it
)

// unsendable returns why r can be sent to no function, or "".
func unsendable(r *http.Request) string {
	switch {
	case !field.IsToken(r.Method):
		return malformedMethod
	case r.Host != "" && !field.IsHost(r.Host):
		return malformedHost
	case r.URL.RawQuery != "" && !field.IsTarget(r.URL.RawQuery):
		return malformedQuery
	}
	for _, protocol := range r.Header["Upgrade"] {
		for i := range len(protocol) {
			if protocol[i] >= 0x7f { // net/http refuses what is below a space
				return malformedUpgrade
			}
		}
	}
	for name := range r.Trailer {
		if !field.IsToken(name) || field.IsDerived(name) {
			return malformedTrailer
		}
	}
	return ""
}
