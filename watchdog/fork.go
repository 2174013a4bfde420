package watchdog

// Modes fork and streaming: one process per request, STDIN to STDOUT.

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"syscall"
	"time"
)

// smallBody is how much of a body is read before the process starts: what a
// pipe takes at once, so that nothing has to copy beside the process.
const smallBody = bufferSize

func (h *Handler) serveFork(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	buf := h.buffer()
	defer h.recycle(buf)

	small, err := h.smallBody(control, r, buf)
	if err != nil {
		http.Error(w, "cannot read the request body", http.StatusBadRequest)
		return
	}
	env := h.environ
	if h.cfg.CGIHeaders {
		if env, err = requestEnviron(env, r); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	started := time.Now()
	ctx, cancel, limit := h.limited(r)
	defer cancel(nil)
	p, err := h.program.start(env, h.wiring(small == nil || len(small) > 0), &h.family)
	if err != nil {
		h.startFailed(w, r, err)
		return
	}
	defer p.release()
	stop := context.AfterFunc(ctx, p.terminate)
	defer stop()

	var feeding *feeder
	if p.stdin != nil {
		n, err := 0, error(nil)
		if small != nil {
			n, err = p.stdin.offer(small)
		}
		if err == nil && small != nil && n == len(small) {
			p.stdin.close()
		} else {
			control.EnableFullDuplex() // HTTP/1 else reads the body before the first write
			var rest io.Reader = r.Body
			if small != nil {
				rest = newCopyReader(small[n:])
			}
			feeding = feed(p.stdin, control, rest, h.cfg.ReadTimeout, func(error) { cancel(errGone) })
		}
	}
	logged := h.logStderr(p, r)

	*buf = (*buf)[:0]
	a := answer{
		w: w, control: control, timeout: h.cfg.WriteTimeout,
		buf: buf, hold: h.cfg.BufferOutput,
		header: func(head http.Header) { h.setContentType(head, r) },
	}
	if h.cfg.Mode == ModeStreaming {
		a.hold, a.flush = 0, true
	}
	if a.failed = a.readFrom(p.stdout); a.failed != nil {
		cancel(errGone)
		p.terminate()
	}
	<-p.done
	if feeding != nil {
		feeding.stop()
	}
	<-logged
	h.conclude(&a, r, p, ctx, limit, started)
}

// conclude answers for a process that has ended. A response that has started
// and cannot be completed is aborted, so that its client sees an error and
// never a short 200.
func (h *Handler) conclude(a *answer, r *http.Request, p *process, ctx context.Context, limit time.Duration, started time.Time) {
	log := h.log.With("call_id", r.Header.Get("X-Call-Id"), "duration", time.Since(started))
	code := p.exitCode()
	switch {
	case a.failed != nil, p.wasTerminated() && !errors.Is(context.Cause(ctx), errLimit):
		log.Info("client went away", "exit_code", code)
		panic(http.ErrAbortHandler)
	case p.wasTerminated():
		log.Warn("limit reached", "limit", limit)
		if a.committed {
			panic(http.ErrAbortHandler)
		}
		http.Error(a.w, "function exceeded its limit of "+limit.String(), http.StatusGatewayTimeout)
	case code != 0:
		log.Warn("process failed", "exit_code", code)
		if a.committed {
			panic(http.ErrAbortHandler)
		}
		a.w.Header().Set("X-Exit-Code", strconv.Itoa(code))
		h.setContentType(a.w.Header(), r)
		a.finish(http.StatusInternalServerError)
	default:
		if !a.committed {
			h.setContentType(a.w.Header(), r)
			a.w.Header().Set("X-Duration-Seconds", strconv.FormatFloat(time.Since(started).Seconds(), 'f', 6, 64))
		}
		a.finish(http.StatusOK)
	}
}

// smallBody reads the body if it is known to be small: nil means that it has
// not been read, empty that there is none.
func (h *Handler) smallBody(control *http.ResponseController, r *http.Request, buf *[]byte) ([]byte, error) {
	if r.ContentLength == 0 || r.Body == nil || r.Body == http.NoBody {
		return []byte{}, nil
	}
	if r.ContentLength < 0 || r.ContentLength > smallBody {
		return nil, nil
	}
	b := (*buf)[:r.ContentLength]
	_, err := io.ReadFull(&timedReader{r.Body, control, h.cfg.ReadTimeout}, b)
	return b, err
}

func (h *Handler) wiring(body bool) wiring {
	w := wiring{stdin: body, combine: h.cfg.CombineOut}
	if !h.cfg.PrefixLogs {
		w.stderr = os.Stderr
	}
	return w
}

// logStderr logs what the process writes to STDERR, until the channel closes.
func (h *Handler) logStderr(p *process, r *http.Request) <-chan struct{} {
	done := make(chan struct{})
	if p.stderr == nil {
		close(done)
		return done
	}
	go func() {
		defer close(done)
		logLines(h.log, p.stderr, r.Header.Get("X-Call-Id"))
	}()
	return done
}

// startFailed answers when no process could be started.
func (h *Handler) startFailed(w http.ResponseWriter, r *http.Request, err error) {
	h.log.Error("cannot start process", "call_id", r.Header.Get("X-Call-Id"), "error", err)
	if errors.Is(err, syscall.E2BIG) && h.cfg.CGIHeaders {
		http.Error(w, "the request's headers do not fit into an environment", http.StatusRequestHeaderFieldsTooLarge)
		return
	}
	refuse(w, http.StatusServiceUnavailable, "the process cannot be started now")
}

func (h *Handler) setContentType(head http.Header, r *http.Request) {
	t := h.cfg.ContentType
	if t == "" {
		t = r.Header.Get("Content-Type")
	}
	if t == "" {
		t = "application/octet-stream"
	}
	head.Set("Content-Type", t)
}

// newCopyReader returns a reader of a copy of b, whose memory has other uses.
func newCopyReader(b []byte) io.Reader {
	return bytes.NewReader(bytes.Clone(b))
}
