package wordcount

// The script under the watchdog: what it counts, and how it fails.

import (
	"net/http"
	"strings"
	"testing"

	"faas/sample-functions/internal/sampletest"
)

func TestHandler(t *testing.T) {
	url := sampletest.Start(t, nil)
	const text = "one two\nthree\n"
	tests := []struct {
		query  string
		body   string
		status int
		want   string
	}{
		{"", text, 200, "3"},
		{"", "", 200, "0"},
		{"?unit=words", text, 200, "3"},
		{"?unit=lines", text, 200, "2"},
		{"?unit=bytes", text, 200, "14"},
		{"?unit=bytes", strings.Repeat("x", 1<<20), 200, "1048576"},
		{"?unit=pages", text, 500, "unit must be words, lines or bytes"},
		{"?unit=$(id)", text, 500, "unit must be words, lines or bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.query, func(t *testing.T) {
			got := sampletest.Do(t, http.MethodPost, url+"/"+tt.query, []byte(tt.body), nil)
			if got.Status != tt.status {
				t.Errorf("got status %d, want %d", got.Status, tt.status)
			}
			if body := strings.TrimSpace(string(got.Body)); body != tt.want {
				t.Errorf("got %q, want %q", body, tt.want)
			}
			code := ""
			if tt.status == 500 {
				code = "2"
			}
			if got := got.Header.Get("X-Exit-Code"); got != code {
				t.Errorf("got X-Exit-Code %q, want %q", got, code)
			}
		})
	}
}
