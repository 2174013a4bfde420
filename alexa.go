package main

// Alexa: a body that is an Alexa request is verified and routed to the function of
// its intent or skill.

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"faas/internal/alexa"
	"faas/internal/naming"
)

const (
	viaAlexa         = "alexa"
	labelIntent      = "faas.alexa.intent"
	labelApplication = "faas.alexa.application"
	claimIntent      = "intent"
	claimApplication = "application"

	// Limits of one function's claims. A skill has 250 intents at most.
	maxAlexaNames = 256
	maxAlexaName  = 256 // bytes of an intent's name or a skill's ID

	maxPeeks    = 64 // bodies inspected at once, 16 MiB; more is 503
	peekTimeout = 5 * time.Second
)

// alexaKind finds functions by the intent or skill of an Alexa request.
var alexaKind = routeKind{
	via: viaAlexa,
	labels: []label{
		listLabel(labelIntent, "its name", "Alexa intents that it answers"),
		listLabel(labelApplication, "none", "Alexa skills that it answers"),
	},
	index: func(_ *config, all []claimant) (any, []claim) {
		index, rejected := newAlexaIndex(all)
		return index, rejected
	},
	serve: func(g *gateway, w http.ResponseWriter, r *http.Request, path string) bool {
		if path != g.config.alexaRoute || path == "/" && r.Method != http.MethodPost {
			return false
		}
		return g.byIntent(w, r, path == "/")
	},
}

// byIntent invokes the function for an Alexa request. It leaves other requests
// unanswered if this path allows them.
func (g *gateway) byIntent(w http.ResponseWriter, r *http.Request, others bool) (served bool) {
	if r.Method != http.MethodPost {
		g.requests[viaAlexa]()
		w.Header().Set("Allow", http.MethodPost)
		refuse(w, r, http.StatusMethodNotAllowed, "only POST requests of the Alexa Skills Kit are answered here")
		return true
	}
	if others && (r.ContentLength <= 0 || r.ContentLength > alexa.MaxBody) {
		// Amazon's requests have a Content-Length. A body of unknown length may be
		// a stream whose first part needs a response before the end arrives.
		return false
	}
	req, forget, ok, answered := g.readAlexa(w, r)
	switch {
	case answered:
		return true
	case !ok && others:
		return false
	case !ok:
		g.requests[viaNone]()
		refuse(w, r, http.StatusBadRequest, "only requests of the Alexa Skills Kit are answered here")
		return true
	}
	inv := &invocation{kind: viaAlexa}
	defer func() {
		if inv.code/100 != 2 {
			forget() // Amazon repeats what was not accepted
		}
	}()
	snapshot := g.registry.current.Load()
	name, ok := indexOf[*alexaIndex](snapshot.indexes).route(req, func(name string) bool { return snapshot.functions[name] != nil })
	f := snapshot.functions[name]
	if !ok || f == nil {
		g.requests[viaAlexa]()
		if req.Type == "IntentRequest" {
			refuse(w, r, http.StatusNotFound, "no function for this intent")
		} else {
			refuse(w, r, http.StatusNotFound, "no function for this skill")
		}
		return true
	}
	inv.f = f
	g.invoke(w, r, inv)
	return true
}

// readAlexa looks for an Alexa request in the body of r, and has it verified. If it
// is rejected, readAlexa answers r. Call forget for a request that does not
// succeed, see alexa.Verifier.Verify.
//
// Until then nothing is known of the caller and no function's limits apply to it.
// So only maxPeeks bodies are held at once, each for peekTimeout plus the time that
// its certificate chain may take.
func (g *gateway) readAlexa(w http.ResponseWriter, r *http.Request) (req alexa.Request, forget func(), ok, answered bool) {
	select {
	case g.peeks <- struct{}{}:
		defer func() { <-g.peeks }()
	default:
		g.requests[viaNone]()
		w.Header().Set("Retry-After", "1")
		refuse(w, r, http.StatusServiceUnavailable, fmt.Sprintf("%d other requests are just being read here", maxPeeks))
		return req, nil, false, true
	}
	control := http.NewResponseController(w)
	control.SetReadDeadline(time.Now().Add(peekTimeout))
	req, body, ok, err := peekAlexa(r)
	if !ok {
		control.SetReadDeadline(time.Time{}) // a refusal and an invocation set their own
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		g.requests[viaNone]()
		refuse(w, r, http.StatusRequestTimeout, fmt.Sprintf("the body did not arrive within %s", peekTimeout))
		return req, nil, false, true
	case err != nil:
		g.requests[viaNone]()
		refuse(w, r, http.StatusBadRequest, "the body could not be read")
		return req, nil, false, true
	case !ok || g.verifier == nil:
		return req, func() {}, ok, false
	}
	// The whole body has arrived. If a deadline passed now, while the verifier
	// waits for a download, net/http would think that the caller has gone.
	control.SetReadDeadline(time.Time{})
	if forget, err = g.verifier.Verify(r.Context(), r.Header, body, req); err != nil {
		g.requests[viaAlexa]()
		g.refuseAlexa(w, r, err)
		return req, nil, false, true
	}
	return req, forget, true, false
}

// peekAlexa looks for an Alexa request in the body of r. It reads no more than
// necessary, alexa.MaxBody+1 bytes at most. Afterwards r.Body yields the same bytes
// again and then the rest, whatever was found. If ok, body is the whole body, for
// the signature; it must not be changed.
//
// err comes from reading the body. The connection's read deadline bounds a slow
// sender.
func peekAlexa(r *http.Request) (req alexa.Request, body []byte, ok bool, err error) {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 || r.ContentLength > alexa.MaxBody {
		return alexa.Request{}, nil, false, nil
	}
	// The buffer grows as bytes arrive: a sender must send what we hold.
	body = make([]byte, 0, min(max(r.ContentLength+1, 512), 8<<10))
	object := false
	var end error // of reading; io.EOF: body is all of it
	for end == nil && len(body) <= alexa.MaxBody {
		if len(body) == cap(body) {
			body = slices.Grow(body, len(body))
		}
		var n int
		n, end = r.Body.Read(body[len(body):min(cap(body), alexa.MaxBody+1)])
		body = body[:len(body)+n]
		if !object {
			first := bytes.TrimLeft(body, " \t\r\n")
			if len(first) == 0 {
				continue
			}
			if first[0] != '{' {
				break
			}
			object = true
		}
	}
	r.Body = &restoredBody{body, end, r.Body}
	if end != nil && end != io.EOF {
		return alexa.Request{}, nil, false, fmt.Errorf("read the body: %w", end)
	}
	if end == io.EOF && object {
		req, ok = alexa.Parse(body)
	}
	if !ok {
		return alexa.Request{}, nil, false, nil
	}
	return req, body, true, nil
}

func (g *gateway) refuseAlexa(w http.ResponseWriter, r *http.Request, err error) {
	reason := "internal"
	if refusal, ok := errors.AsType[*alexa.Refusal](err); ok {
		reason = refusal.Reason
	}
	g.metrics.alexaRefusals.WithLabelValues(reason).Inc()
	g.log.Warn("alexa request refused", "reason", reason, "remote", r.RemoteAddr, "error", err)
	refuse(w, r, http.StatusBadRequest, "this request does not pass the checks of the Alexa Skills Kit: "+reason)
}

// An alexaIndex finds the function for an Alexa request. It is immutable.
type alexaIndex struct {
	// intents holds every function that lists an intent, by the skill it
	// lists too, or by "" if it lists none.
	intents map[alexaIntent]string
	// oldest holds the oldest function that lists an intent for any skill.
	oldest       map[string]string
	applications map[string]string
}

type alexaIntent struct{ application, intent string }

// newAlexaIndex returns the index of the functions' intents and skills, and the
// rejected claims. If two functions claim the same, the older one keeps it.
//
// An intent belongs to a skill, and every skill has the built-in ones such as
// AMAZON.StopIntent. So two functions that list one intent conflict only if they
// list a skill in common, or both list none.
func newAlexaIndex(all []claimant) (*alexaIndex, []claim) {
	x := &alexaIndex{
		intents:      map[alexaIntent]string{},
		oldest:       map[string]string{},
		applications: map[string]string{},
	}
	var claims []claim
	service := map[string]string{} // by function
	for _, d := range all {
		service[d.name] = d.service
		applications := admitNames(d, claimApplication, d.claims[labelApplication], &claims)
		for _, a := range applications {
			if holder, taken := x.applications[a]; taken {
				claims = append(claims, d.rejected(claimApplication, a, claimTaken, service[holder]))
			} else {
				x.applications[a] = d.name
			}
		}
		if len(applications) == 0 {
			applications = []string{""}
		}
		for _, intent := range admitNames(d, claimIntent, d.claims[labelIntent], &claims) {
			if _, taken := x.oldest[intent]; !taken {
				x.oldest[intent] = d.name
			}
			lost := ""
			for _, a := range applications {
				key := alexaIntent{a, intent}
				if holder, taken := x.intents[key]; !taken {
					x.intents[key] = d.name
				} else if lost == "" {
					lost = service[holder]
				}
			}
			if lost != "" {
				claims = append(claims, d.rejected(claimIntent, intent, claimTaken, lost))
			}
		}
	}
	return x, claims
}

// admitNames returns the usable values of one label of d, without duplicates.
func admitNames(d claimant, kind string, values []string, claims *[]claim) []string {
	var good []string
	for i, v := range values {
		switch {
		case i >= maxAlexaNames:
			*claims = append(*claims, d.rejected(kind, fmt.Sprintf("%d values", len(values)), claimTooMany, ""))
			return good
		case v == "" || len(v) > maxAlexaName || strings.ContainsFunc(v, naming.NotPrintable):
			*claims = append(*claims, d.rejected(kind, v, claimBad, ""))
		case !slices.Contains(good, v):
			good = append(good, v)
		}
	}
	return good
}

// route returns the function that answers req: for an IntentRequest the one
// that lists the intent, first for this very skill, or else the one of that
// name; for a LaunchRequest, a SessionEndedRequest and every other type
// (CanFulfillIntentRequest, AudioPlayer.*, skill events, and those to come)
// the one that lists the skill.
func (x *alexaIndex) route(req alexa.Request, exists func(name string) bool) (name string, ok bool) {
	if req.Type != alexa.IntentRequest {
		name, ok = x.applications[req.Application]
		return name, ok
	}
	for _, application := range [...]string{req.Application, ""} {
		if name, ok = x.intents[alexaIntent{application, req.Intent}]; ok {
			return name, true
		}
	}
	if name, ok = x.oldest[req.Intent]; ok {
		return name, true
	}
	if naming.IsFunction(req.Intent) && exists(req.Intent) {
		return req.Intent, true
	}
	return "", false
}
