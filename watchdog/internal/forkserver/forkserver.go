// Package forkserver gives each request a process without starting one: a
// template process loads an interpreter, the script and what it imports, once,
// and is forked per request. The script is unchanged, and runs in a process of
// its own as ever.
//
// docs/forkserver.md has the protocol between this package and a template, and
// says how to write one for another language. A template that cannot do it, or
// is not ready, is never an obstacle: Fork says so, and the caller starts a
// process the plain way.
package forkserver

// The server: it chooses the template in use, and decides when to replace it.

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"
)

const (
	defaultMaxForks  = 10_000
	defaultMaxGrowth = 64 << 20

	// A template that fails is restarted after a pause, which doubles each time.
	minPause = 100 * time.Millisecond
	maxPause = 30 * time.Second

	// steadyAfter is how long a template lives that has nothing to do with the
	// failures before it.
	steadyAfter = 10 * time.Second
)

// Why Fork did not make a process. With both, nothing of the script has run and
// nothing of it will: start a process the plain way.
var (
	ErrNotNow = errors.New("no template is ready")
	ErrNever  = errors.New("the script cannot be forked from a template")
)

var errReplaced = fmt.Errorf("%w: it is about to be replaced", ErrNotNow)

var errNotRunning = fmt.Errorf("%w: the fork server does not run", ErrNotNow)

// ErrLost is what Reap returns for a child whose template died before it, where
// this program does not inherit such children. It has been ended.
var ErrLost = errors.New("the template has died, and the status with it")

// Options configure a Server.
type Options struct {
	// Command is what the plain way starts. For the templates that come with
	// this package it is INTERPRETER [options] SCRIPT [arguments].
	Command []string

	// Template is "python", "perl" or "ruby", or a command that speaks the
	// protocol and knows by itself what to load.
	Template []string

	// Preload names modules to load besides those that the script begins with.
	Preload []string

	// Env is the environment of the template; nil is this program's. Requests
	// usually have the same and more.
	Env []string

	// MaxForks is after how many forks a template is renewed; MaxGrowth, after
	// how many bytes of resident memory beyond what it had when it was ready.
	// 0 is 10,000 and 64 MiB.
	MaxForks  int
	MaxGrowth int64

	// Log may be nil.
	Log *slog.Logger

	// Spawn starts a template, and returns what waits for its end and reaps it.
	// It is for a program that reaps other children, and has to tell a template
	// from them. Nil is cmd.Start and cmd.Wait.
	Spawn func(cmd *exec.Cmd) (wait func() error, err error)
}

// A Server keeps a template ready while it runs.
type Server struct {
	launch
	o     Options
	base  map[string]string // Options.Env
	now   atomic.Pointer[state]
	stale chan struct{} // holds a value when a file of the current state has changed

	templates sync.WaitGroup
}

// A state is what Fork reads.
type state struct {
	template *template // nil: there is none
	err      error     // why
	files    stamps    // a change to one of them makes the state obsolete
}

// New checks o and returns a Server for it. It starts nothing.
func New(o Options) (*Server, error) {
	l, err := newLaunch(o)
	if err != nil {
		return nil, err
	}
	if o.MaxForks == 0 {
		o.MaxForks = defaultMaxForks
	}
	if o.MaxGrowth == 0 {
		o.MaxGrowth = defaultMaxGrowth
	}
	if o.MaxForks < 0 || o.MaxGrowth < 0 {
		return nil, errors.New("the limits of a template cannot be negative")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Spawn == nil {
		o.Spawn = func(cmd *exec.Cmd) (func() error, error) { return cmd.Wait, cmd.Start() }
	}
	if o.Env == nil {
		o.Env = os.Environ()
	}
	s := &Server{launch: l, o: o, base: variables(o.Env), stale: make(chan struct{}, 1)}
	s.now.Store(&state{err: errNotRunning})
	return s, nil
}

// A Request says what process is wanted.
type Request struct {
	Env   []string    // all of it
	Args  []string    // of the script; nil: those in Options.Command
	Dir   string      // "": that of the template
	Files [3]*os.File // STDIN, STDOUT, STDERR; the caller closes them
}

// Fork makes a process that runs the script. It leads a process group of its
// own. The caller must see it to its end: wait until Pidfd is readable, end
// what is left of the group, Reap, close Pidfd.
//
// An error is ErrNotNow, ErrNever, or what would keep a process from being
// started the plain way, too, such as E2BIG or EAGAIN.
func (s *Server) Fork(r Request) (*Child, error) {
	payload, err := s.encode(r)
	if err != nil {
		return nil, err
	}
	for {
		now := s.now.Load()
		if name := now.files.changed(); name != "" {
			s.outdate(now, name)
			now = s.now.Load()
		}
		if now.template == nil {
			return nil, now.err
		}
		c, err := now.template.fork(payload, r.Files)
		if errors.Is(err, errReplaced) && s.now.Load() != now {
			continue // its successor came in between
		}
		return c, err
	}
}

// Run keeps a template ready until ctx is done, and returns when every
// template has ended. One that has children ends with the last of them. Run may
// be called again after that.
func (s *Server) Run(ctx context.Context) {
	var current *template
	pause := minPause
	for ctx.Err() == nil {
		next, files, err := s.load(ctx)
		if err == nil {
			s.now.Store(&state{template: next, files: files})
			current.retire()
			current = next
			s.o.Log.Info("fork server is ready", "template", s.argv[0], "pid", next.pid)
			if err = s.await(ctx, next); err == nil {
				pause = minPause
				continue
			}
			if next.age() > steadyAfter {
				pause = minPause
			}
		}
		if ctx.Err() == nil {
			s.failed(err, files, pause == minPause)
			s.rest(ctx, err, pause)
			pause = min(2*pause, maxPause)
		}
	}
	s.now.Store(&state{err: errNotRunning})
	current.retire()
	s.templates.Wait()
}

// await returns when there is to be another template than t: an error if t has
// died, else nil.
func (s *Server) await(ctx context.Context, t *template) error {
	select {
	case <-t.ended:
		return fmt.Errorf("%w: the last one has died: %s", ErrNotNow, t.fate())
	case <-t.spent:
		s.o.Log.Info("fork server renews its template", "pid", t.pid)
	case <-s.stale:
	case <-ctx.Done():
	}
	return nil
}

// failed publishes err. A template that only had to be replaced stays in use.
func (s *Server) failed(err error, files stamps, first bool) {
	never := errors.Is(err, ErrNever)
	text := "fork server cannot renew its template"
	if t := s.now.Load().template; t == nil || t.hasEnded() || never {
		s.now.Store(&state{err: err, files: files})
		text = "no fork server: each call starts a process"
	}
	level := slog.LevelDebug // of what has been said
	if first || never {
		level = slog.LevelWarn
	}
	s.o.Log.Log(context.Background(), level, text, "error", err)
}

// rest waits until there may be another try: after a pause or, if err says that
// it is of no use, after a change.
func (s *Server) rest(ctx context.Context, err error, pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	if errors.Is(err, ErrNever) {
		timer.Stop()
	}
	select {
	case <-timer.C:
	case <-s.stale:
	case <-ctx.Done():
	}
}

// outdate replaces a state one of whose files has changed.
func (s *Server) outdate(now *state, name string) {
	if !s.now.CompareAndSwap(now, &state{err: fmt.Errorf("%w: %s has changed", ErrNotNow, name)}) {
		return
	}
	s.o.Log.Info("fork server reloads", "changed", name)
	select {
	case s.stale <- struct{}{}:
	default:
	}
}
