package buildinfo

import (
	"runtime"
	"testing"
)

func TestNew(t *testing.T) {
	want := "1.2.3 (revision 0a1b2c, " + runtime.Version() + ")"
	if got := New("1.2.3", "0a1b2c").String(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	// A test's binary has no revision.
	if got, want := New("", ""), (Info{"development", "unknown"}); got != want {
		t.Errorf("not told: got %+v, want %+v", got, want)
	}
}
