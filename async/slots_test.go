package main

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// take acquires slots for a lane until none is given.
func take(t *testing.T, s *slots, lane string) int {
	t.Helper()
	n := 0
	for s.tryAcquire(lane) {
		n++
	}
	return n
}

func TestShares(t *testing.T) {
	s := newSlots(64)
	if got := take(t, s, "a"); got != 32 {
		t.Errorf("alone: got %d slots, want 32", got)
	}
	if got := take(t, s, "b"); got != 16 {
		t.Errorf("second: got %d slots, want 16", got)
	}
	// The first gets no more while it holds more than are free; as its work
	// ends the second catches up, to a third each.
	for range 100 {
		for _, lane := range []string{"a", "b"} {
			s.release(lane, tookIt)
			for s.tryAcquire(lane) {
			}
		}
	}
	if a, b := s.lanes["a"].held, s.lanes["b"].held; a > 24 || b < 20 || s.free < 20 {
		t.Errorf("got %d and %d of 64 with %d free, want about a third each", a, b, s.free)
	}
	for i := range 10 {
		if lane := fmt.Sprint("new", i); !s.tryAcquire(lane) {
			t.Errorf("a newcomer, %s, got no slot", lane)
		}
	}
}

// A lane that waits is served in order of arrival among those that may.
func TestSlotsLine(t *testing.T) {
	s := newSlots(2)
	if !s.tryAcquire("a") {
		t.Fatal("got no slot")
	}
	order := make(chan string, 3)
	ready := make(chan struct{})
	for _, lane := range []string{"a", "b", "c"} {
		go func() {
			ready <- struct{}{}
			if s.acquire(t.Context(), lane) == nil {
				order <- lane
			}
		}()
		<-ready
		within(t, soon, "in line or served", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			sh := s.lanes[lane]
			return sh != nil && (sh.waiting == 1 || lane == "b" && sh.held == 1)
		})
	}
	if got := <-order; got != "b" {
		t.Errorf("got %s first, want b: a has as many as are free", got)
	}
	s.release("b", tookIt)
	if got := <-order; got != "c" {
		t.Errorf("got %s, want c: a still has as many as are free", got)
	}
	s.release("a", tookIt)
	if got := <-order; got != "a" {
		t.Errorf("got %s, want a", got)
	}
}

func TestSlotsGivenUp(t *testing.T) {
	s := newSlots(1)
	if !s.tryAcquire("a") {
		t.Fatal("got no slot")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if s.acquire(ctx, "b") == nil {
		t.Error("got a slot, want none")
	}
	s.release("a", tookIt)
	if s.free != 1 || len(s.lanes) != 0 || len(s.line) != 0 {
		t.Errorf("got %+v, want it as new", s)
	}
}

// A function that says that it is busy gets fewer at once, and more again when
// it does not.
func TestLimitFollowsFunction(t *testing.T) {
	s := newSlots(64)
	held := take(t, s, "a")
	for range held {
		s.release("a", toldWait)
	}
	if got := take(t, s, "a"); got != 1 {
		t.Errorf("after nothing but 429: got %d slots, want 1", got)
	}
	s.release("a", tookIt)
	for range 20 {
		for range take(t, s, "a") {
			s.release("a", tookIt)
		}
	}
	if got := take(t, s, "a"); got < 10 {
		t.Errorf("after 20 good rounds: got %d slots, want more", got)
	}
}
