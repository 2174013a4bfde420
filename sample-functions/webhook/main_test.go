package main

// Only who knows the secret is answered.

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"faas/sample-functions/internal/sampletest"
)

const event = `{"action":"opened","repository":{"full_name":"me/mine"}}`

func sign(secret, body string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	io.WriteString(mac, body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

func secretFile(t *testing.T, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "webhook")
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestHandler(t *testing.T) {
	url := sampletest.Start(t, map[string]string{"secret_file": secretFile(t, "s3cret\n")})
	tests := []struct {
		name, body, signature string
		status                int
		want                  string
	}{
		{"signed", event, sign("s3cret", event), 200, "issues opened of me/mine\n"},
		{"other secret", event, sign("other", event), 500, ""},
		{"changed body", event + " ", sign("s3cret", event), 500, ""},
		{"unsigned", event, "", 500, ""},
		{"signed, not JSON", "hello", sign("s3cret", "hello"), 500, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := sampletest.Do(t, http.MethodPost, url, []byte(tt.body), http.Header{
				"X-Hub-Signature-256": {tt.signature},
				"X-Github-Event":      {"issues"},
			})
			if got.Status != tt.status || string(got.Body) != tt.want {
				t.Errorf("got %d %q, want %d %q", got.Status, got.Body, tt.status, tt.want)
			}
		})
	}
}

func TestSigned(t *testing.T) {
	good := sign("s3cret", event)
	tests := []struct {
		name, header string
		want         bool
	}{
		{"right", good, true},
		{"upper case", "sha256=" + strings.ToUpper(good[len("sha256="):]), true},
		{"empty", "", false},
		{"no prefix", good[len("sha256="):], false},
		{"SHA-1", "sha1=" + good[len("sha256="):], false},
		{"not hexadecimal", "sha256=xyz", false},
		{"cut off", good[:len(good)-2], false},
		{"nothing after the prefix", "sha256=", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := signed([]byte("s3cret"), []byte(event), tt.header); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestSecret(t *testing.T) {
	tests := []struct {
		name, file, want string
	}{
		{"missing", filepath.Join(t.TempDir(), "nothing"), "read secret"},
		{"empty", secretFile(t, ""), "is empty"},
		{"line end alone", secretFile(t, "\r\n"), "is empty"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := readSecret(tt.file); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one with %q", err, tt.want)
			}
		})
	}
}
