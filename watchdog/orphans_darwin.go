package watchdog

// There are no subreapers on macOS: orphans go to launchd.

import (
	"context"
	"errors"
)

// AdoptOrphans fails.
func (h *Handler) AdoptOrphans() error { return errors.ErrUnsupported }

// ReapOrphans only waits for ctx to be done.
func (h *Handler) ReapOrphans(ctx context.Context) { <-ctx.Done() }
