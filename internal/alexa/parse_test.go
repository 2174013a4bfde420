package alexa

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"faas/internal/alexa/alexatest"
)

func TestParseAlexaSamples(t *testing.T) {
	tests := []struct {
		file string
		want Request
	}{
		{"intent", Request{"IntentRequest", "HostnameIntent", alexatest.Skill, "amzn1.echo-api.request.5c0ed8d1-2b3f-4b55-8e6b-0c7f40a1a7f4", "2026-05-13T12:34:56Z"}},
		{"launch", Request{"LaunchRequest", "", alexatest.Skill, "amzn1.echo-api.request.1", "2026-05-13T12:34:56Z"}},
		{"audioplayer", Request{"AudioPlayer.PlaybackStarted", "", alexatest.Skill, "amzn1.echo-api.request.2", "2026-05-13T12:34:56Z"}},
	}
	for _, tt := range tests {
		got, ok := Parse(alexatest.Body(t, tt.file))
		if !ok || got != tt.want {
			t.Errorf("%s: got %+v, %v, want %+v", tt.file, got, ok, tt.want)
		}
	}
}

func nested(n int) string {
	return strings.Replace(alexatest.Minimal, `{"session"`, `{"x":`+strings.Repeat("[", n)+strings.Repeat("]", n)+`,"session"`, 1)
}

func TestParseAlexa(t *testing.T) {
	change := func(old, new string) string {
		if !strings.Contains(alexatest.Minimal, old) {
			t.Fatalf("%q is not in the minimal request", old)
		}
		return strings.Replace(alexatest.Minimal, old, new, 1)
	}
	tests := []struct {
		name string
		body string
		want bool
	}{
		{"minimal", alexatest.Minimal, true},
		{"white space around", " \r\n\t" + alexatest.Minimal + "\n\n", true},
		{"256 KiB", alexatest.Padded(MaxBody), true},
		{"256 KiB and one byte", alexatest.Padded(MaxBody + 1), false},
		{"nested as deep as may be", nested(maxDepth - 1), true},
		{"nested one deeper", nested(maxDepth), false},
		{"nested 100,000 deep", nested(100_000), false},
		{"brackets in strings", change(`{"session"`, `{"x":"`+strings.Repeat(`[{\"`, 1000)+`","session"`), true},
		{"names escaped", change(`"session"`, `"\u0073ession"`), true},
		{"values of every kind elsewhere", change(`{"session"`, `{"a":[1,-2.5e3,true,false,null,"\\",{}],"":{"":""},"session"`), true},
		{"intent with an odd name", change(`"I"`, `"../..\u0000"`), true}, // found as Alexa, routed to nobody
		{"skill's ID from the context", `{"context":{"System":{"application":{"applicationId":"a"}}},"session":{"sessionId":"s"},"request":{"type":"LaunchRequest"}}`, true},
		{"no session", `{"context":{"System":{"application":{"applicationId":"a"}}},"request":{"type":"LaunchRequest"}}`, true},
		{"session null", `{"context":{"System":{"application":{"applicationId":"a"}}},"session":null,"request":{"type":"LaunchRequest"}}`, true},
		{"context of no interest", change(`{"session"`, `{"context":{"System":{}},"session"`), true},
		{"both IDs, equal", change(`{"session"`, `{"context":{"System":{"application":{"applicationId":"a"}}},"session"`), true},
		{"both IDs, different", change(`{"session"`, `{"context":{"System":{"application":{"applicationId":"b"}}},"session"`), false},

		{"empty", "", false},
		{"white space", "  \n", false},
		{"array", "[" + alexatest.Minimal + "]", false},
		{"string", `"session"`, false},
		{"byte order mark", "\xef\xbb\xbf" + alexatest.Minimal, false},
		{"data after it", alexatest.Minimal + "x", false},
		{"a second object after it", alexatest.Minimal + alexatest.Minimal, false},
		{"NUL after it", alexatest.Minimal + "\x00", false},
		{"cut off", alexatest.Minimal[:len(alexatest.Minimal)-1], false},
		{"comma too many", change(`}}}`, `}},}`), false},
		{"comment", change(`{"session"`, `{/**/"session"`), false},
		{"not UTF-8", change(`"s"`, "\"\xff\""), false},
		{"control byte in a string", change(`"s"`, "\"\n\""), false},
		{"no session ID", change(`"sessionId":"s",`, ``), false},
		{"session ID a number", change(`"s"`, `1`), false},
		{"session a string", change(`"session":{`, `"session":"x","y":{`), false},
		{"no skill's ID", change(`"applicationId":"a"`, ``), false},
		{"skill's ID empty", change(`"a"`, `""`), false},
		{"no type", change(`"type":"IntentRequest",`, ``), false},
		{"type null", change(`"IntentRequest"`, `null`), false},
		{"no request", `{"session":{"sessionId":"s","application":{"applicationId":"a"}}}`, false},
		{"no intent", change(`,"intent":{"name":"I"}`, ``), false},
		{"intent without a name", change(`"name":"I"`, ``), false},
		{"context an array", change(`{"session"`, `{"context":[],"session"`), false},

		// Another parser would take the other one.
		{"request twice", change(`{"session"`, `{"request":{"type":"LaunchRequest"},"session"`), false},
		{"request twice, once null", change(`{"session"`, `{"request":null,"session"`), false},
		{"request in two cases", change(`{"session"`, `{"Request":{"type":"LaunchRequest"},"session"`), false},
		{"session with a long s", change(`{"session"`, `{"ſession":{},"session"`), false},
		{"request twice, once escaped", change(`{"session"`, `{"\u0072equest":{},"session"`), false},
		{"type twice", change(`"type"`, `"type":"LaunchRequest","type"`), false},
		{"type in two cases", change(`"type"`, `"Type":"LaunchRequest","type"`), false},
		{"intent's name twice", change(`"name"`, `"name":"J","name"`), false},
		{"skill's ID twice", change(`"applicationId"`, `"applicationId":"b","applicationId"`), false},
		{"names in another case", strings.ToUpper(alexatest.Minimal), false},
		{"a member of no interest twice", change(`{"session"`, `{"x":1,"x":2,"session"`), true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := Parse([]byte(tt.body))
			if ok != tt.want {
				t.Fatalf("got %v, want %v", ok, tt.want)
			}
			if !ok && got != (Request{}) {
				t.Errorf("got %+v of what is none, want nothing", got)
			}
			if ok && (got.Application != "a" || got.Type == "") {
				t.Errorf("got %+v, want application a", got)
			}
		})
	}
}

// What Parse finds in a body, encoding/json finds too.
func FuzzParseAlexa(f *testing.F) {
	for _, name := range []string{"intent", "launch", "audioplayer"} {
		f.Add(alexatest.Body(f, name))
	}
	f.Add([]byte(alexatest.Minimal))
	f.Add([]byte(nested(300)))
	f.Add([]byte(`{"session":{"sessionId":"\ud800","application":{"applicationId":"a"}},"Request":{},"request":{"type":"x"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		req, ok := Parse(body)
		if !ok {
			return
		}
		type skill struct {
			Application struct{ ApplicationID string }
		}
		var want struct {
			Session *struct {
				SessionID string
				skill
			}
			Context struct{ System skill }
			Request struct {
				Type, RequestID, Timestamp any
				Intent                     any
			}
		}
		// Case does not matter to encoding/json, so ambiguous names would show.
		if err := json.Unmarshal(body, &want); err != nil {
			var kind *json.UnmarshalTypeError
			if !errors.As(err, &kind) {
				t.Fatalf("got %+v of what encoding/json refuses: %v", req, err)
			}
		}
		str := func(v any) string { s, _ := v.(string); return s }
		application := want.Context.System.Application.ApplicationID
		if s := want.Session; s != nil {
			if s.SessionID == "" {
				t.Errorf("got %+v without a session ID", req)
			}
			if id := s.Application.ApplicationID; id != "" {
				application = id
			}
		}
		got := Request{Type: str(want.Request.Type), Application: application,
			ID: str(want.Request.RequestID), Timestamp: str(want.Request.Timestamp)}
		if got.Type == IntentRequest {
			intent, _ := want.Request.Intent.(map[string]any)
			got.Intent = str(intent["name"])
		}
		if req != got {
			t.Errorf("got %+v, encoding/json has %+v", req, got)
		}
	})
}

func BenchmarkParseAlexa(b *testing.B) {
	for name, body := range map[string][]byte{
		"intent":       alexatest.Body(b, "intent"),
		"json-256KiB":  []byte(`{"x":"` + strings.Repeat("x", MaxBody-8) + `"}`),
		"deep-256KiB":  []byte(`{"x":` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + `}`),
		"names-256KiB": []byte(`{` + strings.Repeat(`"session ":1,`, MaxBody/13-1) + `"x":1}`),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				Parse(body)
			}
		})
	}
}
