package main

// Forwarding headers: who the client is, and what it asked for, as a function
// may believe it.

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
	forwardedFor   = "X-Forwarded-For"
	forwardedHost  = "X-Forwarded-Host"
	forwardedProto = "X-Forwarded-Proto"
)

// set writes the forwarding headers of the request in to out, which is a copy
// of its headers or what ReverseProxy left of them.
//
// What an untrusted peer says about itself is dropped: X-Forwarded-For is its
// address, X-Forwarded-Host and -Proto are what it asked for, and neither
// Forwarded nor any other X-Forwarded- header goes on. From a trusted peer the
// address is appended to X-Forwarded-For, host and protocol are kept where each
// is one valid value, and the others pass. If the peer has no address, as on a
// Unix socket, it is not trusted and X-Forwarded-For is left out.
func (f forwarder) set(out http.Header, in *http.Request) {
	var peer string
	trusted := false
	if addrPort, err := netip.ParseAddrPort(in.RemoteAddr); err == nil {
		// A zone is an interface of this machine and tells nobody anything.
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
	values := [...]string{peer, host, proto}
	setForwarded(out, forwardedFor, values[0:1:1])
	setForwarded(out, forwardedHost, values[1:2:2])
	setForwarded(out, forwardedProto, values[2:3:3])
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

// joinValues makes one list of a header that may have come in several lines.
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
