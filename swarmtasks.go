package main

// Why no task of a service becomes ready, read from what Swarm keeps of its
// tasks: the one of each slot, and the few that it had before.

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/swarm"
)

const (
	// newAfter is how long a task may stay in state new before that is no
	// matter of time: Swarm has nothing to give it, and does not say so.
	newAfter = 10 * time.Second

	// A task has started once it has run for so long, and, where the ones
	// before it failed, outlivedBy times as long as they lived; and what it
	// dies of when it is older than longStart, the pull of its image included,
	// is not its start.
	startedAfter = 10 * time.Second
	outlivedBy   = 2
	longStart    = 2 * time.Minute

	// failedOften is how many tasks of a slot have to fail one after another
	// before its next one is expected to fail as well.
	failedOften = 2

	noAddress = "it gets no address: its network has most likely none left"

	maxTaskError = 300 // bytes of Swarm's own words
)

func (p *swarmProvider) trouble(ctx context.Context, d definition) (*trouble, error) {
	tasks, err := p.docker.TaskList(ctx, swarm.TaskListOptions{Filters: filters.NewArgs(filters.Arg("service", d.service))})
	if err != nil {
		return nil, fmt.Errorf("list the tasks of %s: %w", d.service, err)
	}
	return p.taskTrouble(tasks, d.scale.Fixed, time.Now()), nil
}

// taskTrouble is failing if no slot can be expected to get ready. A slot without
// an address gives the reason whatever the others do. global: the
// service has one task on each node that suits it.
func (p *swarmProvider) taskTrouble(tasks []swarm.Task, global bool, now time.Time) *trouble {
	slices.SortFunc(tasks, func(a, b swarm.Task) int { return b.CreatedAt.Compare(a.CreatedAt) })
	slots := map[string][]swarm.Task{} // the newest first
	var order []string
	for _, t := range tasks {
		slot := strconv.Itoa(t.Slot) + t.NodeID
		if t.Slot > 0 {
			slot = strconv.Itoa(t.Slot) // whichever node
		}
		if slots[slot] == nil {
			order = append(order, slot)
		}
		slots[slot] = append(slots[slot], t)
	}
	var stuck, hope, failing *trouble
	hopeful := false
	for _, slot := range order {
		t, live := p.slotTrouble(slots[slot], now)
		switch {
		case !live:
		case !t.isFailing():
			if !hopeful {
				hope, hopeful = t, true
			}
		case t.reason == noAddress:
			stuck = t
		case failing == nil:
			failing = t
		}
	}
	switch {
	case stuck != nil:
		return &trouble{reason: stuck.reason, detail: stuck.detail, failing: !hopeful}
	case hopeful:
		return hope
	case global && len(tasks) == 0:
		return &trouble{reason: "no suitable node", detail: "a global service without a task: no node meets its constraints", failing: true}
	}
	return failing
}

// slotTrouble looks at one slot, whose newest task comes first. live is false for
// a slot that Swarm has given up on purpose.
func (p *swarmProvider) slotTrouble(tasks []swarm.Task, now time.Time) (t *trouble, live bool) {
	newest := tasks[0]
	state, age := newest.Status.State, now.Sub(newest.Status.Timestamp)
	switch {
	case newest.DesiredState == swarm.TaskStateRemove, state == swarm.TaskStateShutdown, state == swarm.TaskStateRemove, state == swarm.TaskStateOrphaned:
		return nil, false
	case state == swarm.TaskStateNew && age >= newAfter:
		return &trouble{
			reason:  noAddress,
			detail:  fmt.Sprintf("its tasks stay in state new: most likely the network %q has no free address (docs/operations.md, \"The functions network\")", p.network),
			failing: true,
		}, true
	case state == swarm.TaskStatePending && newest.Status.Err != "":
		return &trouble{reason: noNode(newest.Status.Err), detail: taskError(newest), failing: true}, true
	}
	failed, lived := failedInARow(tasks)
	if len(failed) < failedOften {
		lived = 0
	}
	last := taskFailed(newest) && newest.DesiredState == swarm.TaskStateShutdown // no other follows
	switch {
	case state == swarm.TaskStateRunning && age >= max(startedAfter, outlivedBy*lived):
		return &trouble{reason: "its process accepts no connections", detail: taskError(newest)}, true
	case last:
		return &trouble{reason: failure(newest), detail: taskError(newest), failing: true}, true
	case len(failed) > 0:
		return &trouble{reason: failure(failed[0]), detail: taskError(failed[0]), failing: len(failed) >= failedOften}, true
	case state == swarm.TaskStatePreparing:
		return &trouble{reason: "its image is being pulled or its container created", detail: taskError(newest)}, true
	case state == swarm.TaskStateStarting, state == swarm.TaskStateRunning:
		return &trouble{reason: "its container is starting", detail: taskError(newest)}, true
	}
	return nil, true
}

// failedInARow returns those tasks of a slot, the newest first, that have failed
// to start one after another up to now, without another version between them, and
// how long the one lived that lived longest.
func failedInARow(tasks []swarm.Task) (failed []swarm.Task, longest time.Duration) {
	version := tasks[0].Spec
	if !taskFailed(tasks[0]) {
		tasks = tasks[1:]
	}
	for i, t := range tasks {
		lived := taskLived(t)
		if !taskFailed(t) || lived > longStart || !reflect.DeepEqual(t.Spec, version) {
			return tasks[:i], longest
		}
		longest = max(longest, lived)
	}
	return tasks, longest
}

// taskLived returns how long a task that has ended lived, without the wait that
// Swarm has each but the first begin with. Which is the first, nobody keeps.
func taskLived(t swarm.Task) time.Duration {
	lived := t.Status.Timestamp.Sub(t.CreatedAt)
	if policy := t.Spec.RestartPolicy; policy != nil && policy.Delay != nil {
		lived -= *policy.Delay
	}
	return max(lived, 0)
}

// taskFailed reports whether a task ended by itself: a server is not meant to.
func taskFailed(t swarm.Task) bool {
	switch t.Status.State {
	case swarm.TaskStateFailed, swarm.TaskStateRejected, swarm.TaskStateComplete:
		return true
	}
	return false
}

// failure says why a task ended, and nothing that Swarm's own words may hold:
// images with their registries, paths, addresses.
func failure(t swarm.Task) string {
	code := 0
	if t.Status.ContainerStatus != nil {
		code = t.Status.ContainerStatus.ExitCode
	}
	said := strings.ToLower(t.Status.Err)
	switch {
	case strings.Contains(said, "no such image"):
		return "No such image"
	case strings.Contains(said, "unhealthy"):
		return "its health check fails"
	case t.Status.State == swarm.TaskStateRejected:
		return "its container cannot be created"
	case strings.Contains(said, "starting container failed"):
		return "its container cannot be started"
	}
	return fmt.Sprintf("its process ends with exit code %d", code)
}

// noNode says why no node takes a task, without how many nodes there are.
func noNode(said string) string {
	var why []string
	for _, known := range []string{ // of SwarmKit's manager/scheduler/filter.go
		"insufficient resources", "scheduling constraints not satisfied", "host-mode port already in use",
		"max replicas per node limit exceed", "unsupported platform", "missing plugin", "not available for new tasks",
	} {
		if strings.Contains(said, known) {
			why = append(why, known)
		}
	}
	if why == nil {
		return "no suitable node"
	}
	return "no suitable node: " + strings.Join(why, ", ")
}

// taskError is Swarm's own account of a task.
func taskError(t swarm.Task) string {
	said := t.Status.Err
	if len(said) > maxTaskError {
		said = said[:maxTaskError] + "…"
	}
	return strings.TrimSuffix(fmt.Sprintf("task %s: %s: %s", t.ID, t.Status.State, said), ": ")
}
