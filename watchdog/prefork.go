package watchdog

// Processes started ahead: each waits on STDIN for the one request that it
// will get.

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxSpoilt = 5 // processes in a row that end before they are used

	// A process is replaced when it has ended, or so long after it was used:
	// starting another one at once would take the processor from it.
	replaceDelay = 50 * time.Millisecond

	minBackoff = 100 * time.Millisecond
	maxBackoff = 10 * time.Second
)

// A pool keeps processes started. A nil pool has none.
type pool struct {
	size  int
	start func() (*process, error)
	log   *slog.Logger

	handover chan *process // unbuffered: who receives has a process that waits
	spoilt   atomic.Int64  // in a row
}

func newPool(size int, start func() (*process, error), log *slog.Logger) *pool {
	return &pool{size: size, start: start, log: log, handover: make(chan *process)}
}

// take returns a process that is up, attached and unused, or nil.
func (p *pool) take() *process {
	if p == nil {
		return nil
	}
	for {
		select {
		case ready := <-p.handover:
			select {
			case <-ready.done: // ended just now
				p.spoil(ready)
				continue
			default:
			}
			p.spoilt.Store(0)
			return ready
		default:
			return nil
		}
	}
}

// run keeps size processes waiting until ctx is done. It returns when all that
// were not taken have ended.
func (p *pool) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var slots sync.WaitGroup
	for range p.size {
		slots.Go(func() { p.keep(ctx, cancel) })
	}
	slots.Wait()
}

// keep keeps one process waiting. When it returns there is to be no other: ctx
// is done, or preforking makes no sense.
func (p *pool) keep(ctx context.Context, off func()) {
	defer off()
	backoff := minBackoff
	for ctx.Err() == nil && p.spoilt.Load() < maxSpoilt {
		ready, err := p.start()
		if err != nil {
			p.lost(err)
		} else {
			ready.attach()
			select {
			case p.handover <- ready:
				backoff = minBackoff
				pause(ctx, ready.done, replaceDelay)
				continue
			case <-ctx.Done():
				ready.kill()
				<-ready.done
				ready.release()
				return
			case <-ready.done:
				p.spoil(ready)
			}
		}
		if p.spoilt.Load() < maxSpoilt {
			pause(ctx, nil, backoff)
			backoff = min(2*backoff, maxBackoff)
		}
	}
}

// pause waits until done is closed, after d, or until ctx is done.
func pause(ctx context.Context, done <-chan struct{}, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// spoil cleans up a process that ended before it was used, and counts it.
func (p *pool) spoil(ready *process) {
	<-ready.done
	defer ready.release()
	if ready.stderr != nil {
		logLines(p.log, ready.stderr, "")
	}
	var err error = exitError(ready.exitCode())
	if err == exitError(0) {
		err = errors.New("ended before it was used")
	}
	p.lost(err)
}

// lost counts a process that nobody could use, and says why.
func (p *pool) lost(err error) {
	n := p.spoilt.Add(1)
	p.log.Warn("preforked process is lost", "error", err, "in_a_row", n)
	if n == maxSpoilt {
		p.log.Warn("prefork turns itself off: processes do not wait for a request", "in_a_row", n)
	}
}
