package main

// Patterns of routes: http.ServeMux's, with more checks, since they come from
// labels rather than from a program.

import (
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"path"
	"strings"

	"faas/internal/naming"
)

const (
	maxWildcards = 16         // of one pattern; each becomes a header
	routeHeader  = "X-Route-" // and a wildcard's name, canonical
)

// parseRouteFlag parses the value of -route, PATTERN=name. The last equals
// sign counts: a path may have some, a name has none.
func parseRouteFlag(s string) (pattern, name string, err error) {
	i := strings.LastIndexByte(s, '=')
	if i < 0 {
		return "", "", fmt.Errorf("%q: want PATTERN=name, as in 'POST /orders/{id}=orders'", s)
	}
	if name = strings.TrimSpace(s[i+1:]); !naming.IsFunction(name) {
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

var errReserved = errors.New("the gateway keeps this path for itself")

// reservedPath returns an error for a path that the gateway serves itself:
// /function, /async-function, /system, /metrics, /healthz, /ui, and whatever is below them.
func reservedPath(p string) error {
	first, _, _ := strings.Cut(strings.TrimPrefix(p, "/"), "/")
	switch first {
	case "function", "async-function", "system", "metrics", "healthz", "ui":
		return fmt.Errorf("%q: %w", "/"+first, errReserved)
	}
	return nil
}

// A routePattern is a pattern that is valid for a ServeMux on its own.
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

// only reports whether the pattern matches one path alone, and it is path.
func (p routePattern) only(path string) bool {
	literal, exact := strings.CutSuffix(p.path, "{$}")
	if len(p.wildcards) > 0 || strings.HasSuffix(literal, "/") && !exact {
		return false
	}
	literal, err := url.PathUnescape(literal)
	return err == nil && literal == path
}

// parsePattern parses a pattern of http.ServeMux. It rejects what a ServeMux would
// accept but never match, or match unexpectedly: methods in lower case, hosts with
// a port, a query, paths that are not clean and segments that hide a slash. A comma
// in a path is written %2C, as commas separate the patterns of a label.
func parsePattern(s string) (routePattern, error) {
	var p routePattern
	if strings.ContainsFunc(s, func(r rune) bool { return r != '\t' && naming.NotPrintable(r) }) {
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
			if strings.Contains(literal, "/") || strings.ContainsFunc(literal, naming.NotPrintable) {
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

// cleanPath returns p without empty segments, "." and "..", and with the slash
// at its end that it had. p begins with a slash.
func cleanPath(p string) string {
	clean := path.Clean(p)
	if clean != "/" && strings.HasSuffix(p, "/") {
		clean += "/"
	}
	return clean
}

// register adds a pattern to mux, which panics if the pattern is invalid or
// conflicts with another one. mux is unchanged then.
func register(mux *http.ServeMux, pattern string, h http.Handler) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("pattern %q: %v", pattern, p)
		}
	}()
	mux.Handle(pattern, h)
	return nil
}

func isAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z'
}
