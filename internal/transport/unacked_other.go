//go:build !linux || 386 || s390x

package transport

// Elsewhere only the system's own limits apply to silent peers.

import (
	"syscall"
	"time"
)

// limitUnacked does nothing here.
func limitUnacked(syscall.RawConn, time.Duration) error { return nil }

// isSilent is not supported here.
func isSilent(syscall.RawConn, time.Duration) bool { return false }

// waitsLong is not supported here.
func waitsLong(syscall.RawConn, time.Duration) bool { return false }
