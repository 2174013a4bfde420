package wire

// Bytes and names, compared as they come, without a copy.

// forbiddenTrailers are the fields that change a message's framing, its route,
// who sends it or how its content is read: RFC 9110, section 6.5.1. Never
// written to.
var forbiddenTrailers = [...]string{
	"authorization", "cache-control", "connection", "content-encoding",
	"content-length", "content-range", "content-type", "cookie", "expect",
	"forwarded", "host", "keep-alive", "max-forwards", "proxy-authorization",
	"proxy-connection", "range", "te", "trailer", "transfer-encoding",
	"upgrade", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto",
}

// equalName reports whether the token is lower in any case. No byte of a token
// but an upper-case letter becomes a letter or a hyphen by bit 5.
func equalName(token []byte, lower string) bool {
	if len(token) != len(lower) {
		return false
	}
	for i := range len(lower) {
		if token[i]|0x20 != lower[i] {
			return false
		}
	}
	return true
}

// orBareLF names the rule that c broke: a line feed out of place is always the
// same one.
func orBareLF(c byte, otherwise violation) violation {
	if c == '\n' {
		return violationBareLF
	}
	return otherwise
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
func isSpace(c byte) bool { return c == ' ' || c == '\t' }

func hexDigit(c byte) (digit byte, ok bool) {
	switch {
	case isDigit(c):
		return c - '0', true
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return (c | 0x20) - 'a' + 10, true
	}
	return 0, false
}
