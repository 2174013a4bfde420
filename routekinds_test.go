package main

import (
	"fmt"
	"testing"
	"time"
)

// The indexes are made anew when any function asks for something else by any
// kind's label, or may go by another order, and only then.
func TestIndexesAreMadeAnewWhenClaimsChange(t *testing.T) {
	define := func(change func(d *definition)) []definition {
		defs := []definition{routed("a", 1, "/a"), routed("b", 2)}
		change(&defs[1])
		return defs
	}
	first := newIndexes(new(config), define(func(*definition) {}), nil)
	if got := newIndexes(new(config), define(func(d *definition) { d.timeout, d.replicas, d.rollout = time.Minute, 3, true }), first); got != first {
		t.Error("got new indexes for what no kind sees, want those that there are")
	}
	changes := map[string]func(d *definition){
		"name":    func(d *definition) { d.name = "c" },
		"service": func(d *definition) { d.service = "other" },
		"created": func(d *definition) { d.created = d.created.Add(-time.Hour) },
	}
	for _, k := range routeKinds {
		for _, l := range k.labels {
			changes["label "+l.name] = func(d *definition) {
				if !l.set(d, "/x") {
					t.Errorf("label %s: got /x refused", l.name)
				}
			}
		}
	}
	if len(changes) < 6 {
		t.Errorf("got %d changes, want three and at least three labels", len(changes))
	}
	for name, change := range changes {
		if got := newIndexes(new(config), define(change), first); got == first {
			t.Errorf("%s: got the indexes from before, want new ones", name)
		}
	}
}

// Two functions that have their claims from one definition do not share them.
func TestClaimsAreTheFunctionsOwn(t *testing.T) {
	var defaults definition
	defaults.claim(labelRoute, []string{"/all"})
	a, b := defaults, defaults
	a.claim(labelRoute, []string{"/a"})
	b.claim(labelRoute, []string{"/b"})
	got := fmt.Sprint(defaults.claims[labelRoute], a.claims[labelRoute], b.claims[labelRoute])
	if want := "[/all] [/all /a] [/all /b]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
