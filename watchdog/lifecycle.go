package watchdog

// The life of a handler: healthy, draining, closed.

import (
	"context"
	"fmt"
	"os"
)

// Run does the background work: it kills what a killed program has left behind,
// keeps the lock file while the function is healthy, and supervises the processes
// that the mode keeps running. It returns when ctx is done and every process that
// it started has ended. Call it once, when the listener is open.
func (h *Handler) Run(ctx context.Context) error {
	if name := h.cfg.LockFile; name != "" {
		f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
		if err != nil {
			return fmt.Errorf("lock file: %w: set TMPDIR to a directory that can be written, or suppress_lock=true", err)
		}
		f.Close()
		defer os.Remove(name)
	}
	endLeftovers(h.log)
	switch {
	case h.upstream != nil:
		h.upstream.run(ctx)
	case h.ready != nil:
		h.ready.run(ctx)
	case h.program != nil && h.program.templates != nil:
		h.runTemplates(ctx)
	}
	<-ctx.Done()
	return nil
}

// Drain makes the function unhealthy for good. Requests are served as before, but
// each response asks the client to close its connection.
func (h *Handler) Drain() {
	if !h.draining.Swap(true) && h.cfg.LockFile != "" {
		os.Remove(h.cfg.LockFile)
	}
}

// Kill ends every process at once, whatever it is doing.
func (h *Handler) Kill() { h.family.kill() }

// healthy reports whether requests should be sent here.
func (h *Handler) healthy() bool {
	if h.draining.Load() || h.upstream != nil && !h.upstream.isWell() {
		return false
	}
	if h.cfg.LockFile != "" {
		if _, err := os.Stat(h.cfg.LockFile); err != nil {
			return false
		}
	}
	return true
}
