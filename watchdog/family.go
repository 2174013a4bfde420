package watchdog

// The processes that run.

import (
	"os"
	"strconv"
	"sync"
	"sync/atomic"
)

// markVariable names, in the environment of a process and of what it starts,
// the invocation that they belong to.
const markVariable = "FAAS_INVOCATION"

// A family is a set of processes. It exists so that they can be told apart
// from orphans, and ended together.
type family struct {
	mu      sync.RWMutex // write-held by whoever must not meet a process half-started
	members sync.Map     // pid -> *process

	marking atomic.Bool // whether processes get a mark
	marks   atomic.Uint64

	shrunk chan struct{} // holds a value when a member has left since it was last received
}

// mark returns a mark for one more process, or "" if none is asked for.
func (f *family) mark() string {
	if !f.marking.Load() {
		return ""
	}
	return strconv.Itoa(os.Getpid()) + "-" + strconv.FormatUint(f.marks.Add(1), 10)
}

func (f *family) has(pid int) bool {
	_, ok := f.members.Load(pid)
	return ok
}

// hasMark reports whether the process with this mark is a member.
func (f *family) hasMark(mark string) (found bool) {
	f.members.Range(func(_, p any) bool {
		found = p.(*process).mark == mark
		return !found
	})
	return found
}

// add starts a process by way of start and makes it a member before anybody
// who takes the write lock can see it.
func (f *family) add(start func() (*process, error)) error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	p, err := start()
	if err == nil {
		f.members.Store(p.pid, p)
	}
	return err
}

// remove ends the membership of a process that has been reaped.
func (f *family) remove(p *process) {
	f.members.CompareAndDelete(p.pid, p)
	select {
	case f.shrunk <- struct{}{}:
	default:
	}
}

func (f *family) empty() bool {
	empty := true
	f.members.Range(func(_, _ any) bool {
		empty = false
		return false
	})
	return empty
}

// kill ends every member at once.
func (f *family) kill() {
	f.members.Range(func(_, p any) bool {
		p.(*process).kill()
		return true
	})
}
