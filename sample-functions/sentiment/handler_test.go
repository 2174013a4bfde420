package sentiment

// The script under the watchdog, with a fork server as in its image.

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"faas/sample-functions/internal/sampletest"
)

func TestHandler(t *testing.T) {
	sampletest.Need(t, "python3")
	url := sampletest.Start(t, nil)
	tests := []struct {
		text     string
		polarity float64
		words    int
	}{
		{"What a wonderful day", 1, 4},
		{"This is terrible!", -1, 3},
		{"Not good at all", -1, 4},
		{"It isn\u2019t bad", 1, 3},
		{"The food was great, the service awful", 0, 7},
		{"A table has four legs", 0, 5},
		{"", 0, 0},
		{"\xff\xfe good", 1, 1},
		{strings.Repeat("good ", 100_000), 1, 100_000},
	}
	for _, tt := range tests {
		name := tt.text[:min(len(tt.text), 20)]
		t.Run(name, func(t *testing.T) {
			got := sampletest.Do(t, http.MethodPost, url, []byte(tt.text), nil)
			if got.Status != 200 {
				t.Fatalf("got status %d, want 200: %s", got.Status, got.Body)
			}
			var answer struct {
				Polarity float64
				Words    int
			}
			if err := json.Unmarshal(got.Body, &answer); err != nil {
				t.Fatalf("decode %s: %v", got.Body, err)
			}
			if answer.Polarity != tt.polarity || answer.Words != tt.words {
				t.Errorf("got %+v, want polarity %v of %d words", answer, tt.polarity, tt.words)
			}
		})
	}
}
