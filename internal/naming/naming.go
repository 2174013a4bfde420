// Package naming says which names functions, services and secrets may have, and how
// a message shows what is none.
package naming

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxLen is the length of a name in bytes: that of a host name's label.
const MaxLen = 63

// IsFunction reports whether name can be a function's: a letter or digit, then
// letters, digits, dots, underscores and hyphens, 63 bytes at most. Anything else
// is rejected before a lookup.
func IsFunction(name string) bool {
	if name == "" || len(name) > MaxLen {
		return false
	}
	for i := range len(name) {
		c := name[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case i > 0 && (c == '.' || c == '_' || c == '-'):
		default:
			return false
		}
	}
	return true
}

// What Swarm takes as the name of a service, and fits a host name: SwarmKit's
// api/validation.
var serviceName = regexp.MustCompile(`^[a-zA-Z0-9](?:[-_]*[A-Za-z0-9]+)*$`)

// IsService reports whether name can be a Swarm service's, and a host name.
func IsService(name string) bool { return len(name) <= MaxLen && serviceName.MatchString(name) }

var secretName = regexp.MustCompile(`^[a-zA-Z0-9]+(?:[a-zA-Z0-9-_.]*[a-zA-Z0-9])?$`)

// MaxSecret is the length of a secret's name in bytes.
const MaxSecret = 64

// IsSecret reports whether name can be a secret's: what Docker takes.
// Its version at Docker has a suffix, which has to fit too.
func IsSecret(name string) bool {
	return len(name) <= MaxSecret && secretName.MatchString(name) && !strings.Contains(name, "..")
}

// Shown shortens a value that came from outside for a message.
func Shown(s string) string {
	const longest = 128
	if len(s) <= longest {
		return s
	}
	end := longest
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return strings.Clone(s[:end]) + "..."
}

// NotPrintable reports whether a message cannot show r as it is.
func NotPrintable(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }
