package naming

import (
	"regexp"
	"strings"
	"testing"
)

func TestSecretNames(t *testing.T) {
	for _, name := range []string{"a", "a.b", "api-key", "A_1", strings.Repeat("a", MaxSecret)} {
		if !IsSecret(name) {
			t.Errorf("%q: want it accepted", name)
		}
	}
	for _, name := range []string{"", ".", "a.", "-a", "a/b", "../a", "a..b", "a b", "é", strings.Repeat("a", MaxSecret+1)} {
		if IsSecret(name) {
			t.Errorf("%q: want it refused", name)
		}
	}
}

func FuzzIsFunction(f *testing.F) {
	for _, seed := range []string{"", "a", "echo", "a.b_c-d", "-a", ".", "..", "a/b", "a%2fb", "a\x00", "ü", "A9", strings.Repeat("a", 63), strings.Repeat("a", 64)} {
		f.Add(seed)
	}
	name := regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9._-]{0,62}\z`)
	f.Fuzz(func(t *testing.T, s string) {
		if got, want := IsFunction(s), name.MatchString(s); got != want {
			t.Errorf("%q: got %v, want %v", s, got, want)
		}
	})
}
