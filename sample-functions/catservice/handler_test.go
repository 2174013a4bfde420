package catservice

// cat under the watchdog: what goes in comes out, byte for byte.

import (
	"bytes"
	"net/http"
	"testing"

	"faas/sample-functions/internal/sampletest"
)

func TestHandler(t *testing.T) {
	url := sampletest.Start(t, nil)
	everyByte := make([]byte, 256)
	for i := range everyByte {
		everyByte[i] = byte(i)
	}
	tests := []struct {
		name string
		body []byte
	}{
		{"nothing", nil},
		{"a line", []byte("hello\n")},
		{"every byte", everyByte},
		{"3 MiB, more than is held back", bytes.Repeat(everyByte, 3<<12)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			header := http.Header{"Content-Type": {"image/png"}}
			got := sampletest.Do(t, http.MethodPost, url, tt.body, header)
			if got.Status != http.StatusOK {
				t.Errorf("got status %d, want 200", got.Status)
			}
			if !bytes.Equal(got.Body, tt.body) {
				t.Errorf("got %d bytes, want the %d that were sent", len(got.Body), len(tt.body))
			}
			if got := got.Header.Get("Content-Type"); got != "image/png" {
				t.Errorf("got Content-Type %q, want the request's", got)
			}
		})
	}
}
