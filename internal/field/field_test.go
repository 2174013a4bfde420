package field

import "testing"

func TestPredicates(t *testing.T) {
	for _, c := range []struct {
		s                          string
		token, value, target, host bool
	}{
		{"", false, true, false, false},
		{"GET", true, true, true, true},
		{"X-A_b.c!#$%&'*+^`|~9", true, true, true, false},
		{"a b", false, true, false, false},
		{"a\tb", false, true, false, false},
		{"a:b", false, true, true, true},
		{"a/b?c=d", false, true, true, false},
		{"é", false, true, true, false},
		{"a\x00", false, false, false, false},
		{"a\r", false, false, false, false},
		{"a\n", false, false, false, false},
		{"a\x7f", false, false, false, false},
		{"(a)", false, true, true, true},
		{"@", false, true, true, false},
		{"[::1%25eth0]:8080", false, true, true, true},
	} {
		if got := IsToken(c.s); got != c.token {
			t.Errorf("IsToken(%q): got %v, want %v", c.s, got, c.token)
		}
		if got := IsValue(c.s); got != c.value {
			t.Errorf("IsValue(%q): got %v, want %v", c.s, got, c.value)
		}
		if got := IsTarget(c.s); got != c.target {
			t.Errorf("IsTarget(%q): got %v, want %v", c.s, got, c.target)
		}
		if got := IsHost(c.s); got != c.host {
			t.Errorf("IsHost(%q): got %v, want %v", c.s, got, c.host)
		}
	}
	for c := range 256 {
		s := string([]byte{byte(c)})
		if IsTokenByte(byte(c)) != IsToken(s) || IsValueByte(byte(c)) != IsValue(s) || IsTargetByte(byte(c)) != IsTarget(s) {
			t.Errorf("byte %#x: the predicates of bytes and of strings differ", c)
		}
	}
}
