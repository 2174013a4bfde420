package e2e

// The first promise: a process in an image is a function, however it is
// called, on every node of the Swarm.

import (
	"bytes"
	"context"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

const alexaRequest = `{
  "version": "1.0",
  "session": {"new": true, "sessionId": "amzn1.echo-api.session.1", "application": {"applicationId": "amzn1.ask.skill.1"}},
  "request": {"type": "IntentRequest", "requestId": "amzn1.echo-api.request.1", "timestamp": "2026-01-01T00:00:00Z", "locale": "en-GB",
    "intent": {"name": "HostnameIntent", "slots": {}}}
}`

// ways are the two ways in that name the function.
var ways = []struct {
	name string
	call func(function string) (path string, header http.Header)
}{
	{"by path", func(function string) (string, http.Header) { return "/function/" + function, nil }},
	{"by header", func(function string) (string, http.Header) { return "/", http.Header{"X-Function": {function}} }},
}

func TestInvoke(t *testing.T) {
	l := useLab(t)
	g := startGateway(t, l.node(1))
	file := randomBytes(5 << 20)

	t.Run("catservice", func(t *testing.T) {
		// As the README creates it; the virtual IP of this mode is not used.
		createFunction(t, l, "catservice", catImage, "--replicas", "3", "--replicas-max-per-node", "1")
		waitReplicas(t, l, "catservice", 3)
		g.waitAnswer(t, "catservice")
		before := g.metric(t, "gateway_function_invocation_total", `function_name="catservice"`, `code="200"`)
		const rounds = 6
		for _, way := range ways {
			t.Run(way.name, func(t *testing.T) {
				path, header := way.call("catservice")
				for range rounds {
					a := g.post(t, path, header, file)
					if a.status != http.StatusOK {
						t.Fatalf("got status %d: %s", a.status, firstLine(a.body))
					}
					if err := diff(file, a.body); err != nil {
						t.Error(err)
					}
				}
			})
		}
		after := g.metric(t, "gateway_function_invocation_total", `function_name="catservice"`, `code="200"`)
		if got, want := after-before, float64(rounds*len(ways)); got != want {
			t.Errorf("got %v invocations counted, want %v", got, want)
		}
	})

	for _, mode := range []string{"vip", "dnsrr"} {
		t.Run("every node "+mode, func(t *testing.T) {
			// A replica's host name is its node's, and it answers with that
			// first and the body after it.
			createFunction(t, l, "where", catImage, "--replicas", "3", "--replicas-max-per-node", "1", "--endpoint-mode", mode,
				"--hostname", "{{.Node.Hostname}}", "--env", `fprocess=sh -c "hostname; cat"`)
			waitReplicas(t, l, "where", 3)
			g.waitAnswer(t, "where")
			counts := newTable("5 MiB through a function with a replica on each node, endpoint mode "+mode, "node", "by path", "by header")
			answers := make(map[string]map[string]int)
			for _, way := range ways {
				path, header := way.call("where")
				missing := func(n *node) bool { return answers[n.name][way.name] == 0 }
				for i := 0; i < 12 || i < 60 && slices.ContainsFunc(l.nodes, missing); i++ { // replicas are chosen at random
					a := g.post(t, path, header, file)
					if a.status != http.StatusOK {
						t.Fatalf("%s: got status %d: %s", way.name, a.status, firstLine(a.body))
					}
					name, body, _ := bytes.Cut(a.body, []byte("\n"))
					if err := diff(file, body); err != nil {
						t.Fatalf("%s, %s: %v", way.name, name, err)
					}
					if answers[string(name)] == nil {
						answers[string(name)] = make(map[string]int)
					}
					answers[string(name)][way.name]++
				}
			}
			for _, n := range l.nodes {
				counts.row(n.name, answers[n.name]["by path"], answers[n.name]["by header"])
				for _, way := range ways {
					if answers[n.name][way.name] == 0 {
						t.Errorf("%s: no answer from %s", way.name, n.name)
					}
				}
				delete(answers, n.name)
			}
			if len(answers) != 0 {
				t.Errorf("got answers from %v, which are no nodes", answers)
			}
			counts.print(t)
		})
	}

	t.Run("alexa", func(t *testing.T) {
		createFunction(t, l, "HostnameIntent", intentImage)
		waitReplicas(t, l, "HostnameIntent", 1)
		g.waitAnswer(t, "HostnameIntent")
		before := g.metric(t, "gateway_function_invocation_total", `function_name="HostnameIntent"`, `code="200"`)
		a := g.post(t, "/", http.Header{"Content-Type": {"application/json"}}, []byte(alexaRequest))
		if a.status != http.StatusOK {
			t.Fatalf("got status %d: %s", a.status, firstLine(a.body))
		}
		if got, want := a.header.Get("Content-Type"), "application/json"; got != want {
			t.Errorf("got content type %q, want %q", got, want)
		}
		var said struct {
			Version  string
			Response struct {
				OutputSpeech struct{ Type, Text string }
			}
		}
		if err := json.Unmarshal(a.body, &said); err != nil {
			t.Fatalf("got %q, want JSON: %v", a.body, err)
		}
		if said.Version != "1.0" || said.Response.OutputSpeech.Type != "PlainText" ||
			!regexp.MustCompile(`^Your hostname is [0-9a-f]+\.$`).MatchString(said.Response.OutputSpeech.Text) {
			t.Errorf("got %s, want the container's host name as plain text", a.body)
		}
		if got := g.metric(t, "gateway_function_invocation_total", `function_name="HostnameIntent"`, `code="200"`) - before; got != 1 {
			t.Errorf("got %v invocations counted, want 1", got)
		}
	})

	t.Run("no such function", func(t *testing.T) {
		for _, way := range ways {
			path, header := way.call("nosuch")
			a := g.post(t, path, header, nil)
			if got, want := strings.TrimSpace(string(a.body)), `function "nosuch" not found`; a.status != http.StatusNotFound || got != want {
				t.Errorf("%s: got status %d and %q, want 404 and %q", way.name, a.status, got, want)
			}
		}
	})

	t.Run("gone", func(t *testing.T) {
		createFunction(t, l, "shortlived", catImage)
		waitReplicas(t, l, "shortlived", 1)
		g.waitAnswer(t, "shortlived")
		l.docker(t, "service", "rm", "shortlived")
		g.waitStatus(t, "/function/shortlived", http.StatusNotFound)
	})
}

// A steady load is answered in full by three replicas, and none of them idles.
func TestSteadyLoad(t *testing.T) {
	l := useLab(t)
	g := startGateway(t, l.node(1))
	createFunction(t, l, "steady", catImage, "--replicas", "3", "--replicas-max-per-node", "1",
		"--label", "com.openfaas.scale.min=3", "--label", "com.openfaas.scale.max=3",
		"--hostname", "{{.Node.Hostname}}", "--env", `fprocess=sh -c "hostname; cat"`)
	waitReplicas(t, l, "steady", 3)
	g.waitAnswer(t, "steady")
	ctx, cancel := context.WithTimeout(t.Context(), readyTimeout)
	defer cancel()
	// The first that accepts releases whoever waits; the others are found a
	// second later.
	if err := poll(ctx, 50*time.Millisecond, func() bool {
		return g.metric(t, "gateway_service_count", `function_name="steady"`) == 3
	}); err != nil {
		t.Fatalf("wait until the gateway knows all replicas of steady: %v", err)
	}

	oneThousand := func(number int) []byte { return bytes.Repeat([]byte{byte(number)}, 1000) }
	answered := make(chan string, 600)
	report := startLoad(t, loadConfig{
		url: g.url + "/function/steady", rate: g.steadyRate(t, "steady", oneThousand), callers: 32, count: cap(answered), duration: readyTimeout, timeout: readyTimeout,
		body: oneThousand,
		check: func(_ int, sent, got []byte) error {
			name, body, _ := bytes.Cut(got, []byte("\n"))
			answered <- string(name)
			return diff(sent, body)
		},
	}).wait()
	close(answered)

	loads := newLoadTable("A steady load on three replicas")
	loads.load("1,000 bytes each way, a process each", report)
	loads.print(t)
	if failed := report.failed(); len(failed) != 0 || len(report.results) != cap(answered) {
		t.Errorf("got %d of %d right, want %d; the first that failed: %+v",
			len(report.results)-len(failed), len(report.results), cap(answered), failed[:min(1, len(failed))])
	}
	counts := make(map[string]int)
	for name := range answered {
		counts[name]++
	}
	for _, n := range l.nodes {
		if got, want := counts[n.name], cap(answered)/4; got < want {
			t.Errorf("got %d answers from %s, want at least %d: %v", got, n.name, want, counts)
		}
	}
}

// randomBytes returns n bytes that do not compress, the same on every run.
func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{}).Read(b)
	return b
}
