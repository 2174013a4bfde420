//go:build !386 && !s390x

package transport

import (
	"syscall"
	"testing"
	"time"
)

func TestSilent(t *testing.T) {
	const limit = 2 * time.Second
	for _, c := range []struct {
		what                         string
		unacked, probes, sent, heard uint32 // the last two in ms ago
		retransmits                  uint8
		want                         bool
	}{
		{"nothing on its way", 0, 0, 9000, 9000, 0, false},
		{"just sent after a pause", 3, 0, 10, 9000, 0, false},
		{"sent again twice", 3, 0, 900, 2100, 2, false},
		{"sent again three times, an answer may be on its way", 3, 0, 50, 2400, 3, false},
		{"sent again three times in vain", 3, 0, 250, 2400, 3, true},
		{"sent again three times, heard of meanwhile", 3, 0, 250, 1900, 3, false},
		{"sent again often, just now", 3, 0, 50, 2400, 4, true},
		{"the system waits", 3, 0, 3900, 3900, 0, false},
		{"the system waits for long", 3, 0, 4000, 4000, 0, true},
		{"the system waits for long, and was answered", 3, 0, 4000, 100, 1, false},
		{"a window probe unanswered", 0, 1, 9000, 9000, 0, false},
		{"window probes unanswered", 0, 2, 9000, 2000, 0, true},
		{"window probes answered", 0, 2, 9000, 500, 0, false},
	} {
		info := &syscall.TCPInfo{Unacked: c.unacked, Probes: uint8(c.probes), Last_data_sent: c.sent, Last_ack_recv: c.heard,
			Retransmits: c.retransmits, Rtt: 100_000}
		if got := silent(info, limit); got != c.want {
			t.Errorf("%s: got %v, want %v", c.what, got, c.want)
		}
	}
}
