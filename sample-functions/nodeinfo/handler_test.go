package nodeinfo

// The script under the watchdog: one JSON object about machine and request.

import (
	"encoding/json"
	"net/http"
	"os"
	"testing"

	"faas/sample-functions/internal/sampletest"
)

func TestHandler(t *testing.T) {
	sampletest.Need(t, "node")
	url := sampletest.Start(t, nil)
	got := sampletest.Do(t, http.MethodGet, url+"/some/path", nil, http.Header{"X-Call-Id": {"abc"}})
	if got.Status != 200 {
		t.Fatalf("got status %d, want 200: %s", got.Status, got.Body)
	}
	if ct := got.Header.Get("Content-Type"); ct != "application/json" {
		t.Errorf("got content type %q, want application/json", ct)
	}
	var info struct {
		Hostname string
		CPUs     int
		Request  struct {
			Method, Path string
			CallID       string `json:"call_id"`
		}
	}
	if err := json.Unmarshal(got.Body, &info); err != nil {
		t.Fatalf("decode %s: %v", got.Body, err)
	}
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	if info.Hostname != hostname {
		t.Errorf("got hostname %q, want %q", info.Hostname, hostname)
	}
	if info.CPUs < 1 {
		t.Errorf("got %d CPUs, want at least 1", info.CPUs)
	}
	if r := info.Request; r.Method != "GET" || r.Path != "/some/path" || r.CallID != "abc" {
		t.Errorf("got request %+v, want GET /some/path abc", r)
	}
}
