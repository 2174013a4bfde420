package forkserver

// Loading: from the start of a template until it can be forked.

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"
)

// loadLimit is how long a template may take to load.
const loadLimit = time.Minute

// load starts a template and returns it when it is ready. With an error it
// returns the files whose change makes another try worth it.
func (s *Server) load(ctx context.Context) (*template, stamps, error) {
	var files stamps
	if s.script != "" {
		files = stamps{newStamp(absolute(s.script))}
	}
	fd, err := openPidfd(os.Getpid())
	if err != nil {
		return nil, nil, fmt.Errorf("%w: it needs Linux 5.3 or later: %w", ErrNever, err)
	}
	syscall.Close(fd)
	t, err := s.start()
	if err != nil {
		return nil, files, fmt.Errorf("%w: start template: %w", ErrNotNow, err)
	}
	t.files = files
	limited, cancel := context.WithTimeout(ctx, loadLimit)
	defer cancel()
	stop := context.AfterFunc(limited, t.kill)
	defer stop()
	if err = t.load(s.o.Preload); err == nil {
		return t, t.files, nil
	}
	t.kill()
	<-t.ended
	switch {
	case limited.Err() != nil:
		err = fmt.Errorf("%w: the template was not ready within %v", ErrNotNow, loadLimit)
	case errors.Is(err, errSilent):
		wrote := t.outputs[1].kept
		err = fmt.Errorf("%w: the template ended while it loaded (%s): %s", ErrNotNow, t.fate(), wrote[max(0, len(wrote)-500):])
	case !errors.Is(err, ErrNever):
		err = fmt.Errorf("%w: %w", ErrNotNow, err)
	}
	return nil, t.files, err
}

// load answers the template until it is ready.
func (t *template) load(preload []string) error {
	m, err := t.link.receive()
	if err != nil {
		return err
	}
	if m.text != "hello 1" {
		return fmt.Errorf("the template says %.40q, and not %q", m.text, "hello 1")
	}
	t.pid = m.pid
	first, err := inspect(t.pid)
	if err != nil {
		return inspectFailed(err)
	}
	for answer := "load " + strings.Join(preload, " "); ; answer = "ok" {
		if err := t.link.send(answer); err != nil {
			return err
		}
		m, err := t.link.receive()
		if err != nil {
			return err
		}
		what, rest, _ := strings.Cut(m.text, " ")
		if m.pid != t.pid || what != "loaded" && what != "file" && what != "ready" {
			return fmt.Errorf("the template says %.40q while it loads", m.text)
		}
		if what == "file" {
			if len(t.files) < maxStamps {
				t.files = append(t.files, newStamp(absolute(rest)))
			}
			continue
		}
		now, err := inspect(t.pid)
		if err != nil {
			return inspectFailed(err)
		}
		if found := now.beyond(first); found != "" {
			return fmt.Errorf("%w: after %q there is %s", ErrNever, rest, found)
		}
		if what == "ready" {
			return t.loaded()
		}
	}
}

func inspectFailed(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: %w", ErrNever, err)
	}
	return fmt.Errorf("%w: %w", errSilent, err)
}

// loaded ends the loading of a template that says it is ready.
func (t *template) loaded() error {
	for i, name := range []string{"STDOUT", "STDERR"} {
		t.outputs[i].settle(true)
		if len(t.outputs[i].kept) > maxKept {
			return fmt.Errorf("%w: its imports write more than %d bytes to %s", ErrNever, maxKept, name)
		}
	}
	if name := t.files.changedSince(t.started); name != "" {
		return fmt.Errorf("%s changed while it was loaded", name)
	}
	t.maxMemory += resident(t.pid)
	return nil
}
