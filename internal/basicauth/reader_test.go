package basicauth

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// The second login is told from the first, the two do not mix, and without its
// files there is none: not even an empty one.
func TestReader(t *testing.T) {
	dir := credentialFiles(t, "admin", "secret")
	a := New(dir, false, time.Now, func(string) {})
	who := func(user, password string) (Caller, error) {
		r := httptest.NewRequest("GET", "http://gateway.example.com/system/functions", nil)
		r.SetBasicAuth(user, password)
		return a.Authenticate(httptest.NewRecorder(), r)
	}
	if c, err := who("", ""); err == nil {
		t.Errorf("an empty login without a second one: got %+v, want a refusal", c)
	}
	for name, text := range map[string]string{readerUserFile: "guest\n", readerPasswordFile: "look\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		user, password string
		want           Caller
		good           bool
	}{
		{"admin", "secret", Caller{"admin", false}, true},
		{"guest", "look", Caller{"guest", true}, true},
		{"guest", "secret", Caller{}, false},
		{"admin", "look", Caller{}, false},
		{"", "", Caller{}, false},
	} {
		got, err := who(c.user, c.password)
		if got != c.want || (err == nil) != c.good {
			t.Errorf("%s:%s: got %+v, %v, want %+v", c.user, c.password, got, err, c.want)
		}
	}
	if err := os.Remove(filepath.Join(dir, readerPasswordFile)); err != nil {
		t.Fatal(err)
	}
	if c, err := who("guest", "look"); err == nil {
		t.Errorf("after its password is gone: got %+v, want a refusal", c)
	}
}
