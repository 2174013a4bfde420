package watchdog

// The watchdog's own failures, as opposed to the function's answers.

import (
	"io"
	"net/http"
	"strconv"
)

// internalHeader marks an answer that no function made: OpenFaaS's queue-worker
// tries such a call again whatever its status.
const internalHeader = "X-OpenFaaS-Internal"

// fail answers in the function's place. The client is told the length of the text,
// and so need not wait for its end.
func fail(w http.ResponseWriter, status int, text string) {
	h := w.Header()
	h.Set(internalHeader, "fwatchdog")
	h.Set("Content-Length", strconv.Itoa(len(text)+1))
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	io.WriteString(w, text+"\n")
}

// refuse answers with a status that says that a retry may help.
func refuse(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Retry-After", "1")
	fail(w, status, text)
}
