package wire

import (
	"context"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// Nobody stays for ever, whatever he sends.
func TestLingerIsBounded(t *testing.T) {
	for _, c := range []struct {
		name  string
		size  int // of a piece
		every time.Duration
		want  time.Duration // that is lingered
	}{
		{"silent", 0, time.Hour, lingerGap},
		{"slow", 1, time.Second, lingerTime},
		{"fast", 1 << 20, time.Millisecond, lingerBytes >> 20 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn, peer := net.Pipe()
				go func() {
					defer peer.Close()
					for err := error(nil); err == nil; _, err = peer.Write(make([]byte, c.size)) {
						time.Sleep(c.every)
					}
				}()
				began := time.Now()
				var l Lingering
				l.Close(conn)
				l.closed.Wait()
				if got := time.Since(began); got != c.want {
					t.Errorf("got %v, want %v", got, c.want)
				}
				time.Sleep(time.Hour) // in which the peer notices
			})
		})
	}
}

// trickle makes a connection that lingers in l, whose peer sends ten bytes a
// second until it is closed.
func trickle(l *Lingering) net.Conn {
	conn, peer := net.Pipe()
	l.Close(conn)
	go func() {
		defer peer.Close()
		for err := error(nil); err == nil; _, err = peer.Write([]byte{0}) {
			time.Sleep(100 * time.Millisecond)
		}
	}()
	return conn
}

// The end of a server waits half a second for those that linger, and not at all when
// it is in a hurry. Afterwards nobody lingers.
func TestLingeringEnds(t *testing.T) {
	for _, c := range []struct {
		name  string
		hurry time.Duration // before ctx is done
		want  time.Duration
	}{
		{"in time", time.Hour, lingerEnd},
		{"in a hurry", lingerEnd / 2, lingerEnd / 2},
		{"at once", 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var l Lingering
				for range 3 {
					trickle(&l)
				}
				time.Sleep(time.Second)
				ctx, cancel := context.WithTimeout(t.Context(), c.hurry)
				defer cancel()
				began := time.Now()
				l.End(ctx)
				if got := time.Since(began); got != c.want || len(l.conns) > 0 {
					t.Errorf("got %v and %d connections left, want %v and none", got, len(l.conns), c.want)
				}
				late := trickle(&l)
				if _, err := late.Read(make([]byte, 1)); err != io.ErrClosedPipe {
					t.Errorf("after the end: got %v, want the connection closed", err)
				}
				time.Sleep(time.Second) // in which the peers notice
			})
		})
	}
}

// count returns how many linger now.
func (l *Lingering) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns)
}

// Only so many linger at a time. The next one is closed at once.
func TestLingeringIsLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Lingering
		for range lingerConns {
			trickle(&l)
		}
		if n := l.count(); n != lingerConns {
			t.Errorf("got %d lingering, want %d", n, lingerConns)
		}
		if _, err := trickle(&l).Read(make([]byte, 1)); err != io.ErrClosedPipe {
			t.Errorf("one more: got %v, want it closed", err)
		}
		l.closed.Wait()
		trickle(&l)
		if n := l.count(); n != 1 {
			t.Errorf("later: got %d lingering, want 1", n)
		}
		l.closed.Wait()
		time.Sleep(time.Second)
	})
}
