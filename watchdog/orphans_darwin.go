package watchdog

// There are no subreapers on macOS: orphans go to launchd, and nobody can look
// into their environment.

import (
	"context"
	"errors"
	"log/slog"
)

// AdoptOrphans fails.
func (h *Handler) AdoptOrphans() error { return errors.ErrUnsupported }

// ReapOrphans only waits for ctx to be done.
func (h *Handler) ReapOrphans(ctx context.Context) { <-ctx.Done() }

// owner returns "": marks would be of no use.
func owner() string { return "" }

func endLeftovers(*slog.Logger) {}
