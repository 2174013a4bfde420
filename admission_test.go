package main

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestAdmissionLimit(t *testing.T) {
	var a admission
	now := time.Now()
	for i := range 3 {
		if err := a.enter(now, 3); err != nil {
			t.Fatalf("invocation %d of 3: %v", i+1, err)
		}
	}
	if err := a.enter(now, 3); !errors.Is(err, errTooMany) {
		t.Errorf("the fourth: got %v, want %v", err, errTooMany)
	}
	a.leave(now)
	if err := a.enter(now, 3); err != nil {
		t.Errorf("after one left: %v", err)
	}
	if err := a.enter(now, 0); err != nil {
		t.Errorf("without a limit: %v", err)
	}
}

func TestLineIsFirstComeFirstServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a admission
		order := make(chan int, 10)
		for i := range 10 {
			go func() {
				if err := a.wait(t.Context(), 10, func(bool) {}); err == nil {
					order <- i
				}
			}()
			synctest.Wait() // so that they come in this order
		}
		if err := a.wait(t.Context(), 10, func(bool) {}); !errors.Is(err, errTooMany) {
			t.Errorf("the eleventh in a line of 10: got %v, want %v", err, errTooMany)
		}
		time.Sleep(3 * time.Second)
		if got, _ := a.release(); got != 3*time.Second {
			t.Errorf("the line stood for %v, want 3s", got)
		}
		synctest.Wait()
		if len(order) != 10 {
			t.Fatalf("got %d released, want 10", len(order))
		}
		if got, _ := a.release(); got != 0 {
			t.Errorf("an empty line stood for %v, want 0", got)
		}
	})
}

func TestWhoGivesUpLeavesTheLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a admission
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errNoReplica)
		defer cancel()
		first := make(chan error, 1)
		go func() { first <- a.wait(ctx, 2, func(bool) {}) }()
		synctest.Wait()
		second := make(chan error, 1)
		go func() { second <- a.wait(t.Context(), 2, func(bool) {}) }()
		if err := <-first; !errors.Is(err, errNoReplica) {
			t.Errorf("got %v, want the context's cause, %v", err, errNoReplica)
		}
		if _, waiting := a.counts(); waiting != 1 {
			t.Errorf("got %d in line, want 1", waiting)
		}
		a.release()
		if err := <-second; err != nil {
			t.Errorf("who stayed: %v", err)
		}
	})
}
