package e2e

// Many functions made and removed over the control plane, several at a time.

import (
	"fmt"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"
)

const (
	// envSoak set to anything makes soaks as long as they should be; otherwise
	// they show that they work.
	envSoak = "FAAS_SOAK"

	soakWorkers = 8
	soakGrowth  = 16 << 20 // bytes that the gateway may have more afterwards

	collections     = "go_gc_duration_seconds_count"
	soakCollections = 6
)

func TestAPISoak(t *testing.T) {
	l := useLab(t)
	count := 60
	if os.Getenv(envSoak) != "" {
		count = 500
	}
	c := startAPI(t, l.node(1))
	// The garbage collector lets tens of MiB pile up before it runs, by design
	// (heapHeadroom). So the memory after some collections is compared with that after
	// as many more: what is lost adds up.
	const memory = "process_resident_memory_bytes"
	functions, began := 0, time.Now()
	collected := func(times float64) float64 {
		for end := c.gateway.metric(t, collections) + times; c.gateway.metric(t, collections) < end; functions += count {
			c.deployAndRemove(t, fmt.Sprint("soak-", functions), count)
		}
		return c.gateway.metric(t, memory)
	}
	idle, before, after := c.gateway.metric(t, memory), collected(soakCollections), collected(soakCollections)
	took := time.Since(began)

	if got := c.list(t); len(got) != 0 {
		t.Errorf("got %d functions left in the list, want none", len(got))
	}
	if left := l.docker(t, "service", "ls", "--quiet"); left != "" {
		t.Errorf("got services %q left, want none", left)
	}
	soak := newTable("Functions deployed and removed over the API, 8 at a time", "functions", "took", "RSS idle", fmt.Sprintf("after %d collections", soakCollections), "after as many again")
	mib := func(bytes float64) string { return fmt.Sprintf("%.1f MiB", bytes/(1<<20)) }
	soak.row(functions, took.Round(time.Second), mib(idle), mib(before), mib(after))
	soak.print(t)
	if after > before+soakGrowth {
		t.Errorf("got %s of memory after %s, want at most %s more", mib(after), mib(before), mib(soakGrowth))
	}
	for _, what := range []string{"gateway_service_count", "gateway_function_invocation_started"} {
		if got := c.gateway.metric(t, what); got != 0 {
			t.Errorf("got %v in all of %s, want the series gone with their functions", got, what)
		}
	}
}

// deployAndRemove makes count functions, all of which the list must show before
// they are removed. Every tenth starts; the others wait for a node that there
// is not, as it is not the engine that is to be shown.
func (c *apiClient) deployAndRemove(t *testing.T, prefix string, count int) {
	t.Helper()
	name := func(i int) string { return fmt.Sprintf("%s-%d", prefix, i) }
	each := func(do func(i int) error) {
		t.Helper()
		numbers := make(chan int)
		var wg sync.WaitGroup
		for range soakWorkers {
			wg.Go(func() {
				for i := range numbers {
					if err := do(i); err != nil {
						t.Errorf("%s: %v", name(i), err)
					}
				}
			})
		}
		for i := range count {
			numbers <- i
		}
		close(numbers)
		wg.Wait()
	}
	send := func(method, body string) error {
		a, err := c.send(t.Context(), method, "/system/functions", body)
		if err == nil && a.status != http.StatusAccepted {
			err = fmt.Errorf("%s: got status %d, want 202: %s", method, a.status, firstLine(a.body))
		}
		return err
	}
	each(func(i int) error {
		constraint := `"node.labels.none == here"`
		if i%10 == 0 {
			constraint = ""
		}
		return send(http.MethodPost, fmt.Sprintf(`{"service":%q,"image":%q,"constraints":[%s]}`, name(i), catImage, constraint))
	})
	listed := c.list(t)
	if len(listed) != count {
		t.Errorf("got %d functions in the list, want %d", len(listed), count)
	}
	for i := range count {
		if listed[name(i)].Name == "" {
			t.Errorf("%s is lost", name(i))
		}
	}
	each(func(i int) error { return send(http.MethodDelete, fmt.Sprintf(`{"functionName":%q}`, name(i))) })
}
