package watchdog

// Header names that mean the same to a program: CGI, and what came after it,
// makes X_FORWARDED_FOR of X-Forwarded-For, X_Forwarded_For and, in PHP,
// X.Forwarded.For.

import (
	"cmp"
	"maps"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
)

// unfolded returns h without the headers that another one could be taken for:
// of names that are the same but for their punctuation, the one spelled with -
// stays, or else the one with the most _, or else the first in the order of
// bytes. Names that only the gateway,
// net/http or the connection itself may set stay in no other spelling at all.
// h itself is left as it is.
func unfolded(h http.Header) http.Header {
	var odd []string
	for name := range h {
		if fold(name) != name {
			odd = append(odd, name)
		}
	}
	if len(odd) == 0 {
		return h
	}
	h = maps.Clone(h)
	slices.SortFunc(odd, func(a, b string) int {
		return cmp.Or(strings.Count(b, "_")-strings.Count(a, "_"), strings.Compare(a, b))
	})
	taken := map[string]bool{}
	for _, name := range odd {
		plain := fold(name)
		if _, there := h[plain]; there || taken[plain] || isOthers(plain) {
			delete(h, name)
		}
		taken[plain] = true
	}
	return h
}

// fold returns name in its canonical form with - for every other punctuation.
func fold(name string) string {
	isPlain := func(c byte) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-'
	}
	for i := range len(name) {
		if !isPlain(name[i]) {
			plain := []byte(name)
			for i, c := range plain {
				if !isPlain(c) {
					plain[i] = '-'
				}
			}
			return textproto.CanonicalMIMEHeaderKey(string(plain))
		}
	}
	return name
}

// isOthers reports whether a client has no say in the header of this canonical
// name: it is the gateway's, or says how this very request is sent.
func isOthers(name string) bool {
	switch name {
	case "X-Call-Id", "X-Start-Time", "X-Timeout", "X-Function", "Forwarded", "Host",
		"Connection", "Content-Length", "Content-Type", "Expect", "Keep-Alive", "Proxy-Authorization",
		"Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return strings.HasPrefix(name, "X-Forwarded-") || strings.HasPrefix(name, "X-Route-")
}
