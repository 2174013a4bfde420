package watchdog

// The running processes.

import (
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// markVariable names, in the environment of a process and of what it starts,
// the invocation that they belong to.
const markVariable = "FAAS_INVOCATION"

// startLimit is how long kill waits for processes that are being started.
const startLimit = time.Second

// templateMark stands between owner and number in the mark of a template.
const templateMark = "-template-"

func isTemplateMark(mark string) bool { return strings.Contains(mark, templateMark) }

// A family is a set of processes. It exists so that they can be told apart
// from orphans, and ended together.
type family struct {
	mu      sync.RWMutex // write-held by code that must not see a half-started process
	members sync.Map     // pid -> *process

	owner string // of the processes, as in their marks; "": they get no marks
	marks atomic.Uint64

	shrunk chan struct{} // holds a value when a member has left since it was last received
}

// mark returns a mark for one more process.
func (f *family) mark() string {
	if f.owner == "" {
		return ""
	}
	return f.owner + "-" + strconv.FormatUint(f.marks.Add(1), 10)
}

// templateMark returns a mark for a template. Its forks have it in their
// environment as the system shows it, so it tells no invocation.
func (f *family) templateMark() string {
	if f.owner == "" {
		return ""
	}
	return f.owner + templateMark + strconv.FormatUint(f.marks.Add(1), 10)
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

// add calls start and makes the new process a member before a holder of the write
// lock can see it.
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

// idle reports whether no member belongs, or may later belong, to an invocation.
func (f *family) idle() bool {
	idle := true
	f.members.Range(func(_, p any) bool {
		idle = isTemplateMark(p.(*process).mark)
		return idle
	})
	return idle
}

// kill ends every member at once. It waits for processes that are being started,
// which run before they are members, but not for long: it is also for a program
// that hangs.
func (f *family) kill() {
	for end := time.Now().Add(startLimit); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if f.mu.TryLock() {
			defer f.mu.Unlock()
			break
		}
	}
	f.members.Range(func(_, p any) bool {
		p.(*process).kill()
		return true
	})
}
