// Package healthcheck lets a program that serves ask itself whether it is healthy, as
// the health check of an image without a shell does.
package healthcheck

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

const timeout = 3 * time.Second

// Ask returns nil if url answers 200 within 3 s. Proxies of the environment are
// ignored, as the server is this machine's.
func Ask(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		return fmt.Errorf("GET %s: %w", url, err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: got %s", url, resp.Status)
	}
	return nil
}
