package main

// Fair shares. All calls run in one set of slots. Nobody says ahead how many a
// function may take: it may take another one as long as more are free than it
// holds. Alone it gets half of them, two get a third each, and so on; there is
// always one left for whoever comes next.

import (
	"context"
	"sync"
)

// slots hands out places in which work is done, by the lane that it is for.
type slots struct {
	total int

	mu    sync.Mutex
	free  int
	lanes map[string]*share
	line  []*waiter // in order of arrival
}

// A share is what one lane holds, and what its function has shown to take. A
// function that says 429 or 503 gets fewer at once, down to one, and then one
// more for each round that went well.
type share struct {
	held    int
	limit   float64
	waiting int
}

type waiter struct {
	lane    string
	granted chan struct{}
}

func newSlots(n int) *slots { return &slots{total: n, free: n, lanes: map[string]*share{}} }

// acquire waits for a slot.
func (s *slots) acquire(ctx context.Context, lane string) error {
	s.mu.Lock()
	sh := s.share(lane)
	w := &waiter{lane: lane, granted: make(chan struct{})}
	sh.waiting++
	s.line = append(s.line, w)
	s.grant()
	s.mu.Unlock()
	select {
	case <-w.granted:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, other := range s.line {
		if other == w {
			s.line = append(s.line[:i], s.line[i+1:]...)
			sh.waiting--
			s.forget(lane)
			return ctx.Err()
		}
	}
	s.giveBack(lane) // granted meanwhile
	return ctx.Err()
}

// tryAcquire takes a slot if the lane may have one now.
func (s *slots) tryAcquire(lane string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh := s.share(lane)
	if !s.may(sh) {
		s.forget(lane)
		return false
	}
	s.free--
	sh.held++
	return true
}

func (s *slots) share(lane string) *share {
	sh := s.lanes[lane]
	if sh == nil {
		sh = &share{limit: float64(s.total)}
		s.lanes[lane] = sh
	}
	return sh
}

func (s *slots) may(sh *share) bool { return sh.held < s.free && float64(sh.held) < sh.limit }

// How a piece of work went, as far as its function's limit is concerned.
type verdict int

const (
	tookIt   verdict = iota // the function did the work, or tried
	toldWait                // it wants less at once
	unclear                 // nothing was learnt
)

// release gives a slot back.
func (s *slots) release(lane string, v verdict) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh := s.lanes[lane]
	switch v {
	case tookIt:
		sh.limit = min(sh.limit+1/sh.limit, float64(s.total))
	case toldWait:
		sh.limit = max(1, min(sh.limit, float64(sh.held))/2)
	}
	s.giveBack(lane)
}

func (s *slots) giveBack(lane string) {
	s.free++
	s.lanes[lane].held--
	s.grant()
	s.forget(lane)
}

// forget drops a lane that holds nothing and has nothing to remember.
func (s *slots) forget(lane string) {
	if sh := s.lanes[lane]; sh.held == 0 && sh.waiting == 0 && sh.limit >= float64(s.total) {
		delete(s.lanes, lane)
	}
}

// grant serves those of the line whose turn it is.
func (s *slots) grant() {
	left := s.line[:0]
	for _, w := range s.line {
		if sh := s.lanes[w.lane]; s.may(sh) {
			s.free--
			sh.held++
			sh.waiting--
			close(w.granted)
			continue
		}
		left = append(left, w)
	}
	clear(s.line[len(left):])
	s.line = left
}
