package e2e

// The stack's Prometheus, asked what it knows.

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A prometheus is the stack's: it is asked in its own container, as it is not
// published.
type prometheus struct {
	node      *node
	container string
}

func (l *lab) findPrometheus(t *testing.T) *prometheus {
	t.Helper()
	n := l.taskNode(t, "faas_prometheus")
	id := n.docker(t, "ps", "--quiet", "--filter", "name=faas_prometheus")
	if id == "" {
		t.Fatalf("%s has no container of Prometheus", n.name)
	}
	return &prometheus{n, id}
}

// get asks Prometheus' API; it may not be ready yet.
func (p *prometheus) get(ctx context.Context, path string, to any) error {
	out, err := p.node.tryDocker(ctx, "exec", p.container, "wget", "-qO-", "http://localhost:9090/api/v1/"+path)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(out), to)
}

// awaitValue waits until a query has one result, the given value.
func (p *prometheus) awaitValue(t *testing.T, query, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), readyTimeout)
	defer cancel()
	var last string
	if err := poll(ctx, 500*time.Millisecond, func() bool {
		var answer struct {
			Data struct{ Result []struct{ Value []any } }
		}
		if err := p.get(ctx, "query?query="+url.QueryEscape(query), &answer); err != nil {
			last = err.Error()
			return false
		}
		last = fmt.Sprint(answer.Data.Result)
		r := answer.Data.Result
		return len(r) == 1 && len(r[0].Value) == 2 && r[0].Value[1] == want
	}); err != nil {
		t.Errorf("%s: got %s, want %s", query, last, want)
	}
}

// checkRules waits until every rule of the files has been evaluated, and
// without an error.
func (p *prometheus) checkRules(t *testing.T) {
	t.Helper()
	var want int
	for file, mark := range map[string]string{"recording.yml": "- record: ", "alerts.yml": "- alert: "} {
		rules, err := os.ReadFile(filepath.Join(p.node.lab.root, "prometheus", file))
		if err != nil {
			t.Fatal(err)
		}
		want += strings.Count(string(rules), mark)
	}
	ctx, cancel := context.WithTimeout(t.Context(), readyTimeout)
	defer cancel()
	var last string
	if err := poll(ctx, 500*time.Millisecond, func() bool {
		var answer struct {
			Data struct {
				Groups []struct {
					Rules []struct{ Name, Health, LastError string }
				}
			}
		}
		if err := p.get(ctx, "rules", &answer); err != nil {
			last = err.Error()
			return false
		}
		last = fmt.Sprint(answer.Data.Groups)
		ok := 0
		for _, g := range answer.Data.Groups {
			for _, r := range g.Rules {
				if r.Health == "ok" {
					ok++
				}
			}
		}
		return ok == want
	}); err != nil {
		t.Errorf("got rules %s, want %d that are evaluated", last, want)
	}
}
