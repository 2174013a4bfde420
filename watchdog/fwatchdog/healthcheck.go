package main

// The health check that an image's HEALTHCHECK runs: the binary asks itself.

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"
)

const healthcheckTimeout = 3 * time.Second

// runHealthcheck asks the fwatchdog on this machine's configured port.
func runHealthcheck(ctx context.Context, getenv func(string) string, stderr io.Writer) int {
	port := getenv("port")
	if port == "" {
		port = "8080"
	}
	ctx, cancel := context.WithTimeout(ctx, healthcheckTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:"+port+"/_/health", nil)
	if err != nil {
		fmt.Fprintf(stderr, "fwatchdog: port: %v\n", err)
		return exitFailed
	}
	// A proxy from the environment has no business here.
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		fmt.Fprintf(stderr, "fwatchdog: %v\n", err)
		return exitFailed
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		fmt.Fprintf(stderr, "fwatchdog: %s\n", resp.Status)
		return exitFailed
	}
	return exitOK
}
