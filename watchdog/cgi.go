package watchdog

// Mode cgi: a process per request that gets the request as RFC 3875 has it,
// and sets status and header of the response.

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
)

// maxCGIHeader is how long the header block of a response may be.
const maxCGIHeader = 64 << 10

// errHeaderOpen says that the empty line which ends a header block has not
// been seen.
var errHeaderOpen = errors.New("no empty line after the header")

// cgiEnviron appends the meta-variables of RFC 3875, section 4.1, to base,
// which it copies. The length of the body has to be known. The URL is the one
// that the client asked the gateway for, as far as the gateway tells it. The
// header Proxy is left out always: see requestEnviron.
func cgiEnviron(base []string, r *http.Request) ([]string, error) {
	script := scriptName(r.Header)
	https := r.Header.Get("X-Forwarded-Proto") == "https"
	host, port := splitHostPort(r.Host)
	if port == "" && https {
		port = "443"
	}
	if port == "" {
		port = "80"
		if a, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
			if _, p := splitHostPort(a.String()); p != "" {
				port = p
			}
		}
	}
	remote, remotePort := splitHostPort(r.RemoteAddr)

	env := make([]string, len(base), len(base)+16+len(r.Header))
	copy(env, base)
	env = append(env,
		"GATEWAY_INTERFACE=CGI/1.1",
		"SERVER_SOFTWARE=fwatchdog",
		"SERVER_PROTOCOL="+r.Proto,
		"SERVER_NAME="+host,
		"SERVER_PORT="+port,
		"REQUEST_METHOD="+r.Method,
		"REQUEST_URI="+script+r.URL.RequestURI(),
		"SCRIPT_NAME="+script,
		"PATH_INFO="+r.URL.Path,
		"QUERY_STRING="+r.URL.RawQuery,
		"REMOTE_ADDR="+remote,
		"REMOTE_HOST="+remote,
		"REMOTE_PORT="+remotePort,
		"HTTP_HOST="+r.Host,
	)
	if https {
		env = append(env, "HTTPS=on")
	}
	if r.ContentLength > 0 {
		env = append(env, "CONTENT_LENGTH="+strconv.FormatInt(r.ContentLength, 10))
	}
	if t := r.Header.Get("Content-Type"); t != "" {
		env = append(env, "CONTENT_TYPE="+t)
	}
	return appendHeaders(env, len(base), r.Header, "HTTP_", func(name string) (string, bool) {
		switch name {
		case "Host", "Content-Length", "Content-Type", "Transfer-Encoding", "Proxy":
			return "", false
		}
		return strings.ToUpper(name), true
	})
}

// maxScriptName is how long SCRIPT_NAME may be.
const maxScriptName = 1 << 10

// scriptName returns the path below which the function is called, "" if that is
// the root or not known. Scripts make links of it, so only what is a plain path
// counts: /function/NAME.
func scriptName(h http.Header) string {
	values := h["X-Forwarded-Prefix"]
	if len(values) != 1 || len(values[0]) > maxScriptName || !strings.HasPrefix(values[0], "/") {
		return ""
	}
	for segment := range strings.SplitSeq(values[0][1:], "/") {
		if segment == "" || segment == "." || segment == ".." || strings.ContainsFunc(segment, func(c rune) bool {
			return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("-._~", c))
		}) {
			return ""
		}
	}
	return values[0]
}

// splitHostPort is net.SplitHostPort for addresses that may lack a port.
func splitHostPort(addr string) (host, port string) {
	if h, p, err := net.SplitHostPort(addr); err == nil {
		return h, p
	}
	return strings.Trim(addr, "[]"), ""
}

// A cgiHeader is the header block of a response.
type cgiHeader struct {
	status   int // 0: none was given
	header   http.Header
	redirect string // path and query of a local redirect; "": none
}

// parseCGIHeader parses the header block that b starts with (RFC 3875, section
// 6) and returns what follows it. Lines end with LF or CRLF. What concerns one
// connection, which is not the process's, is left out. errHeaderOpen says that
// the block goes on after b.
func parseCGIHeader(b []byte) (cgiHeader, []byte, error) {
	head := cgiHeader{header: http.Header{}}
	rest, fields := b, 0
	for {
		line, after, found := bytes.Cut(rest, []byte{'\n'})
		if len(b)-len(after) > maxCGIHeader {
			return head, nil, fmt.Errorf("header longer than %d bytes", maxCGIHeader)
		}
		if !found {
			return head, nil, errHeaderOpen
		}
		rest = after
		line = bytes.TrimSuffix(line, []byte{'\r'})
		if len(line) == 0 {
			break
		}
		if err := head.add(string(line)); err != nil {
			return head, nil, err
		}
		fields++
	}
	if fields == 0 {
		return head, nil, errors.New("empty header")
	}
	location := head.header.Get("Location")
	if head.status == 0 && location != "" {
		if strings.HasPrefix(location, "/") && !strings.HasPrefix(location, "//") {
			if _, err := url.ParseRequestURI(location); err != nil {
				return head, nil, fmt.Errorf("location: %w", err)
			}
			head.redirect = location
		}
		head.status = http.StatusFound
	}
	return head, rest, nil
}

// add takes one line of a header block.
func (c *cgiHeader) add(line string) error {
	name, value, ok := strings.Cut(line, ":")
	if !ok {
		return errors.New("header line without a colon")
	}
	if !validFieldName(name) {
		return fmt.Errorf("header name %q is none", name)
	}
	name, value = textproto.CanonicalMIMEHeaderKey(name), strings.Trim(value, " \t")
	if !validFieldValue(value) {
		return fmt.Errorf("header %s: its value holds a control character", name)
	}
	switch name {
	case "Status":
		code, _, _ := strings.Cut(value, " ")
		n, err := strconv.Atoi(code)
		if err != nil || len(code) != 3 || n < 200 || n > 599 {
			return fmt.Errorf("status %q is none from 200 to 599", value)
		}
		c.status = n
	case "Content-Length":
		if _, err := strconv.ParseUint(value, 10, 63); err != nil {
			return fmt.Errorf("content length %q is no number", value)
		}
		c.header.Set(name, value)
	case "Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
	case "Content-Type", "Location":
		c.header.Set(name, value)
	default:
		c.header.Add(name, value)
	}
	return nil
}

// validFieldName reports whether s is a token (RFC 9110, section 5.6.2).
func validFieldName(s string) bool {
	if s == "" {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0:
		default:
			return false
		}
	}
	return true
}

func validFieldValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}
