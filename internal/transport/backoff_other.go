//go:build !linux || 386 || s390x

package transport

// Where the system alone decides how long it waits before it sends again.

import (
	"syscall"
	"time"
)

// LimitBackOff does nothing here.
func LimitBackOff(syscall.RawConn, time.Duration) {}
