package main

// Which function an Alexa request goes to.

import (
	"fmt"
	"strings"
	"testing"

	"faas/internal/alexa"
	"faas/internal/naming"
)

func TestAlexaIndex(t *testing.T) {
	skilled := func(d definition, intents string, skills string) definition {
		d.claim(labelIntent, strings.Fields(intents))
		d.claim(labelApplication, strings.Fields(skills))
		return d
	}
	index, claims := newAlexaIndex(claimants([]definition{
		skilled(routed("young", 5), "Weather AMAZON.HelpIntent", "skill-a"),
		skilled(routed("weather", 1), "Weather Forecast", "skill-a skill-a"),
		skilled(routed("trivia", 2), "AMAZON.HelpIntent AMAZON.HelpIntent", "skill-b"),
		skilled(routed("common", 3), "AMAZON.HelpIntent AMAZON.StopIntent", ""),
		skilled(routed("late", 4), "AMAZON.StopIntent", ""),
		routed("Direct", 0),
		routed("Forecast", 0),
	}))
	var got []string
	for _, c := range claims {
		got = append(got, fmt.Sprintf("%s %s %s %s by %s", c.name, c.kind, c.value, c.problem, c.holder))
	}
	want := []string{
		"late intent AMAZON.StopIntent taken by svc-common",
		"young application skill-a taken by svc-weather",
		"young intent Weather taken by svc-weather",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got claims\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}

	exists := func(name string) bool { return name == "Direct" || name == "Forecast" || !naming.IsFunction(name) }
	tests := []struct{ kind, intent, skill, want string }{
		{"IntentRequest", "Weather", "skill-a", "weather"},
		{"IntentRequest", "Weather", "unheard", "weather"},
		{"IntentRequest", "AMAZON.HelpIntent", "skill-a", "young"},
		{"IntentRequest", "AMAZON.HelpIntent", "skill-b", "trivia"},
		{"IntentRequest", "AMAZON.HelpIntent", "unheard", "common"},
		{"IntentRequest", "AMAZON.StopIntent", "skill-a", "common"},
		{"IntentRequest", "Direct", "skill-a", "Direct"},
		{"IntentRequest", "Forecast", "unheard", "weather"}, // the label comes before the name
		{"IntentRequest", "direct", "skill-a", ""},
		{"IntentRequest", "Unheard", "skill-a", ""}, // never the skill's function
		{"IntentRequest", "../etc", "skill-a", ""},  // exists is not asked
		{"IntentRequest", "a\x00b", "skill-a", ""},
		{"LaunchRequest", "", "skill-a", "weather"},
		{"SessionEndedRequest", "", "skill-b", "trivia"},
		{"CanFulfillIntentRequest", "", "skill-b", "trivia"},
		{"AudioPlayer.PlaybackStarted", "", "skill-a", "weather"},
		{"AlexaSkillEvent.SkillEnabled", "", "skill-a", "weather"},
		{"SomethingNew", "", "skill-b", "trivia"},
		{"LaunchRequest", "", "unheard", ""},
		{"LaunchRequest", "", "", ""},
	}
	for _, tt := range tests {
		name, ok := index.route(alexa.Request{Type: tt.kind, Intent: tt.intent, Application: tt.skill}, exists)
		if name != tt.want || ok != (tt.want != "") {
			t.Errorf("%s %s of %s: got %q, %v, want %q", tt.kind, tt.intent, tt.skill, name, ok, tt.want)
		}
	}
}

func TestAlexaIndexBadLabels(t *testing.T) {
	d := routed("f", 0)
	for i := range 1000 {
		d.claim(labelIntent, []string{fmt.Sprintf("I%d", i)})
	}
	d.claim(labelApplication, []string{"", strings.Repeat("a", 300), "a\nb", "a\xffb", "good"})
	index, claims := newAlexaIndex(claimants([]definition{d}))
	count := map[string]int{}
	for _, c := range claims {
		count[c.kind+" "+c.problem]++
	}
	if count["application bad"] != 4 || count["intent too_many"] != 1 || len(claims) != 5 {
		t.Errorf("got %v, want 4 bad skills and too many intents once", count)
	}
	for intent, want := range map[string]bool{"I255": true, "I256": false} {
		_, ok := index.route(alexa.Request{Type: "IntentRequest", Intent: intent, Application: "good"}, func(string) bool { return false })
		if ok != want {
			t.Errorf("%s: got %v, want %v", intent, ok, want)
		}
	}
}
