package settings

import (
	"testing"
	"time"
)

func TestParseDuration(t *testing.T) {
	for _, c := range []struct {
		in   string
		want time.Duration
	}{{"0", 0}, {"5", 5 * time.Second}, {"5s", 5 * time.Second}, {"100ms", 100 * time.Millisecond}, {"1m30s", 90 * time.Second}, {"2h", 2 * time.Hour}} {
		if got, err := ParseDuration(c.in); err != nil || got != c.want {
			t.Errorf("%q: got %v, %v, want %v", c.in, got, err, c.want)
		}
	}
	for _, bad := range []string{"", "s", "5 s", "-5", "1e3", "9223372036854775807", "0x10"} {
		if got, err := ParseDuration(bad); err == nil {
			t.Errorf("%q: got %v, want an error", bad, got)
		}
	}
}
