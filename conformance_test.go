package main

// Bodies through the whole gateway, by each of its transports.

import (
	"testing"
	"time"

	"faas/internal/conformance"
)

func TestGatewayConformance(t *testing.T) {
	for transport, run := range map[string]func(*testing.T, conformance.Front){"direct": conformance.Run, "std": conformance.RunNetHTTP} {
		t.Run(transport, func(t *testing.T) {
			run(t, func(t *testing.T, upstream string, limit time.Duration) string {
				p := newMemoryProvider()
				p.set("f", func(d *definition) { d.timeout = limit }, upstream)
				return startGateway(t, p, "-transport", transport) + "/function/f"
			})
		})
	}
}
