package main

import (
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"
)

// Two processes never write the same folder: the second waits for the first.
func TestFolderIsLocked(t *testing.T) {
	g := newStandIn(t)
	c := testConfig(t, g.URL)
	s := startService(t, c)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := startEngine(ctx, &c, newMetrics(), slog.New(slog.DiscardHandler)); err == nil {
		t.Fatal("got a second engine on one folder")
	}
	got := make(chan error, 1)
	var second *engine
	go func() {
		var err error
		second, err = startEngine(context.Background(), &c, newMetrics(), slog.New(slog.DiscardHandler))
		got <- err
	}()
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	second.close()
}

// After a write that was not confirmed the server starts anew, with all that
// it had, and running calls go on.
func TestEngineStartsAnew(t *testing.T) {
	g, got := newStandIn(t), &keep{}
	release := make(chan struct{})
	g.function("held", quick, heldUntil(release, got))
	s := startBoth(t, g, "-workers", "2")
	held := s.call(t, "held", "1")
	within(t, soon, "running", func() bool { return s.status(t, held).Status == stateRunning })
	var ids []string
	for range 5 {
		ids = append(ids, s.call(t, "held", "x"))
	}
	s.whileStopped(func() {}) // as if: it cannot write
	within(t, soon, "started anew", func() bool { return strings.Contains(s.log.String(), "connected to NATS again") })
	if n := s.metric(t, "async_engine_restarts_total"); n != 1 {
		t.Errorf("got %v restarts, want 1", n)
	}
	close(release)
	for _, id := range append(ids, held) {
		s.awaitStatus(t, id, stateDone)
	}
	if n := len(got.all()); n != 6 {
		t.Errorf("got %d runs, want 6", n)
	}
}

// Without space nothing is accepted, and what was accepted still runs.
func TestNoSpace(t *testing.T) {
	g, got := newStandIn(t), &keep{}
	release := make(chan struct{})
	g.function("slow", quick, heldUntil(release, got))
	s := startBoth(t, g)
	id := s.call(t, "slow", "x")
	var r reply
	within(t, soon, "refused", func() bool {
		s.engine.free.Store(0) // until the next look
		r = ask(t, "POST", s.url+"/async-function/slow", "x")
		return r.code != 202
	})
	if r.code != 503 || r.header.Get("Retry-After") == "" || !strings.Contains(r.body, "no space") {
		t.Errorf("got %d %s, want 503", r.code, r.body)
	}
	close(release)
	s.awaitStatus(t, id, stateDone)
	within(t, soon, "accepted again", func() bool { return ask(t, "POST", s.url+"/async-function/slow", "x").code == 202 })
}

// An address that is taken is said by name, and not by a server that exits.
func TestTopicsAddressTaken(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c := testConfig(t, "http://none", "-nats-listen", ln.Addr().String())
	err = serve(t.Context(), &c, slog.New(slog.NewTextHandler(io.Discard, nil)), nil, func(*service) {})
	if err == nil || !strings.Contains(err.Error(), "-nats-listen") {
		t.Errorf("got %v, want an error that names the flag", err)
	}
}
