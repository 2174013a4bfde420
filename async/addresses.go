package main

// Where callbacks may go. What is checked is the address that is about to be
// connected to, so that no name and no change of a name gets around it.

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// errForbidden says that a callback may not go where its URL leads.
var errForbidden = errors.New("callbacks may not go there")

// callbackRules is the list of -callback-allow.
type callbackRules struct {
	public   bool
	gateway  bool
	prefixes []netip.Prefix
	names    map[string]bool // host:port, whatever their addresses
}

func parseCallbackRules(s string) (callbackRules, error) {
	r := callbackRules{names: map[string]bool{}}
	for _, v := range splitList(s) {
		prefix, err := netip.ParsePrefix(v)
		host, port, errName := net.SplitHostPort(v)
		_, errPort := strconv.ParseUint(port, 10, 16)
		switch {
		case v == "public":
			r.public = true
		case v == "gateway":
			r.gateway = true
		case err == nil:
			r.prefixes = append(r.prefixes, prefix.Masked())
		case errName == nil && errPort == nil && host != "":
			r.names[strings.ToLower(v)] = true
		default:
			return r, fmt.Errorf("%q is none of public, gateway, a CIDR such as 10.1.0.0/16, and host:port", v)
		}
	}
	return r, nil
}

// control is for net.Dialer: it sees the address after every look-up.
func (r *callbackRules) control(network, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: %s", errForbidden, address)
	}
	ip := at.Addr().Unmap().WithZone("")
	for _, p := range r.prefixes {
		if p.Contains(ip) {
			return nil
		}
	}
	if r.public && isPublic(ip) {
		return nil
	}
	return errForbidden
}

// hostPort returns the host and port that a URL leads to, in lower case.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}

// Networks that are nobody's on the Internet, besides those that package netip
// knows: RFC 6890 and the IANA registries of special-purpose addresses.
var notPublic = func() []netip.Prefix {
	var list []netip.Prefix
	for _, s := range []string{
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15",
		"198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
		"::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fec0::/10",
	} {
		list = append(list, netip.MustParsePrefix(s))
	}
	return list
}()

// nat64 addresses have the IPv4 address that is meant in their last 4 bytes.
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

func isPublic(ip netip.Addr) bool {
	ip = ip.Unmap()
	if nat64.Contains(ip) {
		b := ip.As16()
		ip = netip.AddrFrom4([4]byte(b[12:]))
	}
	if !ip.IsGlobalUnicast() || ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast() {
		return false
	}
	for _, p := range notPublic {
		if p.Contains(ip) {
			return false
		}
	}
	return true
}

// validCallback checks the form of a callback's URL.
func validCallback(s string) error {
	u, err := url.Parse(s)
	switch {
	case len(s) > 2048:
		return errors.New("X-Callback-Url is longer than 2048 bytes")
	case err != nil || !isVisible(s) || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || u.User != nil:
		return errors.New("X-Callback-Url is not a URL such as https://example.com/done, without a user name")
	}
	return nil
}

// newCallbackDialer makes the dialer that keeps to the rules. resolver is nil
// for the system's.
func newCallbackDialer(r *callbackRules, resolver *net.Resolver) *net.Dialer {
	return &net.Dialer{Timeout: 10 * time.Second, Control: r.control, Resolver: resolver}
}
