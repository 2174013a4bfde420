package healthcheck

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestAsk(t *testing.T) {
	status := http.StatusOK
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
	defer s.Close()
	if err := Ask(t.Context(), s.URL+"/healthz"); err != nil {
		t.Errorf("healthy: got %v", err)
	}
	status = http.StatusServiceUnavailable
	if err := Ask(t.Context(), s.URL+"/healthz"); err == nil || err.Error() != "GET "+s.URL+"/healthz: got 503 Service Unavailable" {
		t.Errorf("unhealthy: got %v, want the status", err)
	}
	if err := Ask(t.Context(), "http://127.0.0.1:x y/healthz"); err == nil || !strings.Contains(err.Error(), "x y") {
		t.Errorf("no URL: got %v, want what is wrong", err)
	}
	s.Close()
	if err := Ask(t.Context(), s.URL+"/healthz"); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("nobody listens: got %v, want why", err)
	}
}
