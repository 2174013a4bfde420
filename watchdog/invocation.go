package watchdog

// One request and its process.

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// An invocation is one request and its process.
type invocation struct {
	h      *Handler
	w      *reply
	r      *http.Request
	p      *process
	input  []byte       // body that the process does not have yet
	body   *timedReader // what is not in input
	kept   *keptBody    // what body reads from, if not from the client
	answer answer

	ctx     context.Context
	cancel  context.CancelCauseFunc
	limit   time.Duration // 0: none
	started time.Time
	failed  error // why the answer could not be sent, or the body not read
}

// takeAll takes the output of a process that has ended.
func (i *invocation) takeAll() {
	if i.p.stderr != nil {
		logLines(i.h.log, i.p.stderr, i.callID())
	}
	i.failed = i.answer.readFrom(i.p.stdout)
}

// follow carries the body in and the output out until the process ends.
func (i *invocation) follow(whole bool) {
	if i.p.done == nil {
		i.p.attach()
	}
	var feeding *feeder
	switch {
	case i.p.stdin == nil:
	case whole:
		i.p.stdin.file.Write(i.input) // fits into the pipe; the process need not read it
		i.p.stdin.close()
	default:
		i.w.fullDuplex()
		feeding = &feeder{in: i.p.stdin, body: i.body}
		feeding.start(func() { i.cancel(errGone) })
	}
	logged := make(chan struct{})
	go func() {
		defer close(logged)
		if i.p.stderr != nil {
			logLines(i.h.log, i.p.stderr, i.callID())
		}
	}()
	if i.failed = i.answer.readFrom(i.p.stdout); i.failed != nil {
		i.p.terminate()
	}
	<-i.p.done
	if feeding != nil {
		if err := feeding.stop(); err != nil && i.failed == nil {
			i.failed = clientError{err}
		}
	}
	<-logged
}

// open makes the header of the answer.
func (i *invocation) open(header http.Header, output []byte) (int, []byte, error) {
	status := http.StatusOK
	if i.h.cfg.Mode == ModeCGI {
		head, body, err := parseCGIHeader(output)
		if err != nil {
			return 0, nil, err
		}
		for name, values := range head.header {
			header[name] = values
		}
		output = body
		if head.status != 0 {
			status = head.status
		}
	}
	if _, chosen := header["Content-Type"]; !chosen {
		header.Set("Content-Type", i.contentType(output))
	}
	return status, output, nil
}

// contentType returns the type of an answer that begins with output.
func (i *invocation) contentType(output []byte) string {
	if t := i.h.cfg.ContentType; t != "" {
		return t
	}
	if i.h.cfg.Mode == ModeCGI {
		return "application/octet-stream" // the script could have said
	}
	if t := i.r.Header.Get("Content-Type"); t != "" {
		return t
	}
	return http.DetectContentType(output)
}

// An exitError is the exit code of a process that failed, as a shell has it.
type exitError int

func (e exitError) Error() string { return "exit code " + strconv.Itoa(int(e)) }

// outcome says what became of the process, once it has ended: nil, errGone,
// errLimit, an exitError, or what is wrong with its header.
func (i *invocation) outcome() error {
	code := i.p.exitCode()
	switch {
	case errors.As(i.failed, new(clientError)):
		return errGone
	case i.failed != nil:
		return i.failed
	case i.p.wasTerminated() && errors.Is(context.Cause(i.ctx), errLimit):
		return errLimit
	case i.p.wasTerminated():
		return errGone
	case code != 0:
		return exitError(code)
	}
	return nil
}

// conclude answers for a process that has ended. It returns nil, or the request
// to go on with after a local redirect. A response that has started and cannot
// be completed is aborted, so that its client sees an error and never a short
// 200.
func (i *invocation) conclude() *http.Request {
	took := time.Since(i.started)
	err := i.outcome()
	if err == nil {
		if next := i.redirected(took); next != nil {
			return next
		}
		if !i.answer.committed {
			i.w.Header().Set("X-Duration-Seconds", strconv.FormatFloat(took.Seconds(), 'f', 6, 64))
		}
		err = i.answer.finish(0)
	}
	if err == nil || errors.As(err, new(clientError)) {
		return nil
	}
	i.h.log.Warn("invocation failed", "call_id", i.callID(), "error", err, "duration", took)
	if err == errGone || i.answer.committed {
		panic(http.ErrAbortHandler)
	}
	var code exitError
	switch {
	case err == errLimit:
		i.limitReached()
	case errors.As(err, &code):
		i.w.Header().Set("X-Exit-Code", strconv.Itoa(int(code)))
		i.answer.finish(http.StatusInternalServerError) // fails only if the client is gone
	default:
		i.w.Header().Del("X-Duration-Seconds")
		fail(i.w, http.StatusBadGateway, "function wrote a malformed CGI header")
	}
	return nil
}

func (i *invocation) limitReached() {
	fail(i.w, http.StatusGatewayTimeout, "function exceeded its limit of "+i.limit.String())
}

// redirected returns the request that a local redirect (RFC 3875, section
// 6.2.2) asks for, or nil if there is none. It has what is left of the limit. A
// script may name itself by SCRIPT_NAME or by the path alone that it sees.
func (i *invocation) redirected(took time.Duration) *http.Request {
	if i.h.cfg.Mode != ModeCGI || i.answer.committed {
		return nil
	}
	head, _, err := parseCGIHeader(*i.answer.buf)
	if err != nil || head.redirect == "" {
		return nil
	}
	path := head.redirect
	if rest, ok := strings.CutPrefix(path, scriptName(i.r.Header)); ok && (rest == "" || strings.HasPrefix(rest, "/") || strings.HasPrefix(rest, "?")) {
		path = "/" + strings.TrimPrefix(rest, "/")
	}
	to, err := url.ParseRequestURI(path)
	if err != nil {
		return nil
	}
	ctx := i.r.Context()
	if i.w.flows() {
		// The read of the body that was interrupted is a client that has gone
		// for net/http.
		ctx = context.WithoutCancel(ctx)
	}
	next := i.r.Clone(ctx)
	next.URL, next.Body, next.ContentLength, next.TransferEncoding = to, http.NoBody, 0, nil
	if next.Method != http.MethodHead {
		next.Method = http.MethodGet
	}
	next.Header.Del("Content-Type")
	next.Header.Del("Content-Length")
	if i.limit > 0 {
		next.Header.Set("X-Timeout", max(i.limit-took, time.Nanosecond).String())
	}
	return next
}

func (i *invocation) callID() string { return i.r.Header.Get("X-Call-Id") }
