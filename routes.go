package main

// Routes of a function's own: label faas.route, or flag -route. The patterns
// are http.ServeMux's, and a ServeMux decides which one a request matches.

import (
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"path"
	"strings"
)

const (
	maxRoutes     = 32      // patterns of one function
	maxRouteLabel = 4 << 10 // bytes of them all, with a comma between each two
	maxWildcards  = 16      // of one pattern; each becomes a header

	routeHeader = "X-Route-"

	// Where a pattern overlaps one of another shape, its holder is found by
	// trying. So many trials go into one table; later claims name no holder.
	maxHolderTrials = 4096
)

// A routeTable holds the routes of one snapshot of functions. It is immutable.
// A nil one has no routes.
type routeTable struct {
	mux *http.ServeMux // nil: no routes
}

// A route is one pattern of one function. As a handler in the table's mux it
// serves nothing: it tells the routeProbe that it was found.
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

// A routeProbe asks the mux what it would do. It stands in for the client.
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

// newRouteTable returns the table of the functions' routes, and every route
// that some function asked for and does not have. A bad pattern costs only
// itself, and so does one that an older function has: of two patterns that
// match the same requests without one being the more specific, the older
// function's stays.
//
// Wildcards may cover the paths that the gateway keeps for itself, as "/" and
// "/{page}/" do: match never finds a route for those paths.
func newRouteTable(defs []definition) (*routeTable, []claim) {
	b := routeBuilder{mux: http.NewServeMux(), shapes: map[string]*route{}}
	for _, d := range byAge(defs) {
		b.add(d)
	}
	if len(b.routes) == 0 {
		return &routeTable{}, b.claims
	}
	return &routeTable{mux: b.mux}, b.claims
}

// A routeBuilder is a routeTable in the making.
type routeBuilder struct {
	mux    *http.ServeMux
	routes []*route          // in the mux
	shapes map[string]*route // of them, by pattern without the wildcards' names
	trials int               // to find holders
	claims []claim
}

func (b *routeBuilder) add(d definition) {
	size := max(0, len(d.routes)-1)
	for _, pattern := range d.routes {
		size += len(pattern)
	}
	if size > maxRouteLabel {
		c := d.claim(claimRoute, d.routes[0], claimTooLong, "")
		c.detail = fmt.Sprintf("%d bytes of patterns, %d at most", size, maxRouteLabel)
		b.claims = append(b.claims, c)
		return
	}
	for i, text := range d.routes {
		if i == maxRoutes {
			c := d.claim(claimRoute, text, claimTooMany, "")
			c.detail = fmt.Sprintf("%d patterns, the first %d count", len(d.routes), maxRoutes)
			b.claims = append(b.claims, c)
			return
		}
		p, err := parsePattern(text)
		if err != nil {
			c := d.claim(claimRoute, text, claimBad, "")
			if errors.Is(err, errReserved) {
				c.problem = claimReserved
			} else {
				c.detail = shown(err.Error())
			}
			b.claims = append(b.claims, c)
			continue
		}
		r := &route{pattern: p.String(), function: d.name, service: d.service, wildcards: p.wildcards}
		shape := p.shape()
		if holder := b.shapes[shape]; holder != nil {
			b.claims = append(b.claims, d.claim(claimRoute, text, claimTaken, holder.service))
			continue
		}
		if err := register(b.mux, r.pattern, r); err != nil {
			b.claims = append(b.claims, d.claim(claimRoute, text, claimTaken, b.holder(r)))
			continue
		}
		b.shapes[shape] = r
		b.routes = append(b.routes, r)
	}
}

// holder returns the service whose route is in the way of r, or "".
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

// register adds a pattern to mux, which says by a panic that it is bad or that
// it conflicts with another one. mux is as before then.
func register(mux *http.ServeMux, pattern string, h http.Handler) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("pattern %q: %v", pattern, p)
		}
	}()
	mux.Handle(pattern, h)
	return nil
}

// A routeMatch is what the table has for a request: a function, or an answer.
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
// ServeMux gives it, unescaped. Call dropRouteHeaders first, and both past the
// point where headers that Connection names are removed, or a caller could
// have these removed too.
func (m routeMatch) setHeaders(h http.Header) {
	for _, c := range m.captured {
		h[c.header] = []string{c.value}
	}
}

// match returns the route for r, if there is one. The function is to see r's
// path as it came: it matched in its clean form, or there is an answer that
// redirects to that. Hosts match in any case.
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
		// Not left to the ServeMux, which escapes the escapes again.
		if r.URL.RawQuery != "" {
			clean += "?" + r.URL.RawQuery
		}
		return routeMatch{answer: http.RedirectHandler(clean, http.StatusTemporaryRedirect)}, true
	case probe.route != nil:
		return probe.match(), true
	case probe.status == http.StatusMethodNotAllowed, asked.Pattern != "": // or a redirect to a route
		return routeMatch{answer: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			t.mux.ServeHTTP(w, asked)
		})}, true
	}
	return routeMatch{}, false
}

// cleanPath returns p without empty segments, "." and "..", and with the slash
// at its end that it had. p begins with a slash.
func cleanPath(p string) string {
	clean := path.Clean(p)
	if clean != "/" && strings.HasSuffix(p, "/") {
		clean += "/"
	}
	return clean
}

// match turns what the probe found into a routeMatch.
//
// A value with a control byte, or with a space at either end, cannot be in a
// header as it is. Escaping it again would make two paths look the same to the
// function, so such a request is refused.
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

// dropRouteHeaders deletes the headers that look like a wildcard's, so that no
// caller can send one. It takes X_Route_Id and the like for X-Route-Id, since
// both become one variable where headers are passed on in the environment.
func dropRouteHeaders(h http.Header) {
	for key := range h {
		if looksLikeRouteHeader(key) {
			delete(h, key)
		}
	}
}

func looksLikeRouteHeader(key string) bool {
	if len(key) < len(routeHeader) {
		return false
	}
	for i := range len(routeHeader) {
		c, want := key[i], routeHeader[i]
		if want == '-' {
			if isAlnum(c) {
				return false
			}
		} else if c|0x20 != want|0x20 {
			return false
		}
	}
	return true
}

func isAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z'
}

var errReserved = errors.New("the gateway keeps this path for itself")

// reservedPath returns an error for a path that the gateway serves itself:
// /function, /system, /metrics, /healthz, /ui, and whatever is below them.
func reservedPath(p string) error {
	first, _, _ := strings.Cut(strings.TrimPrefix(p, "/"), "/")
	switch first {
	case "function", "system", "metrics", "healthz", "ui":
		return fmt.Errorf("%q: %w", "/"+first, errReserved)
	}
	return nil
}

// parseRouteFlag parses the value of -route, PATTERN=name. The last equals
// sign counts: a path may have some, a name has none.
func parseRouteFlag(s string) (pattern, name string, err error) {
	i := strings.LastIndexByte(s, '=')
	if i < 0 {
		return "", "", fmt.Errorf("%q: want PATTERN=name, as in 'POST /orders/{id}=orders'", s)
	}
	if name = strings.TrimSpace(s[i+1:]); !validName(name) {
		return "", "", fmt.Errorf("%q is not the name of a function", name)
	}
	if len(s[:i]) > maxRouteLabel {
		return "", "", fmt.Errorf("pattern of %d bytes, %d at most", len(s[:i]), maxRouteLabel)
	}
	p, err := parsePattern(strings.TrimSpace(s[:i]))
	if err != nil {
		return "", "", fmt.Errorf("pattern %q: %w", s[:i], err)
	}
	return p.String(), name, nil
}

// A routePattern is a pattern that a ServeMux takes by itself.
type routePattern struct {
	method, host, path string
	wildcards          []wildcard
}

func (p routePattern) String() string {
	if p.method == "" {
		return p.host + p.path
	}
	return p.method + " " + p.host + p.path
}

// shape returns the pattern without its wildcards' names: two patterns of one
// shape match the same requests.
func (p routePattern) shape() string {
	segments := strings.Split(p.path, "/")
	for i, s := range segments {
		switch {
		case !strings.HasPrefix(s, "{"), s == "{$}":
		case strings.HasSuffix(s, "...}"):
			segments[i] = "{...}"
		default:
			segments[i] = "{}"
		}
	}
	p.path = strings.Join(segments, "/")
	return p.String()
}

// parsePattern parses a pattern of http.ServeMux. It refuses what a ServeMux
// would take but never match, or match in a way that nobody expects: methods
// in lower case, hosts with a port, a query, paths that are not clean and
// segments that hide a slash. A comma in a path is written %2C, as commas
// separate the patterns of a label.
func parsePattern(s string) (routePattern, error) {
	var p routePattern
	if strings.ContainsFunc(s, func(r rune) bool { return r != '\t' && notPrintable(r) }) {
		return p, errors.New("it has a character that cannot be shown")
	}
	rest := s
	if i := strings.IndexAny(s, " \t"); i >= 0 {
		p.method, rest = s[:i], strings.TrimLeft(s[i:], " \t")
		if p.method != strings.ToUpper(p.method) || p.method == http.MethodConnect {
			return p, fmt.Errorf("no request with the method %q gets here", p.method)
		}
	}
	slash := strings.IndexByte(rest, '/')
	if slash < 0 {
		return p, errors.New("it has no path: a slash is missing")
	}
	p.host, p.path = strings.ToLower(rest[:slash]), rest[slash:]
	for i := range len(p.host) {
		if c := p.host[i]; !isAlnum(c) && c != '.' && c != '-' && c != '_' {
			return p, fmt.Errorf("%q is not a host: letters, digits, dots and hyphens, without a port", p.host)
		}
	}
	if strings.ContainsAny(p.path, "?#") {
		return p, errors.New("it has a query or fragment: only the path counts")
	}
	if p.path != cleanPath(p.path) {
		return p, errors.New("a path with an empty segment, . or .. matches no request")
	}
	if err := p.parseSegments(); err != nil {
		return p, err
	}
	if err := register(http.NewServeMux(), p.String(), http.NotFoundHandler()); err != nil {
		return p, err
	}
	return p, nil
}

// parseSegments checks the segments of the path and collects its wildcards.
func (p *routePattern) parseSegments() error {
	headers := map[string]bool{}
	for i, segment := range strings.Split(p.path[1:], "/") {
		if !strings.HasPrefix(segment, "{") {
			literal, err := url.PathUnescape(segment)
			if err != nil {
				return fmt.Errorf("segment %q: %w", segment, err)
			}
			if strings.Contains(literal, "/") || strings.ContainsFunc(literal, notPrintable) {
				return fmt.Errorf("segment %q: an escaped slash or control character", segment)
			}
			if i == 0 {
				if err := reservedPath(literal); err != nil {
					return err
				}
			}
			continue
		}
		name := strings.TrimSuffix(strings.Trim(segment, "{}"), "...")
		if name == "$" {
			continue
		}
		for _, c := range []byte(name) {
			if !isAlnum(c) && c != '_' {
				return fmt.Errorf("wildcard %q: its name becomes a header, so it is of letters, digits and underscores", segment)
			}
		}
		w := wildcard{name: name, header: textproto.CanonicalMIMEHeaderKey(routeHeader + name)}
		if headers[w.header] {
			return fmt.Errorf("wildcard %q: another one is the header %s too", segment, w.header)
		}
		headers[w.header] = true
		if p.wildcards = append(p.wildcards, w); len(p.wildcards) > maxWildcards {
			return fmt.Errorf("more than %d wildcards", maxWildcards)
		}
	}
	return nil
}
