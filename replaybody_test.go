package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
)

func TestReplayBody(t *testing.T) {
	long := bytes.Repeat([]byte("0123456789"), replayLimit/5)
	for _, c := range []struct {
		name string
		read int // before it is opened again
		ok   bool
	}{{"nothing", 0, true}, {"a part", 1000, true}, {"all that is kept", replayLimit, true}, {"more", replayLimit + 1, false}} {
		t.Run(c.name, func(t *testing.T) {
			b := newReplayBody(io.NopCloser(bytes.NewReader(long)), nil)
			if _, err := io.CopyN(io.Discard, b.open(), int64(c.read)); err != nil {
				t.Fatal(err)
			}
			if b.rewindable() != c.ok {
				t.Fatalf("rewindable: got %v, want %v", b.rewindable(), c.ok)
			}
			again, err := b.reopen()
			if (err == nil) != c.ok {
				t.Fatalf("reopen: got %v, want it to work: %v", err, c.ok)
			}
			if !c.ok {
				return
			}
			if got, err := io.ReadAll(again); err != nil || !bytes.Equal(got, long) {
				t.Errorf("got %d bytes, %v, want all %d", len(got), err, len(long))
			}
		})
	}
}

// What a Read that hangs gets in the end is not lost with the attempt that it
// was for, whatever of it is kept.
func TestReplayBodyGoesOnBehindAReadThatHangs(t *testing.T) {
	for _, sizes := range [][]int{{100, 100, 100}, {0, replayLimit, 1}, {1, replayLimit, 1000}, {replayLimit, 10, 0}, {10, 2 * replayLimit, 10}} {
		t.Run(fmt.Sprint(sizes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				whole, _ := io.ReadAll(newChaff(int64(sizes[0] + sizes[1] + sizes[2])))
				src, feed := io.Pipe()
				defer feed.Close()
				ended := 0
				b := newReplayBody(src, func() { ended++ })
				first := b.open()
				if sizes[0] > 0 {
					go feed.Write(whole[:sizes[0]])
				}
				if _, err := io.CopyN(io.Discard, first, int64(sizes[0])); err != nil {
					t.Fatal(err)
				}
				hung := make(chan error, 1)
				go func() {
					_, err := first.Read(make([]byte, 4*replayLimit))
					hung <- err
				}()
				synctest.Wait()
				first.Close()
				second, err := b.reopen()
				if err != nil {
					t.Fatal(err)
				}
				got := make(chan []byte, 1)
				go func() {
					all, _ := io.ReadAll(second)
					got <- all
				}()
				synctest.Wait()
				feed.Write(whole[sizes[0] : sizes[0]+sizes[1]])
				feed.Write(whole[sizes[0]+sizes[1]:])
				feed.Close()
				if all := <-got; !bytes.Equal(all, whole) {
					t.Errorf("the second reader got %d bytes, want the %d that were sent", len(all), len(whole))
				}
				if err := <-hung; err != http.ErrBodyReadAfterClose {
					t.Errorf("the Read that hung: got %v, want %v", err, http.ErrBodyReadAfterClose)
				}
				if ended != 1 || !b.ended.Load() || b.failure() != nil {
					t.Errorf("got %d calls at the end, failure %v, want one and none", ended, b.failure())
				}
			})
		})
	}
}

// A reader that waits for another's Read is let go when it is closed.
func TestReplayBodyLetsAWaitingReaderGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, feed := io.Pipe()
		b := newReplayBody(src, nil)
		first, second := b.open(), b.open()
		go first.Read(make([]byte, 1))
		synctest.Wait()
		first.Close()
		go func() {
			synctest.Wait()
			second.Close()
		}()
		if _, err := second.Read(make([]byte, 1)); err != http.ErrBodyReadAfterClose {
			t.Errorf("got %v, want %v", err, http.ErrBodyReadAfterClose)
		}
		feed.Close()
		b.settle()
	})
}
