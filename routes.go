package main

// Routes of a function's own: label faas.route, or flag -route. The patterns
// are http.ServeMux's, and a ServeMux decides which one a request matches.

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"faas/internal/naming"
)

const (
	viaCustom  = "custom"
	labelRoute = "faas.route"
	claimRoute = "route"

	maxRoutes     = 32      // patterns of one function
	maxRouteLabel = 4 << 10 // bytes of them all, with a comma between each two

	// If a pattern overlaps one of another shape, its holder is found by trial.
	// This bounds the trials per table; later claims name no holder.
	maxHolderTrials = 4096
)

// patternKind finds functions by their own patterns.
var patternKind = routeKind{
	via:    viaCustom,
	labels: []label{listLabel(labelRoute, "none", "URLs of its own, such as `POST /orders/{id}`")},
	index: func(c *config, all []claimant) (any, []claim) {
		table, rejected := newRouteTable(all, c.alexaRoute)
		return table, rejected
	},
	serve: func(g *gateway, w http.ResponseWriter, r *http.Request, _ string) bool {
		snapshot := g.registry.current.Load()
		m, ok := indexOf[*routeTable](snapshot.indexes).match(r)
		switch {
		case !ok:
			return false
		case m.answer != nil:
			g.requests[viaCustom]()
			settleBody(w, r)
			m.answer.ServeHTTP(w, r)
		default:
			g.invoke(w, r, &invocation{f: snapshot.functions[m.name], kind: viaCustom, route: m})
		}
		return true
	},
}

// A routeTable holds the routes of one snapshot of functions. It is immutable.
// A nil one has no routes.
type routeTable struct {
	mux *http.ServeMux // nil: no routes
}

// A route is one pattern of one function. As a handler in the table's mux it serves
// nothing: it records itself in the routeProbe.
type route struct {
	pattern   string
	function  string
	service   string
	wildcards []wildcard
}

type wildcard struct {
	name   string // as in the pattern
	header string // that carries it to the function, canonical
}

func (t *route) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p, ok := w.(*routeProbe)
	if !ok {
		return // match gave this request another answer
	}
	p.route = t
	p.values = make([]string, len(t.wildcards))
	for i, wild := range t.wildcards {
		p.values[i] = r.PathValue(wild.name)
	}
}

// A routeProbe finds out what the mux would do. It is the ResponseWriter of the
// trial.
type routeProbe struct {
	route  *route   // found, or nil
	values []string // of its wildcards
	status int      // of the answer that the mux gave itself
	header http.Header
}

func (p *routeProbe) Header() http.Header {
	if p.header == nil {
		p.header = http.Header{}
	}
	return p.header
}

func (p *routeProbe) Write(b []byte) (int, error) { return len(b), nil }

func (p *routeProbe) WriteHeader(status int) { p.status = status }

// newRouteTable returns the table of the functions' routes, and the rejected
// claims. An invalid pattern does not affect others, nor does one that an older
// function has: of two patterns that match the same requests without one being the
// more specific, the older function's stays.
//
// Wildcards may cover the paths that the gateway keeps for itself, as "/" and
// "/{page}/" do: match never finds a route for those paths. alexaRoute is another
// one, which the gateway handles before it calls match; "/" and "" mean none.
func newRouteTable(all []claimant, alexaRoute string) (*routeTable, []claim) {
	b := routeBuilder{mux: http.NewServeMux(), shapes: map[string]*route{}, alexaRoute: alexaRoute}
	for _, d := range all {
		b.add(d)
	}
	if len(b.routes) == 0 {
		return &routeTable{}, b.claims
	}
	return &routeTable{mux: b.mux}, b.claims
}

// A routeBuilder builds a routeTable.
type routeBuilder struct {
	mux    *http.ServeMux
	routes []*route          // in the mux
	shapes map[string]*route // of them, by pattern without the wildcards' names
	trials int               // to find holders
	claims []claim

	alexaRoute string
}

func (b *routeBuilder) add(d claimant) {
	patterns := d.claims[labelRoute]
	size := max(0, len(patterns)-1)
	for _, pattern := range patterns {
		size += len(pattern)
	}
	if size > maxRouteLabel {
		c := d.rejected(claimRoute, patterns[0], claimTooLong, "")
		c.detail = fmt.Sprintf("%d bytes of patterns, %d at most", size, maxRouteLabel)
		b.claims = append(b.claims, c)
		return
	}
	for i, text := range patterns {
		if i == maxRoutes {
			c := d.rejected(claimRoute, text, claimTooMany, "")
			c.detail = fmt.Sprintf("%d patterns, the first %d count", len(patterns), maxRoutes)
			b.claims = append(b.claims, c)
			return
		}
		p, err := parsePattern(text)
		if err == nil && b.alexaRoute != "/" && p.only(b.alexaRoute) {
			err = errReserved
		}
		if err != nil {
			c := d.rejected(claimRoute, text, claimBad, "")
			if errors.Is(err, errReserved) {
				c.problem = claimReserved
			} else {
				c.detail = naming.Shown(err.Error())
			}
			b.claims = append(b.claims, c)
			continue
		}
		r := &route{pattern: p.String(), function: d.name, service: d.service, wildcards: p.wildcards}
		shape := p.shape()
		if holder := b.shapes[shape]; holder != nil {
			b.claims = append(b.claims, d.rejected(claimRoute, text, claimTaken, holder.service))
			continue
		}
		if err := register(b.mux, r.pattern, r); err != nil {
			b.claims = append(b.claims, d.rejected(claimRoute, text, claimTaken, b.holder(r)))
			continue
		}
		b.shapes[shape] = r
		b.routes = append(b.routes, r)
	}
}

// holder returns the service whose route conflicts with r, or "".
func (b *routeBuilder) holder(r *route) string {
	for _, other := range b.routes {
		if b.trials++; b.trials > maxHolderTrials {
			break
		}
		pair := http.NewServeMux()
		if register(pair, other.pattern, other) == nil && register(pair, r.pattern, r) != nil {
			return other.service
		}
	}
	return ""
}

// A routeMatch is the result for a request: a function, or a response.
type routeMatch struct {
	name     string // the function, "" with an answer
	pattern  string
	captured []captured

	// answer is what the client gets without a function: 405 with Allow where
	// only other methods have a route, the redirects of ServeMux (to the path
	// with a slash at its end, to the path without "//" and ".."), and 400
	// for a wildcard's value that no header can carry.
	answer http.Handler
}

type captured struct{ header, value string }

// setHeaders sets a header X-Route-<Name> for each wildcard: its value as the
// ServeMux gives it, unescaped. Call dropOwnHeaders first, and both past the
// point where headers that Connection names are removed, or a caller could
// have these removed too.
func (m routeMatch) setHeaders(h http.Header) {
	for _, c := range m.captured {
		h[c.header] = []string{c.value}
	}
}

// match returns the route for r, if there is one. The function gets r's path
// unchanged: either it matched as it is, or the response redirects to its clean
// form. Hosts match in any case.
func (t *routeTable) match(r *http.Request) (routeMatch, bool) {
	if t == nil || t.mux == nil || r.Method == http.MethodConnect ||
		!strings.HasPrefix(r.URL.Path, "/") || reservedPath(r.URL.Path) != nil {
		return routeMatch{}, false
	}
	asked := new(http.Request) // the mux writes to it
	*asked = *r
	asked.Host = strings.ToLower(r.Host)
	escaped := r.URL.EscapedPath()
	clean := cleanPath(escaped)
	if clean != escaped {
		var err error
		if asked.URL, err = url.ParseRequestURI(clean); err != nil || reservedPath(asked.URL.Path) != nil {
			return routeMatch{}, false
		}
	}

	var probe routeProbe
	t.mux.ServeHTTP(&probe, asked)
	switch {
	case clean != escaped && asked.Pattern != "":
		return redirect(clean, r.URL.RawQuery), true
	case probe.route != nil:
		return probe.match(), true
	case asked.Pattern != "": // found with a slash at its end
		return redirect(escaped+"/", r.URL.RawQuery), true
	case probe.status == http.StatusMethodNotAllowed:
		return routeMatch{answer: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			t.mux.ServeHTTP(w, asked)
		})}, true
	}
	return routeMatch{}, false
}

// redirect sends the client to another path, which is escaped. The ServeMux would
// escape the escapes again, or unescape a slash in a wildcard's value and so split
// a segment.
func redirect(path, query string) routeMatch {
	if query != "" {
		path += "?" + query
	}
	return routeMatch{answer: http.RedirectHandler(path, http.StatusTemporaryRedirect)}
}

// match converts the probe's result to a routeMatch.
//
// A value with a control byte, or with a space at either end, cannot be in a header
// as it is. Escaping it again would make two paths look the same to the function,
// so such a request is rejected.
func (p *routeProbe) match() routeMatch {
	m := routeMatch{name: p.route.function, pattern: p.route.pattern}
	for i, wild := range p.route.wildcards {
		if !headerSafe(p.values[i]) {
			text := fmt.Sprintf("the value of {%s} in the path has a control character, or a space at an end", wild.name)
			return routeMatch{answer: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				http.Error(w, text, http.StatusBadRequest)
			})}
		}
		m.captured = append(m.captured, captured{wild.header, p.values[i]})
	}
	return m
}

func headerSafe(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return false
		}
	}
	return s == "" || s[0] != ' ' && s[len(s)-1] != ' '
}
