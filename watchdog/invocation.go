package watchdog

// One request and its process.

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// An invocation is one request and its process.
type invocation struct {
	h       *Handler
	w       http.ResponseWriter
	r       *http.Request
	control *http.ResponseController
	p       *process
	input   []byte // body that the process does not have yet
	answer  answer
	body    *timedReader // what the process reads while it runs; nil if it has it all

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
		i.control.EnableFullDuplex() // HTTP/1 else reads the whole body before the first write
		i.body = &timedReader{body: i.r.Body, control: i.control, timeout: i.h.cfg.ReadTimeout}
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
		if !i.answer.committed {
			i.closeUnlessRead()
		}
	}
	<-logged
}

// closeUnlessRead keeps the connection from being used again with the rest of
// a body in it.
func (i *invocation) closeUnlessRead() {
	if i.body != nil && !i.body.ended() {
		i.w.Header().Set("Connection", "close")
	}
}

// closeBody closes the body, whose end net/http must not meet after the
// handler has returned: with full duplex it panics then. answered says that the
// client is to get what was written.
func (i *invocation) closeBody(answered bool) {
	switch {
	case i.body == nil || i.body.ended():
	case answered:
		i.control.Flush() // the answer does not wait for a client that still sends
		i.body.linger()
	default:
		i.body.interrupt()
		i.body.Close()
	}
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
	i.closeUnlessRead()
	if _, chosen := header["Content-Type"]; !chosen {
		header.Set("Content-Type", i.contentType())
	}
	return status, output, nil
}

func (i *invocation) contentType() string {
	if t := i.h.cfg.ContentType; t != "" {
		return t
	}
	if t := i.r.Header.Get("Content-Type"); t != "" && i.h.cfg.Mode != ModeCGI {
		return t
	}
	return "application/octet-stream"
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
	i.answer.renew()
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
		http.Error(i.w, "function wrote a malformed CGI header", http.StatusBadGateway)
	}
	return nil
}

func (i *invocation) limitReached() {
	http.Error(i.w, "function exceeded its limit of "+i.limit.String(), http.StatusGatewayTimeout)
}

// redirected returns the request that a local redirect (RFC 3875, section
// 6.2.2) asks for, or nil if there is none. It has what is left of the limit.
func (i *invocation) redirected(took time.Duration) *http.Request {
	if i.h.cfg.Mode != ModeCGI || i.answer.committed {
		return nil
	}
	head, _, err := parseCGIHeader(*i.answer.buf)
	if err != nil || head.redirect == "" {
		return nil
	}
	to, err := url.ParseRequestURI(head.redirect)
	if err != nil {
		return nil
	}
	next := i.r.Clone(i.r.Context())
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
