package main

// Logs of functions: one stream of lines from every replica.

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"faas/internal/naming"
)

const (
	maxLogStreams = 32               // at once; more get 429
	logWriteTime  = 10 * time.Minute // for one line to a slow client; the kernel holds hundreds of KiB for it, which it frees in large steps
	maxLogLine    = 64 << 10         // a longer one comes in pieces
)

// A logLine is one line as clients of OpenFaaS read it.
type logLine struct {
	Name      string    `json:"name"`
	Namespace string    `json:"namespace"`
	Instance  string    `json:"instance"` // the replica: on Swarm the task's ID
	Timestamp time.Time `json:"timestamp"`
	Text      string    `json:"text"` // without its line feed
}

// A logQuery says which lines are wanted.
type logQuery struct {
	tail     int // of the past, per function; below 0: all of it
	follow   bool
	since    time.Time // zero: from the beginning
	instance string    // "": all
}

// A logSource has the logs of functions.
type logSource interface {
	// logs opens the logs. read calls emit with each line, the past first,
	// until the past is over or, if it is to follow, until ctx is done; it has
	// to be called, once. An error of emit ends it. A slow emit holds the source
	// up: no more is kept than one buffer.
	logs(ctx context.Context, d definition, q logQuery) (read func(emit func(logLine) error) error, err error)
}

func (a *api) logs(w http.ResponseWriter, r *http.Request, call *apiCall) error {
	source, ok := a.provider.(logSource)
	if !ok {
		return &apiError{http.StatusNotImplemented, "this provider keeps no logs"}
	}
	q, err := parseLogQuery(r)
	if err != nil {
		return err
	}
	name := r.URL.Query().Get("name")
	if name == "" {
		return &apiError{http.StatusUnprocessableEntity, "name: say which function's logs, as in ?name=figlet"}
	}
	call.subject = name
	f, err := a.function(name, inNamespace(r, ""))
	if err != nil {
		return err
	}
	select {
	case a.streams <- struct{}{}:
		defer func() { <-a.streams }()
	default:
		return &apiError{http.StatusTooManyRequests, fmt.Sprintf("%d log streams are open, which is the most", maxLogStreams)}
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(a.ending, cancel)()
	read, err := source.logs(ctx, f.definition(), q)
	if err != nil {
		return err
	}
	control := http.NewResponseController(w)
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(http.StatusOK)
	control.Flush()
	encode := json.NewEncoder(w)
	encode.SetEscapeHTML(false)
	err = read(func(line logLine) error {
		line.Name, line.Namespace = f.name, a.namespace
		control.SetWriteDeadline(time.Now().Add(logWriteTime))
		if err := encode.Encode(line); err != nil {
			return err
		}
		return control.Flush()
	})
	if err != nil && ctx.Err() == nil {
		a.log.Warn("log stream failed", "function", f.name, "error", err)
		panic(http.ErrAbortHandler) // the status has been sent
	}
	return nil
}

// parseLogQuery reads the query as clients of several ages write it.
func parseLogQuery(r *http.Request) (logQuery, error) {
	values := r.URL.Query()
	q := logQuery{tail: -1, instance: values.Get("instance")}
	bad := func(name, want string) error {
		return &apiError{http.StatusUnprocessableEntity, fmt.Sprintf("%s: got %q, want %s", name, naming.Shown(values.Get(name)), want)}
	}
	var err error
	if v := values.Get("tail"); v != "" {
		if q.tail, err = strconv.Atoi(v); err != nil {
			return q, bad("tail", "a whole number, 0 or less for all lines")
		}
		if q.tail <= 0 {
			q.tail = -1
		}
	}
	if v := values.Get("follow"); v != "" {
		if q.follow, err = strconv.ParseBool(v); err != nil {
			return q, bad("follow", "true or false")
		}
	}
	if v := values.Get("since"); v != "" {
		if q.since, err = time.Parse(time.RFC3339, v); err != nil {
			return q, bad("since", "a time such as 2006-01-02T15:04:05Z")
		}
	}
	return q, nil
}
