// Package field defines which bytes RFC 9110 and RFC 9112 allow in the parts of a
// message.
package field

import "strings"

// What a byte may be part of.
const (
	token  = 1 << iota // a method or a field's name
	value              // a field's value or a chunk extension
	target             // a request target, in which clients leave UTF-8 as it is
	host               // a host and its port
)

// classes is never written to.
var classes = classify()

func classify() (class [256]uint8) {
	for c := range class {
		if c == '\t' || c >= ' ' && c != 0x7f {
			class[c] |= value
		}
		if c > ' ' && c != 0x7f {
			class[c] |= target
		}
		if 'a' <= c|0x20 && c|0x20 <= 'z' && c < 0x80 || '0' <= c && c <= '9' {
			class[c] |= token | host
		}
	}
	for _, c := range []byte("!#$%&'*+-.^_`|~") {
		class[c] |= token
	}
	for _, c := range []byte(".-:!$%&'()*+,;=[]_~") {
		class[c] |= host
	}
	return class
}

// IsTokenByte reports whether c can be part of a token.
func IsTokenByte(c byte) bool { return classes[c]&token != 0 }

// IsValueByte reports whether c can be part of a field's value: anything but
// control characters other than tab.
func IsValueByte(c byte) bool { return classes[c]&value != 0 }

// IsTargetByte reports whether c can stand between the two spaces of a request
// line.
func IsTargetByte(c byte) bool { return classes[c]&target != 0 }

// IsToken reports whether s is a token (RFC 9110, section 5.6.2): a method or
// a field's name. The empty string is none.
func IsToken(s string) bool { return s != "" && all(s, token) }

// IsValue reports whether s can be a field's value (RFC 9110, section 5.5);
// the empty string can.
func IsValue(s string) bool { return all(s, value) }

// IsTarget reports whether s fits between the two spaces of a request line
// (RFC 9112, section 3). The empty string does not.
func IsTarget(s string) bool { return s != "" && all(s, target) }

// IsHost reports whether s has only bytes that a host and a port can have
// (RFC 3986, section 3.2). The empty string does not.
func IsHost(s string) bool { return s != "" && all(s, host) }

// IsDerived reports whether name, in upper or lower case, is a field that
// follows from the message itself and its framing: a sender writes these
// anew, and no trailer can be one.
func IsDerived(name string) bool {
	switch len(name) {
	case len("Host"):
		return strings.EqualFold(name, "Host")
	case len("Trailer"):
		return strings.EqualFold(name, "Trailer")
	case len("Content-Length"):
		return strings.EqualFold(name, "Content-Length")
	case len("Transfer-Encoding"):
		return strings.EqualFold(name, "Transfer-Encoding")
	}
	return false
}

func all(s string, class uint8) bool {
	for i := range len(s) {
		if classes[s[i]]&class == 0 {
			return false
		}
	}
	return true
}
