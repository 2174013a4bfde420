package main

// Which function answers an Alexa request: by its intent, or by its skill.

import (
	"fmt"
	"slices"
	"strings"
)

const (
	// What one function may ask for. A skill has 250 intents at most.
	maxAlexaNames = 256
	maxAlexaName  = 256 // bytes of an intent's name or a skill's ID
)

// An alexaIndex says which function answers an Alexa request. It is immutable.
type alexaIndex struct {
	// intents holds every function that lists an intent, by the skill it
	// lists too, or by "" if it lists none.
	intents map[alexaIntent]string
	// oldest holds the oldest function that lists an intent for any skill.
	oldest       map[string]string
	applications map[string]string
}

type alexaIntent struct{ application, intent string }

// newAlexaIndex returns the index of the functions' intents and skills, and
// what some function asked for and does not have. Where two ask for the same,
// the older function keeps it.
//
// An intent belongs to a skill, and every skill has the built-in ones such as
// AMAZON.StopIntent. So two functions that list one intent are in each other's
// way only if they list a skill in common, or both list none.
func newAlexaIndex(defs []definition) (*alexaIndex, []claim) {
	x := &alexaIndex{
		intents:      map[alexaIntent]string{},
		oldest:       map[string]string{},
		applications: map[string]string{},
	}
	var claims []claim
	service := map[string]string{} // by function
	for _, d := range byAge(defs) {
		service[d.name] = d.service
		applications := admitNames(d, claimApplication, d.applications, &claims)
		for _, a := range applications {
			if holder, taken := x.applications[a]; taken {
				claims = append(claims, d.claim(claimApplication, a, claimTaken, service[holder]))
			} else {
				x.applications[a] = d.name
			}
		}
		if len(applications) == 0 {
			applications = []string{""}
		}
		for _, intent := range admitNames(d, claimIntent, d.intents, &claims) {
			if _, taken := x.oldest[intent]; !taken {
				x.oldest[intent] = d.name
			}
			lost := ""
			for _, a := range applications {
				key := alexaIntent{a, intent}
				if holder, taken := x.intents[key]; !taken {
					x.intents[key] = d.name
				} else if lost == "" {
					lost = service[holder]
				}
			}
			if lost != "" {
				claims = append(claims, d.claim(claimIntent, intent, claimTaken, lost))
			}
		}
	}
	return x, claims
}

// admitNames returns the values of one label of d that can be looked up, each once.
func admitNames(d definition, kind string, values []string, claims *[]claim) []string {
	var good []string
	for i, v := range values {
		switch {
		case i >= maxAlexaNames:
			*claims = append(*claims, d.claim(kind, fmt.Sprintf("%d values", len(values)), claimTooMany, ""))
			return good
		case v == "" || len(v) > maxAlexaName || strings.ContainsFunc(v, notPrintable):
			*claims = append(*claims, d.claim(kind, v, claimBad, ""))
		case !slices.Contains(good, v):
			good = append(good, v)
		}
	}
	return good
}

// route returns the function that answers req: for an IntentRequest the one
// that lists the intent, first for this very skill, or else the one of that
// name; for a LaunchRequest, a SessionEndedRequest and every other type
// (CanFulfillIntentRequest, AudioPlayer.*, skill events, and those to come)
// the one that lists the skill.
func (x *alexaIndex) route(req alexaRequest, exists func(name string) bool) (name string, ok bool) {
	if req.kind != alexaIntentRequest {
		name, ok = x.applications[req.application]
		return name, ok
	}
	for _, application := range [...]string{req.application, ""} {
		if name, ok = x.intents[alexaIntent{application, req.intent}]; ok {
			return name, true
		}
	}
	if name, ok = x.oldest[req.intent]; ok {
		return name, true
	}
	if validName(req.intent) && exists(req.intent) {
		return req.intent, true
	}
	return "", false
}
