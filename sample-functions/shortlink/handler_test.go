package shortlink

// The script under the watchdog in mode cgi: statuses and headers of its own.

import (
	"testing"

	"faas/sample-functions/internal/sampletest"
)

func TestHandler(t *testing.T) {
	url := sampletest.Start(t, nil)
	tests := []struct {
		method, path string
		status       int
		header       string
		value        string
	}{
		{"GET", "/go", 302, "Location", "https://go.dev/"},
		{"HEAD", "/cgi", 302, "Location", "https://www.rfc-editor.org/rfc/rfc3875"},
		{"GET", "/nothing", 404, "Content-Type", "text/plain"},
		{"GET", "/", 404, "Location", ""},
		{"GET", "/*", 404, "Location", ""},
		{"GET", "/go/more", 404, "Location", ""},
		{"POST", "/go", 405, "Allow", "GET, HEAD"},
	}
	for _, tt := range tests {
		t.Run(tt.method+" "+tt.path, func(t *testing.T) {
			got := sampletest.Do(t, tt.method, url+tt.path, nil, nil)
			if got.Status != tt.status {
				t.Errorf("got status %d, want %d: %s", got.Status, tt.status, got.Body)
			}
			if value := got.Header.Get(tt.header); value != tt.value {
				t.Errorf("got %s %q, want %q", tt.header, value, tt.value)
			}
			if got.Header.Get("Status") != "" {
				t.Error("the Status line of the script reached the caller")
			}
		})
	}
}
