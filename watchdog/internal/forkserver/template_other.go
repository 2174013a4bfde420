//go:build !linux

package forkserver

// Elsewhere there are no descriptors of processes, which is what keeps the pid
// of a child from being somebody else's: each call starts a process.

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"time"
)

// A Child is the process of one request; there are none here.
type Child struct{ Pid, Pidfd int }

func (*Child) Reap() (syscall.WaitStatus, error) { return 0, ErrLost }

type template struct {
	pid          int
	ended, spent chan struct{}
}

func (*template) retire()            {}
func (*template) hasEnded() bool     { return true }
func (*template) age() time.Duration { return 0 }
func (*template) fate() string       { return "" }

func (*template) fork([]byte, [3]*os.File) (*Child, error) { return nil, ErrNever }

type stamps struct{}

func (stamps) changed() string { return "" }

func (s *Server) load(context.Context) (*template, stamps, error) {
	return nil, stamps{}, fmt.Errorf("%w: that needs Linux", ErrNever)
}
