package watchdog

// Dozing: a process that nobody calls is stopped, and the next call starts it
// again. A dozing replica uses only what the watchdog needs.

import (
	"context"
	"errors"
	"sync"
	"time"
)

// dozeGrace is how long a process has between SIGTERM and SIGKILL when it is to
// doze: nobody waits for it.
const dozeGrace = 10 * time.Second

// errDoze is the cause of a context that ends because nobody calls.
var errDoze = errors.New("nobody calls")

// A dozer tracks whether there are calls. A nil dozer never dozes.
type dozer struct {
	after time.Duration

	mu     sync.Mutex
	calls  int       // under way
	idle   time.Time // since when there is none
	dozing bool
	wake   chan struct{} // holds a value when a call has come in the meantime
}

func newDozer(after time.Duration) *dozer {
	if after == 0 {
		return nil
	}
	return &dozer{after: after, idle: time.Now(), wake: make(chan struct{}, 1)}
}

// enter is called when a call begins. Call leave once at its end.
func (d *dozer) enter() {
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls++
	if d.dozing {
		d.dozing = false
		d.wake <- struct{}{}
	}
}

func (d *dozer) leave() {
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls--
	d.idle = time.Now()
}

// whileAwake runs run with a context that ends, with errDoze, when nobody has
// called for as long as it takes and mayDoze does not object. Then it waits for
// a call. It returns the error of run, which is errDoze after a doze. No call
// begins while mayDoze runs.
func (d *dozer) whileAwake(ctx context.Context, mayDoze func() bool, run func(context.Context) error) error {
	if d == nil {
		return run(ctx)
	}
	awake, end := context.WithCancelCause(ctx)
	defer end(nil)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		if d.watch(awake, mayDoze) {
			end(errDoze)
		}
	}()
	err := run(awake)
	end(nil)
	<-watched
	if context.Cause(awake) != errDoze {
		return err
	}
	select {
	case <-d.wake:
	case <-ctx.Done():
	}
	return errDoze
}

// watch reports whether it is time to doze; false means that ctx is done.
func (d *dozer) watch(ctx context.Context, mayDoze func() bool) bool {
	for {
		d.mu.Lock()
		left := d.after
		if d.calls == 0 {
			left -= time.Since(d.idle)
		}
		d.dozing = left <= 0 && mayDoze()
		dozing := d.dozing
		d.mu.Unlock()
		if dozing {
			return true
		}
		if left <= 0 {
			left = d.after
		}
		pause(ctx, nil, left)
		if ctx.Err() != nil {
			return false
		}
	}
}
