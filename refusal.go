package main

// Answers of one line that no function gives, and what becomes of the body of a
// request that gets one: its connection is kept where the body is here, or else
// closed, after an answer that does not wait for it.

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"faas/internal/naming"
	"faas/internal/wire"
)

const (
	// refusalWait is how long a refusal waits for a body, so that callers that
	// send it right after the head keep their connections.
	refusalWait = 10 * time.Millisecond
	refusalTake = 256 << 10 // bytes of a body taken, and thrown away
)

// refuse answers r with one line of text.
func refuse(w http.ResponseWriter, r *http.Request, code int, text string) {
	settleBody(w, r)
	writeLine(w, code, text)
}

// refuseUnknown answers for a name that is no function's. It repeats the name
// only as far as it could be one.
func refuseUnknown(w http.ResponseWriter, r *http.Request, name string) {
	if !naming.IsFunction(name) {
		refuse(w, r, http.StatusNotFound, "no function can have this name: a letter or digit, then letters, digits and ._-, 63 at most")
		return
	}
	refuse(w, r, http.StatusNotFound, fmt.Sprintf("function %q not found", name))
}

// writeLine writes an answer. The caller is told its length, and so need not wait
// for its end.
func writeLine(w http.ResponseWriter, code int, text string) {
	h := w.Header()
	h.Set("Content-Length", strconv.Itoa(len(text)+1))
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	io.WriteString(w, text+"\n")
}

// settleBody is called before an answer that is not made from the body of r.
func settleBody(w http.ResponseWriter, r *http.Request) {
	if r.Body == nil || r.Body == http.NoBody || r.ProtoMajor != 1 {
		return
	}
	control := http.NewResponseController(w)
	until := func(t time.Time) { control.SetReadDeadline(t) }
	if r.Header["Expect"] == nil && takeBody(until, r.ContentLength, r.Body) {
		return
	}
	closeAfter(w, r)
}

// settle is settleBody for an invocation that gets no answer from its function. r is
// the caller's request, or the one that ReverseProxy made of it.
func (inv *invocation) settle(w http.ResponseWriter, r *http.Request) {
	if !inv.unread(r) || r.ProtoMajor != 1 {
		return
	}
	body := io.Reader(r.Body)
	if inv.body != nil {
		body = inv.body.open() // the transport may still be reading
	}
	control := http.NewResponseController(w)
	until := func(t time.Time) { inv.readUntil(control, t) }
	if !inv.expects && takeBody(until, r.ContentLength, body) {
		return
	}
	closeAfter(w, r)
}

// takeBody reports whether all of a body was here and has been read, so that its
// connection can be kept. length is -1 if unknown. until sets when reads end.
func takeBody(until func(time.Time), length int64, body io.Reader) bool {
	if length <= refusalTake {
		until(time.Now().Add(refusalWait))
		if _, err := io.CopyN(io.Discard, body, refusalTake+1); err == io.EOF {
			until(time.Time{})
			return true
		}
	}
	return false
}

// closeAfter has the connection of r closed after the answer. The caller, who may
// still send, can read it nevertheless. From now on nobody waits for the body.
func closeAfter(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Connection", "close")
	http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0))
	wire.LetSend(r.Context())
}
