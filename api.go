package main

// The control plane: /system/ as OpenFaaS's clients expect it. What a provider
// can do beyond running functions it says by the small interfaces here.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"time"

	"faas/internal/basicauth"
	"faas/internal/jsonbody"
	"faas/internal/naming"
	"faas/internal/scale"
)

const (
	maxDeployment = 1 << 20
	maxSmallBody  = 64 << 10
	apiBodyTime   = 10 * time.Second // to send a body in

	// apiDeadline bounds a request that is no log stream. Clients of OpenFaaS
	// give up after 60 s, older ones after 30.
	apiDeadline = 25 * time.Second
)

var (
	errExists      = errors.New("it exists already")
	errForeign     = errors.New("it was not made by this API: change it where it was made, with docker service or the stack's file")
	errInUse       = errors.New("it is in use")
	errUnavailable = errors.New("the Swarm's managers do not answer")
)

// An apiError is an answer to a request that cannot be fulfilled. Its text is
// for the caller.
type apiError struct {
	status int
	text   string
}

func (e *apiError) Error() string { return e.text }

func badRequest(err error) error { return &apiError{http.StatusBadRequest, err.Error()} }

// statusOf says what a caller of the API is told of err.
func statusOf(err error) (status int, text string) {
	if e, ok := errors.AsType[*apiError](err); ok {
		return e.status, e.text
	}
	if e, ok := errors.AsType[*basicauth.Refusal](err); ok {
		return e.Status, e.Text
	}
	switch {
	case errors.Is(err, errNotFound):
		return http.StatusNotFound, "not found"
	case errors.Is(err, errExists):
		return http.StatusBadRequest, errExists.Error()
	case errors.Is(err, errForeign):
		return http.StatusConflict, errForeign.Error()
	case errors.Is(err, errInUse):
		return http.StatusConflict, err.Error()
	case errors.Is(err, scale.ErrRollout):
		return http.StatusConflict, scale.ErrRollout.Error()
	case errors.Is(err, errUnavailable), errors.Is(err, context.DeadlineExceeded):
		return http.StatusServiceUnavailable, errUnavailable.Error()
	case errors.Is(err, context.Canceled):
		return statusClientGone, ""
	}
	return http.StatusInternalServerError, "the provider refused; the gateway's log says why"
}

// An api is the http.Handler of /system/.
type api struct {
	provider  provider
	registry  *registry
	auth      *basicauth.Authenticator
	namespace string
	name      string      // of the provider, in /system/info
	network   string      // of functions, on Swarm
	async     *asyncRoute // nil: there are no asynchronous calls
	alerts    *alerts
	streams   chan struct{} // holds a token per log stream
	ending    context.Context
	end       context.CancelFunc // ends the log streams
	log       *slog.Logger
	mux       *http.ServeMux
}

// An apiCall is what a handler knows of its request: who sent it, and what it
// is about, for the audit line.
type apiCall struct {
	basicauth.Caller
	subject string // name of a function or a secret; no value of either
}

// An endpoint is one route of the API. change says that it changes something,
// which is written to the log.
type endpoint struct {
	pattern string
	change  bool
	handle  func(http.ResponseWriter, *http.Request, *apiCall) error
}

// endpoints is the route table, and all there is.
func (a *api) endpoints() []endpoint {
	return []endpoint{
		{"GET /system/info", false, a.info},
		{"GET /system/overview", false, a.overview},
		{"GET /system/functions", false, a.list},
		{"POST /system/functions", true, a.deploy},
		{"PUT /system/functions", true, a.update},
		{"DELETE /system/functions", true, a.remove},
		{"GET /system/function/{name}", false, a.describe},
		{"POST /system/scale-function/{name}", true, a.scale},
		{"GET /system/namespaces", false, a.namespaces},
		{"/system/namespace/{rest...}", false, a.noNamespaces},
		{"GET /system/secrets", false, a.listSecrets},
		{"POST /system/secrets", true, a.createSecret},
		{"PUT /system/secrets", true, a.updateSecret},
		{"DELETE /system/secrets", true, a.removeSecret},
		{"GET /system/logs", false, a.logs},
		{"POST /system/alert", true, a.alert},
		{"GET /system/async/{rest...}", false, a.asyncCalls},
		{"POST /system/async/{rest...}", true, a.asyncCalls},
		{"DELETE /system/async/{rest...}", true, a.asyncCalls},
	}
}

func newAPI(from provider, r *registry, auth *basicauth.Authenticator, alerts *alerts, c *config, log *slog.Logger) *api {
	a := &api{
		provider: from, registry: r, auth: auth, alerts: alerts, namespace: c.namespace, name: "faas-" + c.provider,
		streams: make(chan struct{}, maxLogStreams), log: log, mux: http.NewServeMux(),
	}
	if c.provider == "swarm" {
		a.network = c.network
	}
	a.ending, a.end = context.WithCancel(context.Background())
	for _, e := range a.endpoints() {
		a.mux.HandleFunc(e.pattern, func(w http.ResponseWriter, req *http.Request) { a.serve(w, req, e) })
	}
	return a
}

// ServeHTTP answers everything below /system/. Who may not come in learns
// nothing, not even which routes there are.
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	from, err := a.auth.Authenticate(w, r)
	if err == nil {
		err = crossOrigin.Check(r)
		if err != nil {
			err = &apiError{http.StatusForbidden, "a request from another origin: " + err.Error()}
		}
	}
	if err != nil {
		a.fail(w, r, err)
		return
	}
	if _, pattern := a.mux.Handler(r); pattern == "" {
		settleBody(w, r) // the mux says that there is no such route
	}
	if from.Reads && r.Method != http.MethodGet && r.Method != http.MethodHead {
		a.fail(w, r, &apiError{http.StatusForbidden, "this login may look, and change nothing"})
		return
	}
	r = r.WithContext(context.WithValue(r.Context(), callerKey{}, from))
	a.mux.ServeHTTP(w, r)
}

// crossOrigin refuses what a page of another site has a browser send.
var crossOrigin = http.NewCrossOriginProtection()

type callerKey struct{}

func (a *api) serve(w http.ResponseWriter, r *http.Request, e endpoint) {
	call := &apiCall{Caller: r.Context().Value(callerKey{}).(basicauth.Caller)}
	if r.Pattern != "GET /system/logs" {
		ctx, cancel := context.WithTimeout(r.Context(), apiDeadline)
		defer cancel()
		r = r.WithContext(ctx)
		control := http.NewResponseController(w)
		control.SetWriteDeadline(time.Now().Add(apiDeadline + lateBy))
	}
	if !e.change {
		settleBody(w, r) // which nobody reads
	}
	err := e.handle(w, r, call)
	if e.change {
		outcome := "done"
		if err != nil {
			outcome = err.Error()
		}
		a.log.Info("control plane", "user", call.User, "from", basicauth.Remote(r).String(), "request", e.pattern, "subject", naming.Shown(call.subject), "outcome", outcome)
	}
	if err != nil {
		a.fail(w, r, err)
	}
}

// fail answers with what the caller may know of err.
func (a *api) fail(w http.ResponseWriter, r *http.Request, err error) {
	status, text := statusOf(err)
	switch status {
	case statusClientGone:
		return
	case http.StatusInternalServerError:
		a.log.Error("control plane", "request", r.Method+" "+naming.Shown(r.URL.Path), "error", err)
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		w.Header().Set("Retry-After", "1")
	}
	refuse(w, r, status, text)
}

// answer sends v as JSON.
func (a *api) answer(w http.ResponseWriter, status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(append(body, '\n'))
	return nil
}

// read decodes the body of r, most bytes at most, into v.
func (a *api) read(w http.ResponseWriter, r *http.Request, most int64, v any) error {
	http.NewResponseController(w).SetReadDeadline(time.Now().Add(apiBodyTime))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return &apiError{http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is longer than %d bytes", most)}
	}
	if err != nil {
		return badRequest(errors.New("the body could not be read"))
	}
	if err := jsonbody.Decode(body, v); err != nil {
		return badRequest(err)
	}
	return nil
}

// function finds a function by its name, or by NAME.NAMESPACE.
func (a *api) function(name, namespace string) (*function, error) {
	if namespace != "" && namespace != a.namespace {
		return nil, &apiError{http.StatusNotFound, fmt.Sprintf("there is no namespace %q, only %q", naming.Shown(namespace), a.namespace)}
	}
	if f := a.registry.named(name); f != nil {
		return f, nil
	}
	return nil, &apiError{http.StatusNotFound, fmt.Sprintf("function %q not found", naming.Shown(name))}
}

// inNamespace returns the namespace that a request names: in its body, or else
// in its query.
func inNamespace(r *http.Request, body string) string {
	if body != "" {
		return body
	}
	return r.URL.Query().Get("namespace")
}

// checkNamespace refuses every namespace but the one there is.
func (a *api) checkNamespace(namespace string) error {
	if namespace != "" && namespace != a.namespace {
		return badRequest(fmt.Errorf("namespace: there is no %q, only %q", naming.Shown(namespace), a.namespace))
	}
	return nil
}

func (a *api) info(w http.ResponseWriter, _ *http.Request, _ *apiCall) error {
	type version struct {
		Release string `json:"release"`
		SHA     string `json:"sha"`
	}
	v := version{thisBuild.Version, thisBuild.Revision}
	return a.answer(w, http.StatusOK, map[string]any{
		"provider": map[string]any{"provider": a.name, "orchestration": strings.TrimPrefix(a.name, "faas-"), "version": v},
		"version":  v,
		"arch":     runtime.GOARCH,
	})
}

func (a *api) namespaces(w http.ResponseWriter, _ *http.Request, _ *apiCall) error {
	return a.answer(w, http.StatusOK, []string{a.namespace})
}

func (a *api) noNamespaces(http.ResponseWriter, *http.Request, *apiCall) error {
	return &apiError{http.StatusNotImplemented, "there is one namespace, " + a.namespace + ", and it cannot be changed: start another gateway on a network of its own instead"}
}
