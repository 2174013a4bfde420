package main

// Dead letters over HTTP, below /system/async/dead.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	defaultLetters = 100
	maxLetters     = 1000
)

// A deadAPI serves the dead letters of a store.
type deadAPI struct {
	store            *store
	calls, callbacks *queue
	enqueue          func(ctx context.Context, c *call, id string) (duplicate bool, err error)
	log              *slog.Logger
}

func (d *deadAPI) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /system/async/dead", d.list)
	mux.HandleFunc("DELETE /system/async/dead", d.dropAll)
	mux.HandleFunc("POST /system/async/dead/run", d.runAll)
	mux.HandleFunc("GET /system/async/dead/{id}", d.one(d.show))
	mux.HandleFunc("DELETE /system/async/dead/{id}", d.one(d.drop))
	mux.HandleFunc("POST /system/async/dead/{id}/run", d.one(d.run))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !d.store.ready.Load() {
			refuseUnready(w)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// one hands the ID of the path to f, whose error becomes the answer.
func (d *deadAPI) one(f func(w http.ResponseWriter, r *http.Request, id uint64) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id, err := strconv.ParseUint(r.PathValue("id"), 10, 64)
		if err != nil || id == 0 {
			refuse(w, http.StatusBadRequest, "the ID of a dead letter is a number, see the list")
			return
		}
		if err := f(w, r, id); err != nil {
			d.fail(w, err)
		}
	}
}

func (d *deadAPI) fail(w http.ResponseWriter, err error) {
	if errors.Is(err, errNoLetter) {
		refuse(w, http.StatusNotFound, errNoLetter.Error())
		return
	}
	d.log.Error("dead letters", "error", err)
	w.Header().Set("Retry-After", "1")
	refuse(w, http.StatusServiceUnavailable, "JetStream did not do it, see the log")
}

func (d *deadAPI) list(w http.ResponseWriter, r *http.Request) {
	limit, from := defaultLetters, uint64(1)
	var err error
	if s := r.FormValue("limit"); s != "" {
		if limit, err = strconv.Atoi(s); err != nil || limit < 1 || limit > maxLetters {
			refuse(w, http.StatusBadRequest, fmt.Sprintf("limit: %q is not a number from 1 to %d", s, maxLetters))
			return
		}
	}
	if s := r.FormValue("from"); s != "" {
		if from, err = strconv.ParseUint(s, 10, 64); err != nil {
			refuse(w, http.StatusBadRequest, fmt.Sprintf("from: %q is not the ID of a dead letter", s))
			return
		}
	}
	list, err := d.store.letters(r.Context(), r.FormValue("function"), from, limit)
	if err != nil {
		d.fail(w, err)
		return
	}
	writeJSON(w, http.StatusOK, list)
}

func (d *deadAPI) show(w http.ResponseWriter, r *http.Request, id uint64) error {
	letter, _, err := d.store.letter(r.Context(), id)
	if err == nil {
		writeJSON(w, http.StatusOK, letter)
	}
	return err
}

func (d *deadAPI) drop(w http.ResponseWriter, r *http.Request, id uint64) error {
	err := d.store.dropLetter(r.Context(), id)
	if err == nil {
		d.audit(r, "drop dead letter", "id", id)
		w.WriteHeader(http.StatusNoContent)
	}
	return err
}

func (d *deadAPI) run(w http.ResponseWriter, r *http.Request, id uint64) error {
	c, err := d.again(r.Context(), id)
	if err != nil {
		return err
	}
	d.audit(r, "run dead letter again", "id", id, "function", c.function)
	w.Header().Set("X-Call-Id", c.id)
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// again puts a dead letter back into its queue. Should this be interrupted and
// repeated, it runs once all the same.
func (d *deadAPI) again(ctx context.Context, id uint64) (*call, error) {
	letter, c, err := d.store.letter(ctx, id)
	if err != nil {
		return nil, err
	}
	c.uid, c.accepted = "again"+strconv.FormatUint(id, 10), time.Now()
	msgID := "again." + strconv.FormatInt(letter.Died.UnixNano(), 36) + "." + strconv.FormatUint(id, 10)
	if letter.Kind == d.callbacks.name {
		lane := callbackLane(c.callback)
		if err := d.callbacks.ensure(ctx, lane); err != nil {
			return nil, err
		}
		_, _, err = d.store.publish(ctx, c.message(d.callbacks.subject(lane, c.id, c.uid)), jetstream.WithMsgID(msgID))
	} else {
		_, err = d.enqueue(ctx, c, msgID)
	}
	if err != nil {
		return nil, err
	}
	if err := d.store.dropLetter(ctx, id); err != nil && !errors.Is(err, errNoLetter) {
		return nil, err
	}
	return c, nil
}

// runAll runs again all that there are now, of one function or of all.
func (d *deadAPI) runAll(w http.ResponseWriter, r *http.Request) {
	function, ok := whose(w, r)
	if !ok {
		return
	}
	n, from, began := 0, uint64(1), time.Now()
	for {
		list, err := d.store.letters(r.Context(), function, from, maxLetters)
		for _, l := range list {
			if err != nil || l.Died.After(began) {
				break
			}
			if _, err = d.again(r.Context(), l.ID); errors.Is(err, errNoLetter) {
				err = nil
				continue
			}
			n++
		}
		if err != nil {
			d.audit(r, "run dead letters again", "function", function, "number", n, "error", err)
			d.fail(w, err)
			return
		}
		if len(list) < maxLetters {
			break
		}
		from = list[len(list)-1].ID + 1
	}
	d.audit(r, "run dead letters again", "function", function, "number", n)
	writeJSON(w, http.StatusAccepted, map[string]int{"run": n})
}

func (d *deadAPI) dropAll(w http.ResponseWriter, r *http.Request) {
	function, ok := whose(w, r)
	if !ok {
		return
	}
	filter := "faas.dead.>"
	if function != "" {
		filter = "faas.dead." + token(function) + ".>"
	}
	if err := d.store.streams[streamDead].Purge(r.Context(), jetstream.WithPurgeSubject(filter)); err != nil {
		d.fail(w, err)
		return
	}
	d.audit(r, "drop dead letters", "function", function)
	w.WriteHeader(http.StatusNoContent)
}

// whose reads which function's letters are meant: all of them has to be said.
func whose(w http.ResponseWriter, r *http.Request) (function string, ok bool) {
	function = r.FormValue("function")
	if function == "" && r.FormValue("all") != "true" {
		refuse(w, http.StatusBadRequest, "say which: ?function=NAME or ?all=true")
		return "", false
	}
	return function, true
}

// audit writes the one line that each change leaves.
func (d *deadAPI) audit(r *http.Request, what string, args ...any) {
	user, _, _ := r.BasicAuth()
	d.log.Info("audit: "+what, append([]any{"user", user, "from", remoteAddr(r).String()}, args...)...)
}

// writeJSON answers with v.
func writeJSON(w http.ResponseWriter, code int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		refuse(w, http.StatusInternalServerError, "the answer could not be written")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	w.Write(append(b, '\n'))
}
