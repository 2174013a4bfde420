package watchdog

// The fork server: processes that are forks of a template, which has loaded an
// interpreter and the script. docs/forkserver.md says how.

import (
	"context"
	"os/exec"
	"syscall"

	"faas/watchdog/internal/forkserver"
)

// newTemplates returns the fork server of a handler whose settings ask for one.
func (h *Handler) newTemplates() (*forkserver.Server, error) {
	return forkserver.New(forkserver.Options{
		Command: h.cfg.Command, Template: h.cfg.ForkServer, Preload: h.cfg.Preload,
		Env: h.environ, Log: h.log, Spawn: h.family.spawn,
	})
}

// runTemplates keeps a template ready until ctx is done, except while the
// handler dozes. The call that ends a doze is started without a template, since
// that is no slower.
func (h *Handler) runTemplates(ctx context.Context) {
	for ctx.Err() == nil {
		h.doze.whileAwake(ctx, func() bool { return true }, func(awake context.Context) error {
			h.program.templates.Run(awake)
			return nil
		})
	}
}

// spawn starts a template as a member of the family, which ends with this
// program.
func (f *family) spawn(cmd *exec.Cmd) (wait func() error, err error) {
	p := &process{family: f, child: command{cmd}, mark: f.templateMark()}
	if p.mark != "" {
		cmd.Env = append(cmd.Env[:len(cmd.Env):len(cmd.Env)], markVariable+"="+p.mark)
	}
	tie(cmd.SysProcAttr)
	err = f.add(func() (*process, error) {
		err := cmd.Start()
		if err == nil {
			p.pid = cmd.Process.Pid
		}
		return p, err
	})
	return func() error {
		p.mu.Lock()
		err := cmd.Wait()
		p.reaped = true
		p.mu.Unlock()
		f.remove(p)
		return err
	}, err
}

// A forked is a child that is a fork of a template.
type forked struct{ *forkserver.Child }

func (c forked) handle(f func(pidfd uintptr)) { f(uintptr(c.Pidfd)) }

func (c forked) wait() (status syscall.WaitStatus, known bool) {
	status, err := c.Reap()
	return status, err == nil
}

func (c forked) release() { syscall.Close(c.Pidfd) }
