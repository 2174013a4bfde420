package main

// The kinds of routes: ways of finding the function that a request is for, other
// than by its name. Each kind is one file with its labels, its index and its way
// in, and a line in routeKinds.

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"time"

	"faas/internal/naming"
	"faas/internal/settings"
)

// routeKinds are all kinds, in the order in which they are tried. It is never
// written to.
var routeKinds = []routeKind{
	alexaKind,
	patternKind,
}

// A routeKind is one way to find a function.
type routeKind struct {
	via    string  // how requests that it finds came in, for gateway_requests_total
	labels []label // what functions say that they answer

	// index returns an index of all functions, and the rejected claims. Its
	// argument is sorted with the oldest function first and must not be changed. It
	// is called only if the claimants have changed.
	index func(c *config, all []claimant) (index any, rejected []claim)

	// serve handles r and returns true if r is of this kind. Otherwise the next
	// kind is tried. path is the request's, escaped.
	serve func(g *gateway, w http.ResponseWriter, r *http.Request, path string) bool
}

// A claimant is all that the kinds see of one function: if the claimants are
// unchanged, so are the indexes.
type claimant struct {
	name    string
	service string
	created time.Time
	claims  map[string][]string // by label; never written to
}

// claim adds values that the function claims with one label.
func (d *definition) claim(label string, values []string) {
	d.claims = maps.Clone(d.claims) // others may share it
	if d.claims == nil {
		d.claims = map[string][]string{}
	}
	d.claims[label] = slices.Concat(d.claims[label], values)
}

// listLabel is a label with a list of claims.
func listLabel(name, def, meaning string) label {
	return label{name: name, def: def, meaning: meaning, set: func(d *definition, v string) bool {
		d.claim(name, settings.SplitList(v))
		return true
	}}
}

// indexes are what the kinds have made of one snapshot's functions.
type indexes struct {
	claimants []claimant // of which they were made
	byKind    []any      // as in routeKinds
	rejected  []claim    // what functions ask for and do not have
}

// newIndexes indexes defs, which are sorted by age. If nothing has changed it
// returns before, which may be nil: indexing many functions takes a while.
func newIndexes(c *config, defs []definition, before *indexes) *indexes {
	x := &indexes{claimants: claimants(defs)}
	if before != nil && reflect.DeepEqual(x.claimants, before.claimants) {
		return before
	}
	for _, k := range routeKinds {
		index, rejected := k.index(c, x.claimants)
		x.byKind = append(x.byKind, index)
		x.rejected = append(x.rejected, rejected...)
	}
	return x
}

// indexOf returns the index of type T, or its zero value without one.
func indexOf[T any](x *indexes) T {
	for _, index := range x.byKind {
		if found, ok := index.(T); ok {
			return found
		}
	}
	var none T
	return none
}

// claimants returns what the kinds may see of defs, the oldest first.
func claimants(defs []definition) []claimant {
	all := make([]claimant, len(defs))
	for i, d := range byAge(defs) {
		all[i] = claimant{d.name, d.service, d.created, d.claims}
	}
	return all
}

// entries are the ways in: the values of the label route of
// gateway_requests_total.
func entries() []string {
	all := []string{viaFunction, viaAsync, viaHeader, viaSystem, viaNone}
	for _, k := range routeKinds {
		all = append(all, k.via)
	}
	return all
}

// A claim is one such route, intent or skill. It is comparable, so that
// whoever reports claims can tell a new one from one that it has reported.
type claim struct {
	service string // who asks, the provider's handle
	name    string // its function
	kind    string // what it is: a closed set, of the kinds of routes
	value   string // the pattern, intent or skill, shortened to be shown
	problem string // claimBad, ...: a closed set
	holder  string // claimTaken: the service that has it, if it is known
	detail  string // what is wrong in particular, may be empty
}

const (
	claimBad      = "bad"
	claimReserved = "reserved"
	claimTaken    = "taken"
	claimTooMany  = "too_many"
	claimTooLong  = "too_long"
)

// conflict reports whether another function has what c claims. Otherwise the label
// itself is invalid.
func (c claim) conflict() bool { return c.problem == claimTaken && c.holder != c.service }

// String describes the problem in one line, for a log or a function's status.
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

// rejected returns a rejected claim of c on value.
func (c claimant) rejected(kind, value, problem, holder string) claim {
	return claim{service: c.service, name: c.name, kind: kind, value: naming.Shown(value), problem: problem, holder: holder}
}

// byAge returns the definitions with the oldest first, ties by name: the order of
// their claims. It does not change defs.
func byAge(defs []definition) []definition {
	return slices.SortedStableFunc(slices.Values(defs), func(a, b definition) int {
		return cmp.Or(a.created.Compare(b.created), cmp.Compare(a.name, b.name), cmp.Compare(a.service, b.service))
	})
}
