package watchdog

// The client's side of a request: writing to it, and the rest of an unread body.

import (
	"net/http"
	"time"
)

// A reply is the ResponseWriter of every request, and knows its body. It waits
// for its client no longer than write_timeout at a time. A connection with the
// rest of a body in it is closed, so that it is never taken for another request.
type reply struct {
	http.ResponseWriter
	h       *Handler
	control *http.ResponseController
	body    *timedReader // nil: the request has none

	duplex   bool // body and answer pass at the same time
	begun    bool // status and header are out
	status   int  // once begun
	written  int64
	upgraded bool // the connection is no longer the server's
}

// newReply returns the reply to r, and r with the body that the reply knows.
func (h *Handler) newReply(w http.ResponseWriter, r *http.Request) (*reply, *http.Request) {
	p := &reply{ResponseWriter: w, h: h, control: http.NewResponseController(w)}
	if r.Body == nil || r.Body == http.NoBody {
		return p, r
	}
	p.body = &timedReader{body: r.Body, control: p.control, length: r.ContentLength, expects: r.Header["Expect"] != nil, timeout: h.cfg.ReadTimeout}
	known := *r // net/http has to find its own body in r
	known.Body = p.body
	return p, &known
}

// fullDuplex lets body and answer pass at the same time. Without it net/http
// reads what is left of the body before the first write, and throws it away.
func (p *reply) fullDuplex() {
	if p.body != nil {
		p.duplex = true
		p.control.EnableFullDuplex() // what is not HTTP/1 is so from the start
	}
}

// flows reports whether the client may be sending its body yet.
func (p *reply) flows() bool { return p.duplex && !p.body.ended() }

func (p *reply) WriteHeader(status int) {
	if status < 200 {
		p.ResponseWriter.WriteHeader(status)
		return
	}
	p.begun, p.status = true, status
	header := p.Header()
	if _, given := header["Content-Type"]; !given {
		header["Content-Type"] = nil // net/http would make one up
	}
	if p.h.draining.Load() {
		header.Set("Connection", "close")
	}
	switch {
	case p.body == nil || p.body.ended():
	case p.duplex || p.body.failed() != nil:
		header.Set("Connection", "close")
	case !p.body.take():
		p.fullDuplex() // or the answer waits for the body
		header.Set("Connection", "close")
	}
	p.ResponseWriter.WriteHeader(status)
	if p.flows() {
		p.FlushError() // what the client sends may depend on it
	}
}

func (p *reply) Write(b []byte) (int, error) {
	if !p.begun {
		p.WriteHeader(http.StatusOK)
	}
	p.renew()
	n, err := p.ResponseWriter.Write(b)
	p.written += int64(n)
	if err == nil && p.flows() {
		err = p.control.Flush()
	}
	return n, err
}

func (p *reply) FlushError() error {
	if !p.begun {
		p.WriteHeader(http.StatusOK)
	}
	p.renew()
	return p.control.Flush()
}

// Unwrap is for http.ResponseController.
func (p *reply) Unwrap() http.ResponseWriter { return p.ResponseWriter }

// renew restarts write_timeout.
func (p *reply) renew() {
	if timeout := p.h.cfg.WriteTimeout; timeout > 0 {
		p.control.SetWriteDeadline(time.Now().Add(timeout)) // a writer without deadlines has none
	}
}

// close settles what is left of the body: net/http must not meet its end after
// the handler has returned, with full duplex it panics then. answered says that
// the client is to get what was written; else it must not pass for an answer.
func (p *reply) close(answered bool, r *http.Request) {
	p.renew() // net/http writes the end of the answer
	switch {
	case p.upgraded:
	case !answered:
		if p.body != nil {
			p.body.interrupt()
			p.body.Close()
		}
		if !r.ProtoAtLeast(1, 1) {
			p.reset()
		}
	case p.flows():
		if conn, ok := r.Context().Value(connKey{}).(*lingeringConn); ok {
			conn.lingers.Store(p.control.Flush() == nil)
			p.body.interrupt() // the end of the answer does not wait for a client that still sends
		} else {
			p.control.Flush()
			p.control.SetReadDeadline(time.Now().Add(bodyLinger))
		}
		p.body.Close()
	}
}

// reset aborts the connection. For an HTTP/1.0 client a regular close marks the end
// of a response.
func (p *reply) reset() {
	conn, _, err := p.control.Hijack()
	if err != nil {
		return // net/http closes it
	}
	if lingerer, ok := conn.(interface{ SetLinger(int) error }); ok {
		lingerer.SetLinger(0)
	}
	conn.Close()
}
