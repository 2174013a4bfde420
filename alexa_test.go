package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
)

const testSkill = "amzn1.ask.skill.8a1f1c52-1d3e-4d0a-9b7e-52b7d1c0e9aa"

// alexaBody returns testdata/alexa/name.json.
func alexaBody(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "alexa", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseAlexaSamples(t *testing.T) {
	tests := []struct {
		file string
		want alexaRequest
	}{
		{"intent", alexaRequest{"IntentRequest", "HostnameIntent", testSkill, "amzn1.echo-api.request.5c0ed8d1-2b3f-4b55-8e6b-0c7f40a1a7f4", "2026-05-13T12:34:56Z"}},
		{"launch", alexaRequest{"LaunchRequest", "", testSkill, "amzn1.echo-api.request.1", "2026-05-13T12:34:56Z"}},
		{"audioplayer", alexaRequest{"AudioPlayer.PlaybackStarted", "", testSkill, "amzn1.echo-api.request.2", "2026-05-13T12:34:56Z"}},
	}
	for _, tt := range tests {
		got, ok := parseAlexa(alexaBody(t, tt.file))
		if !ok || got != tt.want {
			t.Errorf("%s: got %+v, %v, want %+v", tt.file, got, ok, tt.want)
		}
	}
}

// minimal is the least that is an Alexa request; the cases below change it.
const minimal = `{"session":{"sessionId":"s","application":{"applicationId":"a"}},"request":{"type":"IntentRequest","intent":{"name":"I"}}}`

// padded returns minimal with white space inside, n bytes long.
func padded(n int) string {
	return strings.Replace(minimal, `,"request"`, strings.Repeat(" ", n-len(minimal))+`,"request"`, 1)
}

func nested(n int) string {
	return strings.Replace(minimal, `{"session"`, `{"x":`+strings.Repeat("[", n)+strings.Repeat("]", n)+`,"session"`, 1)
}

func TestParseAlexa(t *testing.T) {
	change := func(old, new string) string {
		if !strings.Contains(minimal, old) {
			t.Fatalf("%q is not in the minimal request", old)
		}
		return strings.Replace(minimal, old, new, 1)
	}
	tests := []struct {
		name string
		body string
		want bool
	}{
		{"minimal", minimal, true},
		{"white space around", " \r\n\t" + minimal + "\n\n", true},
		{"256 KiB", padded(alexaMaxBody), true},
		{"256 KiB and one byte", padded(alexaMaxBody + 1), false},
		{"nested as deep as may be", nested(alexaMaxDepth - 1), true},
		{"nested one deeper", nested(alexaMaxDepth), false},
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
		{"array", "[" + minimal + "]", false},
		{"string", `"session"`, false},
		{"byte order mark", "\xef\xbb\xbf" + minimal, false},
		{"data after it", minimal + "x", false},
		{"a second object after it", minimal + minimal, false},
		{"NUL after it", minimal + "\x00", false},
		{"cut off", minimal[:len(minimal)-1], false},
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
		{"names in another case", strings.ToUpper(minimal), false},
		{"a member of no interest twice", change(`{"session"`, `{"x":1,"x":2,"session"`), true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := parseAlexa([]byte(tt.body))
			if ok != tt.want {
				t.Fatalf("got %v, want %v", ok, tt.want)
			}
			if !ok && got != (alexaRequest{}) {
				t.Errorf("got %+v of what is none, want nothing", got)
			}
			if ok && (got.application != "a" || got.kind == "") {
				t.Errorf("got %+v, want application a", got)
			}
		})
	}
}

// countingBody counts how often and how far it was read.
type countingBody struct {
	io.Reader
	bytes  int
	closed bool
}

func (b *countingBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	b.bytes += n
	return n, err
}

func (b *countingBody) Close() error { b.closed = true; return nil }

func TestPeekAlexa(t *testing.T) {
	spaces := strings.Repeat(" ", 3000)
	large := strings.Repeat("x", 1<<20)
	tests := []struct {
		name   string
		body   string
		length int64 // Content-Length; -2: the body's
		want   bool
		reads  int // bytes at most
	}{
		{"Alexa", minimal, -2, true, len(minimal)},
		{"Alexa, chunked", minimal, -1, true, len(minimal)},
		{"Alexa, as long as may be", padded(alexaMaxBody), -1, true, alexaMaxBody},
		{"one byte too long", padded(alexaMaxBody + 1), -2, false, 0},
		{"one byte too long, chunked", padded(alexaMaxBody + 1), -1, false, alexaMaxBody + 1},
		{"Alexa and then much else", minimal + large, -1, false, alexaMaxBody + 1},
		{"large object", `{"x":"` + large + `"}`, -1, false, alexaMaxBody + 1},
		{"no object", large, -1, false, 512},
		{"no object, with a length", large[:100_000], -2, false, 8 << 10},
		{"spaces, then no object", spaces + large, -1, false, 4096},
		{"spaces, then Alexa", spaces + minimal, -1, true, 3000 + len(minimal)},
		{"nothing but spaces", spaces, -1, false, 3000},
		{"empty", "", -2, false, 0},
		{"empty, chunked", "", -1, false, 0},
	}
	readers := map[string]func(io.Reader) io.Reader{
		"whole":                  func(r io.Reader) io.Reader { return r },
		"byte by byte":           iotest.OneByteReader,
		"EOF with the last byte": iotest.DataErrReader,
	}
	for _, tt := range tests {
		for how, reader := range readers {
			t.Run(tt.name+"/"+how, func(t *testing.T) {
				source := &countingBody{Reader: reader(strings.NewReader(tt.body))}
				r := httptest.NewRequest("POST", "/", nil)
				r.Body, r.ContentLength = source, tt.length
				if tt.length == -2 {
					r.ContentLength = int64(len(tt.body))
				}
				req, body, ok, err := peekAlexa(r)
				if err != nil || ok != tt.want {
					t.Fatalf("got %v, %v, want %v", ok, err, tt.want)
				}
				if source.bytes > tt.reads {
					t.Errorf("got %d bytes read, want %d at most", source.bytes, tt.reads)
				}
				if ok && (string(body) != tt.body || req.intent != "I") {
					t.Errorf("got %d bytes and %+v, want the whole body", len(body), req)
				}
				rest, err := io.ReadAll(r.Body)
				if err != nil || string(rest) != tt.body {
					t.Errorf("got %d bytes left in the body, %v, want all %d", len(rest), err, len(tt.body))
				}
				if err := r.Body.Close(); err != nil || !source.closed {
					t.Errorf("got %v, closed %v, want the original closed", err, source.closed)
				}
			})
		}
	}
}

func TestPeekAlexaReadError(t *testing.T) {
	broken := errors.New("connection reset")
	r := httptest.NewRequest("POST", "/", nil)
	r.Body = io.NopCloser(io.MultiReader(strings.NewReader(minimal[:20]), iotest.ErrReader(broken)))
	r.ContentLength = int64(len(minimal))
	if _, _, ok, err := peekAlexa(r); ok || !errors.Is(err, broken) {
		t.Fatalf("got %v, %v, want the read's error", ok, err)
	}
	got, err := io.ReadAll(r.Body)
	if string(got) != minimal[:20] || !errors.Is(err, broken) {
		t.Errorf("got %q, %v, want what was read and the error again", got, err)
	}
}

func TestPeekAlexaNoBody(t *testing.T) {
	for _, body := range []io.ReadCloser{nil, http.NoBody} {
		r := &http.Request{Method: "POST", Body: body}
		if _, _, ok, err := peekAlexa(r); ok || err != nil {
			t.Errorf("body %v: got %v, %v", body, ok, err)
		}
	}
}

func TestAlexaIndex(t *testing.T) {
	skilled := func(d definition, intents string, skills string) definition {
		d.intents, d.applications = strings.Fields(intents), strings.Fields(skills)
		return d
	}
	index, claims := newAlexaIndex([]definition{
		skilled(routed("young", 5), "Weather AMAZON.HelpIntent", "skill-a"),
		skilled(routed("weather", 1), "Weather Forecast", "skill-a skill-a"),
		skilled(routed("trivia", 2), "AMAZON.HelpIntent AMAZON.HelpIntent", "skill-b"),
		skilled(routed("common", 3), "AMAZON.HelpIntent AMAZON.StopIntent", ""),
		skilled(routed("late", 4), "AMAZON.StopIntent", ""),
		routed("Direct", 0),
		routed("Forecast", 0),
	})
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

	exists := func(name string) bool { return name == "Direct" || name == "Forecast" || !validName(name) }
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
		name, ok := index.route(alexaRequest{kind: tt.kind, intent: tt.intent, application: tt.skill}, exists)
		if name != tt.want || ok != (tt.want != "") {
			t.Errorf("%s %s of %s: got %q, %v, want %q", tt.kind, tt.intent, tt.skill, name, ok, tt.want)
		}
	}
}

func TestAlexaIndexBadLabels(t *testing.T) {
	d := routed("f", 0)
	for i := range 1000 {
		d.intents = append(d.intents, fmt.Sprintf("I%d", i))
	}
	d.applications = []string{"", strings.Repeat("a", 300), "a\nb", "a\xffb", "good"}
	index, claims := newAlexaIndex([]definition{d})
	count := map[string]int{}
	for _, c := range claims {
		count[c.kind+" "+c.problem]++
	}
	if count["application bad"] != 4 || count["intent too_many"] != 1 || len(claims) != 5 {
		t.Errorf("got %v, want 4 bad skills and too many intents once", count)
	}
	for intent, want := range map[string]bool{"I255": true, "I256": false} {
		_, ok := index.route(alexaRequest{kind: "IntentRequest", intent: intent, application: "good"}, func(string) bool { return false })
		if ok != want {
			t.Errorf("%s: got %v, want %v", intent, ok, want)
		}
	}
}

// What parseAlexa finds in a body, encoding/json finds too.
func FuzzParseAlexa(f *testing.F) {
	for _, name := range []string{"intent", "launch", "audioplayer"} {
		f.Add(alexaBody(f, name))
	}
	f.Add([]byte(minimal))
	f.Add([]byte(nested(300)))
	f.Add([]byte(`{"session":{"sessionId":"\ud800","application":{"applicationId":"a"}},"Request":{},"request":{"type":"x"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		req, ok := parseAlexa(body)
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
		got := alexaRequest{kind: str(want.Request.Type), application: application,
			requestID: str(want.Request.RequestID), timestamp: str(want.Request.Timestamp)}
		if got.kind == alexaIntentRequest {
			intent, _ := want.Request.Intent.(map[string]any)
			got.intent = str(intent["name"])
		}
		if req != got {
			t.Errorf("got %+v, encoding/json has %+v", req, got)
		}
		r := httptest.NewRequest("POST", "/", bytes.NewReader(body))
		if _, again, ok, err := peekAlexa(r); !ok || err != nil || !bytes.Equal(again, body) {
			t.Errorf("peekAlexa: got %d bytes, %v, %v, want the body's %d", len(again), ok, err, len(body))
		}
	})
}

func BenchmarkParseAlexa(b *testing.B) {
	for name, body := range map[string][]byte{
		"intent":       alexaBody(b, "intent"),
		"json-256KiB":  []byte(`{"x":"` + strings.Repeat("x", alexaMaxBody-8) + `"}`),
		"deep-256KiB":  []byte(`{"x":` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + `}`),
		"names-256KiB": []byte(`{` + strings.Repeat(`"session ":1,`, alexaMaxBody/13-1) + `"x":1}`),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				parseAlexa(body)
			}
		})
	}
}

func BenchmarkPeekAlexa(b *testing.B) {
	for name, body := range map[string][]byte{
		"intent":     alexaBody(b, "intent"),
		"text-1MiB":  bytes.Repeat([]byte("x"), 1<<20),
		"form-256":   bytes.Repeat([]byte("a=b&"), 64),
		"json-64KiB": []byte(`{"x":"` + strings.Repeat("x", 64<<10) + `"}`),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r := &http.Request{Method: "POST", Body: io.NopCloser(bytes.NewReader(body)), ContentLength: -1}
				if _, _, ok, err := peekAlexa(r); err != nil || ok != (name == "intent") {
					b.Fatalf("got %v, %v", ok, err)
				}
			}
		})
	}
}
