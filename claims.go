package main

// Claims: what a function asked for by its labels and does not have, because
// an older one has it or because it makes no sense.

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A claim is one such route, intent or skill. It is comparable, so that
// whoever reports claims can tell a new one from one that it has reported.
type claim struct {
	service string // who asks, the provider's handle
	name    string // its function
	kind    string // claimRoute, claimIntent, claimApplication
	value   string // the pattern, intent or skill, shortened to be shown
	problem string // claimBad, ...: a closed set
	holder  string // claimTaken: the service that has it, if it is known
	detail  string // what is wrong in particular, may be empty
}

const (
	claimRoute       = "route"
	claimIntent      = "intent"
	claimApplication = "application"

	claimBad      = "bad"
	claimReserved = "reserved"
	claimTaken    = "taken"
	claimTooMany  = "too_many"
	claimTooLong  = "too_long"
)

// conflict reports whether another function has what c is for. Else the label
// itself is at fault.
func (c claim) conflict() bool { return c.problem == claimTaken && c.holder != c.service }

// String says in one line what is wrong, for a log or a function's status.
func (c claim) String() string {
	s := fmt.Sprintf("%s %q of service %s: ", c.kind, c.value, c.service)
	switch c.problem {
	case claimTaken:
		if c.holder == c.service {
			s += "asked for twice"
		} else if c.holder != "" {
			s += "service " + c.holder + " is older and has it"
		} else {
			s += "an older service has it"
		}
	case claimReserved:
		s += "the gateway keeps this path"
	case claimTooMany:
		s += "too many"
	case claimTooLong:
		s += "too long"
	default:
		s += "not valid"
	}
	if c.detail != "" {
		s += ": " + c.detail
	}
	return s
}

// claim returns a claim of d on value that came to nothing.
func (d definition) claim(kind, value, problem, holder string) claim {
	return claim{service: d.service, name: d.name, kind: kind, value: shown(value), problem: problem, holder: holder}
}

// shown shortens what came from a label until it is fit to be shown.
func shown(s string) string {
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

func notPrintable(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }

// byAge returns the definitions with the oldest first, ties by name: the order
// in which they get what they ask for. defs is left as it is.
func byAge(defs []definition) []definition {
	return slices.SortedStableFunc(slices.Values(defs), func(a, b definition) int {
		return cmp.Or(a.created.Compare(b.created), cmp.Compare(a.name, b.name), cmp.Compare(a.service, b.service))
	})
}
