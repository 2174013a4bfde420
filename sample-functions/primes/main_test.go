package main

// The handler by itself, and the server that stays up under the watchdog.

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"faas/sample-functions/internal/sampletest"
)

func TestPrimes(t *testing.T) {
	handler := newHandler()
	tests := []struct {
		path   string
		status int
		want   string
		known  string
	}{
		{"/1", 200, "2", "false"},
		{"/2", 200, "3", "false"},
		{"/1000", 200, "7919", "false"},
		{"/25", 200, "97", "true"},
		{"/1000", 200, "7919", "true"},
		{"/1001", 200, "7927", "false"},
		{"/0", 400, "want /N", ""},
		{"/-1", 400, "want /N", ""},
		{"/1000001", 400, "want /N", ""},
		{"/ten", 400, "want /N", ""},
		{"/", 404, "", ""},
	}
	for _, tt := range tests {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, tt.path, nil))
		if w.Code != tt.status || !strings.HasPrefix(w.Body.String(), tt.want) {
			t.Errorf("%s: got %d %q, want %d %q", tt.path, w.Code, w.Body, tt.status, tt.want)
		}
		if got := w.Header().Get("X-Known"); got != tt.known {
			t.Errorf("%s: got X-Known %q, want %q", tt.path, got, tt.known)
		}
	}
}

func TestPrimesAtOnce(t *testing.T) {
	var p primes
	var wg sync.WaitGroup
	for n := 1; n <= 100; n++ {
		wg.Go(func() { p.nth(n) })
	}
	wg.Wait()
	if got, _ := p.nth(100); got != 541 {
		t.Errorf("got %d, want 541", got)
	}
}

func TestHandler(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	upstream := "http://" + l.Addr().String()
	l.Close()
	url := sampletest.Start(t, map[string]string{"upstream_url": upstream})

	// 503 until the server accepts.
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(time.Minute); ; {
		first := sampletest.Do(t, http.MethodGet, url+"/500", nil, nil)
		if first.Status == 200 {
			break
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("got %d %q after a minute, want 200", first.Status, first.Body)
		}
	}
	again := sampletest.Do(t, http.MethodGet, url+"/500", nil, nil)
	if string(again.Body) != "3571\n" || again.Header.Get("X-Known") != "true" {
		t.Errorf("got %q, X-Known %q, want 3571 known from before", again.Body, again.Header.Get("X-Known"))
	}
	bad := sampletest.Do(t, http.MethodGet, url+"/ten", nil, nil)
	if bad.Status != 400 {
		t.Errorf("got status %d, want the server's own 400", bad.Status)
	}
}
