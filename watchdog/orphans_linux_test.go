package watchdog

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

// reapOrphans has the handler's orphans adopted and reaped until the function
// that it returns is called.
func reapOrphans(t *testing.T, h *Handler) (stop func()) {
	t.Helper()
	if err := h.AdoptOrphans(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var reaping sync.WaitGroup
	reaping.Go(func() { h.ReapOrphans(ctx) })
	return func() { cancel(); reaping.Wait() }
}

// An orphan that has left its group and its environment ends nevertheless: when
// no invocation is under way, or with the watchdog.
func TestUnmarkedOrphanEnds(t *testing.T) {
	for _, last := range []bool{false, true} {
		name := "after the invocation"
		if last {
			name = "with the watchdog"
		}
		t.Run(name, func(t *testing.T) {
			w := newWitness(t)
			out := filepath.Join(t.TempDir(), "out")
			url, h, _ := serve(t, testConfig(t, `sh -c 'exec 9>`+w.path+`
				env -i setsid sh -c ">`+out+`; exec sleep 60" >/dev/null 2>&1 &
				until test -e `+out+`; do sleep 0.01; done; echo up >&9'`))
			stop := reapOrphans(t, h)
			defer stop()
			if last {
				// As long as there is a member, an orphan without a mark is spared.
				h.family.members.Store(-1, &process{mark: "other"})
			}
			if resp, _ := do(t, "GET", url, nil); resp.StatusCode != 200 {
				t.Errorf("got status %d, want 200", resp.StatusCode)
			}
			if last {
				stop()
				h.family.members.Delete(-1)
			}
			w.wantGone(t)
		})
	}
}

// The end of a membership is news to whoever reaps: an orphan may have been
// spared only because of it.
func TestMembershipEndWakes(t *testing.T) {
	h, err := New(testConfig(t, "true"), nil)
	if err != nil {
		t.Fatal(err)
	}
	orphan := exec.Command("sleep", "60")
	orphan.Env = append(os.Environ(), markVariable+"=leader")
	if err := orphan.Start(); err != nil {
		t.Fatal(err)
	}
	leader := &process{pid: -1, mark: "leader"}
	h.family.members.Store(leader.pid, leader)
	if killed := h.family.reapOrphans(false); killed != 0 {
		t.Errorf("killed %d during the invocation, want none", killed)
	}
	h.family.remove(leader)
	select {
	case <-h.family.shrunk:
	default:
		t.Error("got no news of the end of the membership, want some")
	}
	if killed := h.family.reapOrphans(false); killed != 1 {
		t.Errorf("killed %d after the invocation, want 1", killed)
	}
	orphan.Wait()
	if s, ok := orphan.ProcessState.Sys().(syscall.WaitStatus); !ok || s.Signal() != syscall.SIGKILL {
		t.Errorf("got the end %v, want by SIGKILL", orphan.ProcessState)
	}
}
