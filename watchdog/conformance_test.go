package watchdog

import (
	"testing"
	"time"

	"faas/internal/conformance"
)

// front serves mode http before a server that runs already.
func front(t *testing.T, upstream string, limit time.Duration) string {
	url, _, _ := serve(t, testConfig(t, "sleep 600", "mode=http", "upstream_url=http://"+upstream, "exec_timeout="+limit.String()))
	return url
}

func TestHTTPConformance(t *testing.T) { conformance.Run(t, front) }
