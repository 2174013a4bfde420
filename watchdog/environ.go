package watchdog

// The environment of a process: the watchdog's own, and the request as Http_*
// variables.

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// errNUL is returned for a request that holds a NUL byte, which no variable can.
var errNUL = errors.New("the request holds a NUL byte, which an environment variable cannot hold")

// requestEnviron appends r as Http_* variables to base, which it copies. The
// path is as the caller escaped it.
//
// The header Proxy is left out always: as HTTP_PROXY it would send the
// function's own requests through a proxy of the caller's choice (httpoxy).
func requestEnviron(base []string, r *http.Request) ([]string, error) {
	env := make([]string, len(base), len(base)+6+len(r.Header))
	copy(env, base)
	env = append(env,
		"Http_Method="+r.Method,
		"Http_Path="+r.URL.EscapedPath(),
		"Http_Query="+r.URL.RawQuery,
		"Http_Host="+r.Host,
	)
	// Scripts for OpenFaaS's classic watchdog know the length by another name.
	length := strconv.FormatInt(r.ContentLength, 10)
	env = append(env, "Http_ContentLength="+length)
	if r.ContentLength >= 0 {
		env = append(env, "Http_Content_Length="+length)
	}
	if len(r.TransferEncoding) > 0 {
		env = append(env, "Http_Transfer_Encoding="+strings.Join(r.TransferEncoding, ", "))
	}
	return appendHeaders(env, len(base), r.Header, "Http_", func(name string) (string, bool) {
		switch name {
		case "Method", "Path", "Query", "Host", "Content-Length", "Transfer-Encoding", "Proxy":
			return "", false
		}
		return name, true
	})
}

// appendHeaders appends a variable per header to env: prefix, and the name as
// rename has it, with - as _. A header that rename refuses is left out, and so
// is one whose name net/http would not have let through. Each variable comes up
// once, so that a caller cannot shadow another's header. What env holds from
// index own on must have no NUL byte.
func appendHeaders(env []string, own int, h http.Header, prefix string, rename func(string) (string, bool)) ([]string, error) {
	for name, values := range unfolded(h) {
		key, ok := rename(name)
		if _, plain := rename(fold(name)); !ok || !plain || !validFieldName(name) {
			continue
		}
		env = append(env, prefix+strings.ReplaceAll(key, "-", "_")+"="+joinValues(name, values))
	}
	for _, v := range env[own:] {
		if strings.IndexByte(v, 0) >= 0 {
			return nil, errNUL
		}
	}
	return env, nil
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

// baseEnviron returns env without variables that describe a request: what a
// request does not have must not seem to come from it. HTTP_PROXY stays, which
// no header can set.
func baseEnviron(env []string, mode string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		if name == markVariable {
			return true
		}
		if mode != ModeCGI {
			return strings.HasPrefix(name, "Http_")
		}
		switch name {
		case "HTTP_PROXY":
			return false
		case "AUTH_TYPE", "CONTENT_LENGTH", "CONTENT_TYPE", "GATEWAY_INTERFACE", "HTTPS", "PATH_INFO", "PATH_TRANSLATED",
			"QUERY_STRING", "REMOTE_ADDR", "REMOTE_HOST", "REMOTE_IDENT", "REMOTE_PORT", "REMOTE_USER", "REQUEST_METHOD",
			"REQUEST_URI", "SCRIPT_NAME", "SERVER_NAME", "SERVER_PORT", "SERVER_PROTOCOL", "SERVER_SOFTWARE":
			return true
		}
		return strings.HasPrefix(name, "HTTP_")
	})
}
