package e2e

// Asynchronous calls of the stack, through any of its gateways.

import (
	"context"
	"encoding/json"
	"net/http"
	"testing"
	"time"
)

// testStackAsync makes calls through each gateway, and asks the next one what became
// of them. A callback makes a second call, of another function.
func testStackAsync(t *testing.T, gateways []*gateway) {
	const callback = "http://tasks.gateway:8080/async-function/catservice"
	for i, g := range gateways {
		other := gateways[(i+1)%len(gateways)]
		for _, c := range []struct {
			id, callback, last string
		}{
			{"e2e-async-" + g.node.name, "", "wordcount"},
			{"e2e-callback-" + g.node.name, callback, "catservice"},
		} {
			header := http.Header{"X-Call-Id": {c.id}}
			if c.callback != "" {
				header.Set("X-Callback-Url", c.callback)
			}
			a := g.post(t, "/async-function/wordcount?unit=lines", header, []byte("one\ntwo\n"))
			if a.status != http.StatusAccepted || a.header.Get("X-Call-Id") != c.id {
				t.Fatalf("%s: got %d %q, want 202 with the call ID %s", g.node.name, a.status, firstLine(a.body), c.id)
			}
			// The call that a callback makes has the same ID, which tells of the newer.
			if got := awaitCall(t, other, c.id, c.last); got.Status != "done" || got.Code != http.StatusOK {
				t.Errorf("%s: %s: got %+v, want it done with 200", g.node.name, c.id, got)
			}
		}
	}
	if a := gateways[0].post(t, "/async-function/nosuch", nil, nil); a.status != http.StatusNotFound {
		t.Errorf("no such function: got %d, want 404", a.status)
	}
}

type callStatus struct {
	Function, Status string
	Code             int
}

// awaitCall returns what became of the call, once it is over and of the function, or
// the last that it heard.
func awaitCall(t *testing.T, g *gateway, id, function string) (got callStatus) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), readyTimeout)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		a, err := g.call(ctx, http.MethodGet, "/async-function/"+id, nil, nil)
		if err == nil && a.status == http.StatusOK && json.Unmarshal(a.body, &got) == nil &&
			got.Function == function && (got.Status == "done" || got.Status == "dead") {
			return got
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Errorf("call %s of %s: got %+v (status %d, %v) for %s, want it over", id, function, got, a.status, err, readyTimeout)
			return got
		}
	}
}
