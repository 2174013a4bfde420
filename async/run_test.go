package main

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A connCutOff is a connection that is dead after its first request, and does
// not say so before it is written to.
type connCutOff struct {
	net.Conn
	writes atomic.Int32
}

func (c *connCutOff) Write(p []byte) (int, error) {
	if c.writes.Add(1) > 1 {
		return 0, syscall.EPIPE
	}
	return c.Conn.Write(p)
}

// A connection that has died since the last call costs the next one no attempt.
func TestDeadConnectionIsNoAttempt(t *testing.T) {
	got := &keep{}
	gateway := httptest.NewServer(got)
	defer gateway.Close()
	client := newGatewayClient(2)
	defer client.CloseIdleConnections()
	client.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		return &connCutOff{Conn: conn}, err
	}
	c := testConfig(t, gateway.URL)
	run := &runner{gateway: c.gateway, client: client, timeout: time.Minute, maxBody: c.maxBody,
		functions: newFunctions(&c, nil, client, newMetrics(), nil)}
	for range 2 {
		call := &call{id: "x", function: "fn", name: "fn", method: "POST", target: "/", header: http.Header{}, body: []byte("body")}
		if res := run.attempt(t.Context(), call, record{}); res.outcome != succeeded {
			t.Errorf("got %+v, want the call to take another connection", res)
		}
	}
	if all := got.all(); len(all) != 2 || all[1].body != "body" {
		t.Errorf("got %+v, want both calls whole", all)
	}
}
