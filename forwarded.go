package main

// The headers of a request to a function: those that the gateway sets
// (X-Forwarded-* and its own), and how it keeps callers from forging them.

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// parseTrustedProxies reads a list of networks and single addresses, separated
// by commas. An empty list trusts nobody. The error names every bad part.
func parseTrustedProxies(list string) ([]netip.Prefix, error) {
	if strings.TrimSpace(list) == "" {
		return nil, nil
	}
	var trusted []netip.Prefix
	var errs []error
	for part := range strings.SplitSeq(list, ",") {
		part = strings.TrimSpace(part)
		prefix, err := parseProxy(part)
		if err != nil {
			errs = append(errs, fmt.Errorf("trusted proxy %q: %w", part, err))
			continue
		}
		trusted = append(trusted, prefix)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return trusted, nil
}

// parseProxy reads one network or address. Peers are compared as IPv4 where
// they are IPv4-mapped, so such a network becomes one of IPv4.
func parseProxy(text string) (netip.Prefix, error) {
	if !strings.Contains(text, "/") {
		addr, err := netip.ParseAddr(text)
		switch {
		case err != nil:
			return netip.Prefix{}, errors.New("neither an IP address nor a network in CIDR notation")
		case addr.Zone() != "":
			return netip.Prefix{}, errors.New("zones are not supported")
		}
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, errors.New("not a network in CIDR notation")
	}
	if addr, bits := prefix.Addr(), prefix.Bits(); addr.Is4In6() {
		const mappedBits = 96
		if bits < mappedBits {
			return netip.Prefix{}, errors.New("IPv4-mapped network wider than all of IPv4")
		}
		prefix = netip.PrefixFrom(addr.Unmap(), bits-mappedBits)
	}
	return prefix.Masked(), nil
}

// A forwarder sets the forwarding headers of requests to functions. The zero
// value trusts no peer.
type forwarder struct {
	trusted []netip.Prefix
}

const (
	forwardedFor    = "X-Forwarded-For"
	forwardedHost   = "X-Forwarded-Host"
	forwardedProto  = "X-Forwarded-Proto"
	forwardedPrefix = "X-Forwarded-Prefix"
)

// set writes the forwarding headers of the request in to out, which is a copy of
// its headers or what ReverseProxy left of them. prefix is what the gateway removed
// from the front of the path; "": nothing.
//
// For an untrusted peer, X-Forwarded-For is its address, X-Forwarded-Host and
// -Proto are those of the request, and Forwarded and all other X-Forwarded- headers
// are dropped. For a trusted peer, its address is appended to X-Forwarded-For, host
// and protocol are kept if each is one valid value, the prefix that it removed
// comes before prefix, and the others pass. A peer without an address, as on a Unix
// socket, is not trusted and X-Forwarded-For is left out.
func (f forwarder) set(out http.Header, in *http.Request, prefix string) {
	var peer string
	trusted := false
	if addrPort, err := netip.ParseAddrPort(in.RemoteAddr); err == nil {
		// A zone is an interface of this machine and means nothing elsewhere.
		addr := addrPort.Addr().Unmap().WithZone("")
		peer = addr.String()
		trusted = f.trusts(addr)
	}
	host, proto := in.Host, "http"
	if in.TLS != nil {
		proto = "https"
	}

	if trusted {
		if prior := joinValues(in.Header[forwardedFor]); prior != "" {
			peer = prior + ", " + peer
		}
		if v := in.Header[forwardedHost]; len(v) == 1 && validForwardedHost(v[0]) {
			host = v[0]
		}
		if v := in.Header[forwardedProto]; len(v) == 1 && (v[0] == "http" || v[0] == "https") {
			proto = v[0]
		}
		prefix = priorPrefix(in.Header[forwardedPrefix]) + prefix
		if v := in.Header["Forwarded"]; len(v) > 0 {
			out["Forwarded"] = slices.Clone(v)
		}
	} else {
		delete(out, "Forwarded")
		for name := range out {
			if strings.HasPrefix(name, "X-Forwarded-") {
				delete(out, name)
			}
		}
	}

	// One allocation; the capacities keep an append to one value from writing
	// over the next.
	values := [...]string{peer, host, proto, prefix}
	setForwarded(out, forwardedFor, values[0:1:1])
	setForwarded(out, forwardedHost, values[1:2:2])
	setForwarded(out, forwardedProto, values[2:3:3])
	setForwarded(out, forwardedPrefix, values[3:4:4])
}

func setForwarded(out http.Header, name string, value []string) {
	if value[0] == "" {
		delete(out, name)
		return
	}
	out[name] = value
}

func (f forwarder) trusts(addr netip.Addr) bool {
	for _, prefix := range f.trusted {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}

// joinValues joins the lines of a header into one list.
func joinValues(lines []string) string {
	if len(lines) == 1 {
		return lines[0]
	}
	var list strings.Builder
	for _, line := range lines {
		if line == "" {
			continue
		}
		if list.Len() > 0 {
			list.WriteString(", ")
		}
		list.WriteString(line)
	}
	return list.String()
}

// priorPrefix returns the prefixes that proxies in front have removed, outermost
// first, as one path without a trailing slash. Some proxies make a list of them
// (Traefik one line each, Spring with commas), which not every framework joins
// again. It returns "" if a part is not a path: one with "//" would make a link
// point to another host.
func priorPrefix(lines []string) string {
	var whole strings.Builder
	for _, line := range lines {
		for part := range strings.SplitSeq(line, ",") {
			part = strings.TrimRight(strings.TrimSpace(part), "/")
			if part == "" {
				continue
			}
			if part[0] != '/' || strings.Contains(part, "//") {
				return ""
			}
			for _, c := range []byte(part) {
				if !isPathByte(c) {
					return ""
				}
			}
			whole.WriteString(part)
		}
	}
	return whole.String()
}

// validForwardedHost reports whether host looks like a host with or without a
// port. A list of several, as some proxies make, is none.
func validForwardedHost(host string) bool {
	if host == "" || len(host) > 255+len(":65535") {
		return false
	}
	for i := range len(host) {
		switch c := host[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("-._~:[]", c) >= 0:
		default:
			return false
		}
	}
	return true
}

// dropOwnHeaders deletes from h, the header of a request to a function, what the
// caller could use to forge the gateway's headers: X-Route- headers, and other
// spellings of names that the gateway sets or removes, such as X_Forwarded_For.
// Servers that put headers into variables (CGI, WSGI, PHP) map all spellings to one
// variable. This applies to trusted proxies, too: they pass on whatever their
// clients send.
//
// The usual spellings stay, as they are set afterwards. Call it after the headers
// named by Connection have been removed.
func dropOwnHeaders(h http.Header) {
	for name := range h {
		if strings.HasPrefix(name, routeHeader) {
			delete(h, name)
		} else if oddlySpelt(name) {
			if folded := foldName(name); isTold(folded) || isTakenOut(folded) {
				delete(h, name)
			}
		}
	}
}

// dropOwnTrailers does the same for the trailers of a request, in which the gateway
// sets nothing. A server may add them to the headers.
func dropOwnTrailers(t http.Header) {
	for name := range t {
		if folded := foldName(name); isTold(folded) || oddlySpelt(name) && isTakenOut(folded) {
			delete(t, name)
		}
	}
}

// isTold reports whether a folded name is one that the gateway sets for functions,
// or one by which callers name the function.
func isTold(folded string) bool {
	switch folded {
	case "x-call-id", "x-start-time", "x-timeout", "x-function", "forwarded":
		return true
	}
	return strings.HasPrefix(folded, "x-forwarded-") || strings.HasPrefix(folded, "x-route-")
}

// isTakenOut reports whether a folded name is hop-by-hop, so that the caller's
// header does not reach the function. Names without a hyphen have no other
// spelling.
func isTakenOut(folded string) bool {
	switch folded {
	case "content-length", "transfer-encoding", "keep-alive",
		"proxy-connection", "proxy-authenticate", "proxy-authorization":
		return true
	}
	return false
}

// oddlySpelt reports whether a name has a byte other than letters, digits and
// hyphens.
func oddlySpelt(name string) bool {
	for i := range len(name) {
		if c := name[i]; !isAlnum(c) && c != '-' {
			return true
		}
	}
	return false
}

// foldName returns the name in lower case, with a hyphen for each byte that is
// no letter or digit: PHP, for one, takes the dot for one as well.
func foldName(name string) string {
	folded := []byte(strings.ToLower(name))
	for i, c := range folded {
		if !isAlnum(c) {
			folded[i] = '-'
		}
	}
	return string(folded)
}
