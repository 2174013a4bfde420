package hostnameintent

// The script under the watchdog: a real intent request gets an answer that
// Alexa can speak.

import (
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"

	"faas/sample-functions/internal/sampletest"
)

func TestHandler(t *testing.T) {
	sampletest.Need(t, "hostname")
	request, err := os.ReadFile("../../testdata/alexa/intent.json")
	if err != nil {
		t.Fatal(err)
	}
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	url := sampletest.Start(t, nil)
	got := sampletest.Do(t, http.MethodPost, url, request, http.Header{"Content-Type": {"application/json; charset=utf-8"}})
	if got.Status != http.StatusOK {
		t.Fatalf("got status %d, want 200: %s", got.Status, got.Body)
	}
	// The type that Amazon demands of an answer.
	if got := got.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("got Content-Type %q, want application/json", got)
	}

	var answer struct {
		Version  string
		Response struct {
			OutputSpeech     struct{ Type, Text string }
			ShouldEndSession *bool
		}
	}
	decoder := json.NewDecoder(strings.NewReader(string(got.Body)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&answer); err != nil {
		t.Fatalf("decode %s: %v", got.Body, err)
	}
	if answer.Version != "1.0" {
		t.Errorf("got version %q, want 1.0", answer.Version)
	}
	if speech := answer.Response.OutputSpeech; speech.Type != "PlainText" || speech.Text != "Your hostname is "+hostname+"." {
		t.Errorf("got speech %+v, want the name of this machine, %s, in plain text", speech, hostname)
	}
	if end := answer.Response.ShouldEndSession; end == nil || !*end {
		t.Errorf("got %s, want the session ended", got.Body)
	}
}
