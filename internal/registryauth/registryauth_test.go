package registryauth

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRegistryCredentials(t *testing.T) {
	name := filepath.Join(t.TempDir(), "config.json")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pair := base64.StdEncoding.EncodeToString([]byte("ann:p:w"))
	write(`{"auths":{"registry.example.com:5000":{"auth":"` + pair + `"},"https://index.docker.io/v1/":{"username":"bob","password":"q"},"https://other.example.com":{"identitytoken":"t"}}}`)
	for _, c := range []struct{ image, user, password, token string }{
		{"registry.example.com:5000/team/i:1", "ann", "p:w", ""},
		{"library/i", "bob", "q", ""},
		{"i:1", "bob", "q", ""},
		{"docker.io/i", "bob", "q", ""},
		{"other.example.com/i@sha256:abc", "", "", "t"},
		{"registry.example.com/i", "", "", ""},
		{"localhost/i", "", "", ""},
	} {
		got, err := File(name).ForImage(c.image)
		if err != nil {
			t.Errorf("%s: %v", c.image, err)
			continue
		}
		var auth struct{ Username, Password, IdentityToken string }
		if got != "" {
			text, err := base64.URLEncoding.DecodeString(got)
			if err != nil || json.Unmarshal(text, &auth) != nil {
				t.Errorf("%s: got %q, %v, want base64 of JSON", c.image, got, err)
			}
		}
		if auth.Username != c.user || auth.Password != c.password || auth.IdentityToken != c.token {
			t.Errorf("%s: got %+v, want %s, %s, %s", c.image, auth, c.user, c.password, c.token)
		}
	}
	// No error quotes what may be a credential.
	for _, text := range []string{`{"auths":{"docker.io":{"auth":"secret!"}}}`, `secret`, `{"auths":"secret"}`} {
		write(text)
		if got, err := File(name).ForImage("i"); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: got %q, %v, want an error that does not quote it", text, got, err)
		}
	}
	for _, file := range []string{"", filepath.Join(t.TempDir(), "none")} {
		if got, err := File(file).ForImage("i"); got != "" || err != nil {
			t.Errorf("%q: got %q, %v, want nothing", file, got, err)
		}
	}
}
