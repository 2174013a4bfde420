package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"faas/internal/scale"
)

// task is one as the API shows it, created so long ago, and in its state half as
// long. status is the rest of its Status, desired its DesiredState.
func task(ago time.Duration, where, desired, state, status string) string {
	at := func(ago time.Duration) string { return time.Now().Add(-ago).UTC().Format(time.RFC3339Nano) }
	if status != "" {
		status = "," + status
	}
	return fmt.Sprintf(`{"ID":"cgf74gr8qks7ad9llmh2nnhzo","Version":{"Index":193},"CreatedAt":%q,"UpdatedAt":%q,"Labels":{},`+
		`"Spec":{"ContainerSpec":{"Image":"registry.example.com/secret/x:1","Env":["fprocess=cat"]},"ForceUpdate":0},"ServiceID":"cyxnsuc94xs3b7nu0nj8znmtz",%s,`+
		`"DesiredState":%q,"Status":{"Timestamp":%q,"State":%q,"Message":"as ever","PortStatus":{}%s}}`,
		at(ago), at(ago/2), where, desired, at(ago/2), state, status)
}

// withTimes is task with times of its own, and a delay of restarts.
func withTimes(task string, created, since, delay time.Duration) string {
	at := func(ago time.Duration) string { return time.Now().Add(-ago).UTC().Format(time.RFC3339Nano) }
	var fields map[string]any
	if err := json.Unmarshal([]byte(task), &fields); err != nil {
		panic(err)
	}
	fields["CreatedAt"] = at(created)
	fields["Status"].(map[string]any)["Timestamp"] = at(since)
	fields["Spec"].(map[string]any)["RestartPolicy"] = map[string]any{"Condition": "any", "Delay": delay}
	changed, err := json.Marshal(fields)
	if err != nil {
		panic(err)
	}
	return string(changed)
}

// loop is the tasks of a slot whose process ends each time when it has lived for
// so long, two times so far, up to the one in state, which is so for that long.
func loop(lived, delay time.Duration, state string, since time.Duration) []string {
	cycle := delay + lived
	ended := since // ago
	if state == "running" {
		ended += delay
	}
	return []string{
		withTimes(task(0, slot1, "running", state, ""), ended, since, delay),
		withTimes(task(0, slot1, "shutdown", "failed", exited1), ended+cycle, ended, delay),
		withTimes(task(0, slot1, "shutdown", "failed", exited1), ended+cycle+lived, ended+cycle, delay),
	}
}

const (
	slot1, slot2 = `"Slot":1,"NodeID":"n1"`, `"Slot":2,"NodeID":"n2"`

	exited1   = `"Err":"task: non-zero exit (1)","ContainerStatus":{"ContainerID":"7dae4cb3be0b","PID":0,"ExitCode":1}`
	noImage   = `"Err":"No such image: registry.example.com/secret/x:1","ContainerStatus":{"ContainerID":"","PID":0,"ExitCode":0}`
	unhealthy = `"Err":"task: non-zero exit (137): dockerexec: unhealthy container","ContainerStatus":{"ContainerID":"23d2","PID":0,"ExitCode":137}`
	noCommand = `"Err":"starting container failed: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: exec: \"/nosuch\": stat /nosuch: no such file or directory: unknown","ContainerStatus":{"ContainerID":"ad79","PID":0,"ExitCode":127}`
	noMount   = `"Err":"invalid mount config for type \"bind\": bind source path does not exist: /secret","ContainerStatus":{"ContainerID":"","PID":0,"ExitCode":0}`
	noRoom    = `"Err":"no suitable node (scheduling constraints not satisfied on 2 nodes; insufficient resources on 1 node)"`
)

// The states are those of a Docker 28.2 and 20.10 Swarm.
func TestSwarmTrouble(t *testing.T) {
	const s = time.Second
	other := func(task string) string { return strings.Replace(task, "fprocess=cat", "fprocess=nosuch", 1) }
	two := func(status, state string) []string {
		return []string{task(1*s, slot1, "ready", "ready", ""), task(7*s, slot1, "shutdown", state, status), task(14*s, slot1, "shutdown", state, status)}
	}
	for _, c := range []struct {
		name    string
		tasks   []string
		reason  string // "": no trouble
		failing bool
	}{
		{"its process crashes again and again", two(exited1, "failed"), "its process ends with exit code 1", true},
		{"and is just running once more", append([]string{task(2*s, slot1, "running", "running", "")}, two(exited1, "failed")[1:]...), "its process ends with exit code 1", true},
		{"it ends with 0 again and again", two(`"ContainerStatus":{"ExitCode":0}`, "complete"), "its process ends with exit code 0", true},
		{"no such image", []string{task(1*s, slot1, "ready", "rejected", noImage), task(6*s, slot1, "shutdown", "rejected", noImage)}, "No such image", true},
		{"unhealthy", two(unhealthy, "failed"), "its health check fails", true},
		{"no such command", two(noCommand, "failed"), "its container cannot be started", true},
		{"no such mount", two(noMount, "rejected"), "its container cannot be created", true},
		{"no room", []string{task(5*s, slot1, "running", "pending", noRoom)}, "no suitable node: insufficient resources, scheduling constraints not satisfied", true},
		{"no room for a reason that is not known here", []string{task(5*s, slot1, "running", "pending", `"Err":"no suitable node (10.0.0.7 is on fire)"`)}, "no suitable node", true},
		{"no address", []string{task(30*s, slot1, "running", "new", "")}, "it gets no address: its network has most likely none left", true},
		{"failed once, and no other follows", []string{task(30*s, slot1, "shutdown", "failed", exited1)}, "its process ends with exit code 1", true},

		{"failed once, so far", two(exited1, "failed")[:2], "its process ends with exit code 1", false},
		{"one of two slots may get ready", append(two(exited1, "failed"), task(3*s, slot2, "running", "starting", "")), "its container is starting", false},
		{"both fail", append(two(exited1, "failed"), task(3*s, slot2, "running", "pending", noRoom)), "its process ends with exit code 1", true},
		{"one fails, one gets no address", append(two(exited1, "failed"), task(30*s, slot2, "running", "new", "")), noAddress, true},
		{"one gets no address, one fails", append([]string{task(30*s, slot1, "running", "new", "")}, task(3*s, slot2, "running", "pending", noRoom)), noAddress, true},
		{"one starts, one gets no address", []string{task(3*s, slot1, "running", "starting", ""), task(30*s, slot2, "running", "new", "")}, noAddress, false},
		{"one gets no address, one starts", []string{task(30*s, slot1, "running", "new", ""), task(3*s, slot2, "running", "starting", "")}, noAddress, false},
		{"one gets no address, one is assigned", []string{task(30*s, slot1, "running", "new", ""), task(3*s, slot2, "running", "assigned", "")}, noAddress, false},
		{"a new version after one that failed", append([]string{other(task(3*s, slot1, "running", "preparing", ""))}, two(exited1, "failed")[1:]...), "its image is being pulled or its container created", false},
		{"an older version that failed", []string{task(1*s, slot1, "ready", "ready", ""), task(7*s, slot1, "shutdown", "failed", exited1), other(task(14*s, slot1, "shutdown", "failed", exited1))}, "its process ends with exit code 1", false},
		{"starts", []string{task(20*s, slot1, "running", "starting", "")}, "its container is starting", false},
		{"runs", []string{task(20*s, slot1, "running", "running", "")}, "its process accepts no connections", false},
		{"restarts after it ran for long", []string{task(20*s, slot1, "running", "running", ""), task(time.Hour, slot1, "shutdown", "shutdown", "")}, "its process accepts no connections", false},
		{"started at the third try", loop(2*s, 5*s, "running", 20*s), "its process accepts no connections", false},
		{"ends 25 s after each start, just running", loop(25*s, 5*s, "running", 1*s), "its process ends with exit code 1", true},
		{"ends 25 s after each start, about to end", loop(25*s, 5*s, "running", 24*s), "its process ends with exit code 1", true},
		{"ends 25 s after each start, and waits", loop(25*s, 5*s, "ready", 4*s), "its process ends with exit code 1", true},
		{"ended 25 s after each start, and outlived that", loop(25*s, 5*s, "running", 60*s), "its process accepts no connections", false},
		{"restarts after 3 minutes, and waits", loop(1*s, 180*s, "ready", 100*s), "its process ends with exit code 1", true},
		{"restarts after 3 minutes, and runs", loop(1*s, 180*s, "running", 5*s), "its process ends with exit code 1", true},
		{"crashed twice in days", []string{task(20*s, slot1, "running", "starting", ""), task(24*time.Hour, slot1, "shutdown", "failed", exited1), task(72*time.Hour, slot1, "shutdown", "failed", exited1)}, "its container is starting", false},
		{"crashed after days, and no other follows", []string{task(24*time.Hour, slot1, "shutdown", "failed", exited1)}, "its process ends with exit code 1", true},
		{"new", []string{task(3*s, slot1, "running", "new", "")}, "", false},
		{"pending, for now", []string{task(30*s, slot1, "running", "pending", "")}, "", false},
		{"assigned", []string{task(1*s, slot1, "running", "assigned", "")}, "", false},
		{"a slot that was scaled away", []string{task(30*s, slot2, "remove", "failed", exited1), task(1*s, slot1, "running", "assigned", "")}, "", false},
		{"stopped", []string{task(30*s, slot1, "shutdown", "shutdown", exited1)}, "", false},
		{"no task yet", nil, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := startDocker(t)
			p := connect(t)
			d.answer("GET /tasks", func(w http.ResponseWriter, r *http.Request) {
				io.WriteString(w, "["+strings.Join(c.tasks, ",")+"]")
			})
			got, err := p.trouble(t.Context(), definition{service: "shop_orders", replicas: 1})
			switch {
			case err != nil:
				t.Fatal(err)
			case got == nil && c.reason != "", got != nil && (got.reason != c.reason || got.failing != c.failing):
				t.Errorf("got %+v, want %q, failing %v", got, c.reason, c.failing)
			}
			query, err := url.QueryUnescape(d.requests[len(d.requests)-1])
			if err != nil || !strings.Contains(query, `{"service":{"shop_orders":true}}`) {
				t.Errorf("got the request %q, want one for the tasks of the service alone", query)
			}
		})
	}
}

// Swarm's own words are for operators alone.
func TestSwarmTroubleTellsOperatorsMore(t *testing.T) {
	p := &swarmProvider{network: "functions"}
	d := startDocker(t)
	p.docker = connect(t).docker
	long := strings.Replace(noCommand, "/nosuch", "/"+strings.Repeat("x", 10_000), 1)
	for status, want := range map[string]string{noImage: "No such image: registry.example.com/secret/x:1", noCommand: "stat /nosuch", long: "starting container failed"} {
		d.answer("GET /tasks", func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "[%s]", task(time.Second, slot1, "shutdown", "rejected", status))
		})
		got, err := p.trouble(t.Context(), definition{service: "f"})
		if err != nil || got == nil || !strings.Contains(got.detail, want) || len(got.detail) > 2*maxTaskError {
			t.Errorf("got %+v, %v, want %q in a short detail", got, err, want)
		}
		if strings.ContainsAny(got.reason, "/:") {
			t.Errorf("got %q for callers, with what Swarm says", got.reason)
		}
	}
	d.answer("GET /tasks", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "[%s]", task(time.Minute, slot1, "running", "new", ""))
	})
	if got, err := p.trouble(t.Context(), definition{service: "f"}); err != nil || !strings.Contains(got.detail, `the network "functions" has no free address`) {
		t.Errorf("got %+v, %v, want the network named", got, err)
	}
}

// A global service has a task on each node that its constraints allow.
func TestSwarmTroubleOfAGlobalService(t *testing.T) {
	d := startDocker(t)
	p := connect(t)
	global := definition{service: "everywhere", scale: scale.Limits{Fixed: true}}
	for _, c := range []struct {
		tasks   []string
		reason  string
		failing bool
	}{
		{nil, "no suitable node", true},
		{[]string{task(time.Second, `"NodeID":"n1"`, "shutdown", "failed", exited1), task(time.Minute, `"NodeID":"n2"`, "shutdown", "rejected", noImage)}, "its process ends with exit code 1", true},
		{[]string{task(time.Second, `"NodeID":"n1"`, "shutdown", "failed", exited1), task(time.Second, `"NodeID":"n2"`, "running", "preparing", "")}, "its image is being pulled or its container created", false},
	} {
		d.answer("GET /tasks", func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "["+strings.Join(c.tasks, ",")+"]")
		})
		got, err := p.trouble(t.Context(), global)
		if err != nil || got == nil || got.reason != c.reason || got.failing != c.failing {
			t.Errorf("%d tasks: got %+v, %v, want %q, failing %v", len(c.tasks), got, err, c.reason, c.failing)
		}
	}
}

func TestSwarmTroubleWithoutTheAPI(t *testing.T) {
	d := startDocker(t)
	p := connect(t)
	d.answer("GET /tasks", refusal(403, "this proxy does not allow it"))
	if got, err := p.trouble(t.Context(), definition{service: "f"}); got != nil || err == nil || !strings.Contains(err.Error(), "tasks of f") {
		t.Errorf("got %+v, %v, want an error that says what was tried", got, err)
	}
	d.answer("GET /tasks", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := p.trouble(ctx, definition{service: "f"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("an API that hangs: got %v, want %v", err, context.DeadlineExceeded)
	}
}
