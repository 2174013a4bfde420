package watchdog

// The environment of a process: the watchdog's own, and the request as Http_*
// variables.

import (
	"errors"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
)

// errNUL is returned for a request that holds a NUL byte, which no variable can.
var errNUL = errors.New("the request holds a NUL byte, which an environment variable cannot hold")

// requestEnviron appends r as Http_* variables to base, which it copies.
//
// Each name comes up once, so that a caller cannot shadow what the watchdog
// says about the request: headers that would take the name of one of its own
// variables are left out, and of two headers that differ in - and _ alone the
// one spelled with - wins. The header Proxy is left out always: as HTTP_PROXY
// it would send the function's own requests through a proxy of the caller's
// choice (httpoxy).
func requestEnviron(base []string, r *http.Request) ([]string, error) {
	env := make([]string, len(base), len(base)+6+len(r.Header))
	copy(env, base)
	env = append(env,
		"Http_Method="+r.Method,
		"Http_Path="+r.URL.EscapedPath(),
		"Http_Query="+r.URL.RawQuery,
		"Http_Host="+r.Host,
	)
	if r.ContentLength >= 0 {
		env = append(env, "Http_Content_Length="+strconv.FormatInt(r.ContentLength, 10))
	}
	if len(r.TransferEncoding) > 0 {
		env = append(env, "Http_Transfer_Encoding="+strings.Join(r.TransferEncoding, ", "))
	}
	var underscored []string
	for name, values := range r.Header {
		switch {
		case ownVariable(name), name == "", strings.IndexByte(name, '=') >= 0:
		case strings.IndexByte(name, '_') >= 0:
			underscored = append(underscored, name)
		default:
			env = append(env, "Http_"+strings.ReplaceAll(name, "-", "_")+"="+joinValues(name, values))
		}
	}
	slices.Sort(underscored)
	last := ""
	for _, name := range underscored {
		dashed := textproto.CanonicalMIMEHeaderKey(strings.ReplaceAll(name, "_", "-"))
		if _, taken := r.Header[dashed]; taken || dashed == last || ownVariable(dashed) {
			continue
		}
		last = dashed
		env = append(env, "Http_"+strings.ReplaceAll(dashed, "-", "_")+"="+joinValues(name, r.Header[name]))
	}
	for _, v := range env[len(base):] {
		if strings.IndexByte(v, 0) >= 0 {
			return nil, errNUL
		}
	}
	return env, nil
}

// ownVariable reports whether the variable of this header is one that the
// watchdog sets itself, or must never be set.
func ownVariable(header string) bool {
	switch header {
	case "Method", "Path", "Query", "Host", "Content-Length", "Transfer-Encoding", "Proxy":
		return true
	}
	return false
}

// joinValues makes one value of several: with "; " for cookies (RFC 6265,
// section 4.2.1), else with ", " (RFC 9110, section 5.3).
func joinValues(name string, values []string) string {
	if len(values) == 1 {
		return values[0]
	}
	if name == "Cookie" {
		return strings.Join(values, "; ")
	}
	return strings.Join(values, ", ")
}
