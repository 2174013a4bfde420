package e2e

// Ways in that functions ask for by their labels: routes of their own, Alexa's
// intents and skills. And what -alexa-verify turns away.

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// routeLimit is how long a route may take from the service's creation to its
// first answer, where Swarm is not slower itself.
const routeLimit = 2 * time.Second

// telling is a function that says which one it is, what it was asked for, and
// what it got.
func telling(name string) string {
	return fmt.Sprintf(`fprocess=sh -c 'echo "%s: $Http_Method $Http_Path id=$Http_X_Route_Id"; cat'`, name)
}

func TestRoutes(t *testing.T) {
	l := useLab(t)
	g := startGateway(t, l.node(1))
	const label, path = "faas.route=POST /orders/{id}", "/orders/17%2F4?paid=1"

	if a := g.post(t, path, nil, nil); a.status != http.StatusNotFound {
		t.Fatalf("got status %d where no function has the route, want 404", a.status)
	}
	createFunction(t, l, "orders", catImage, "--label", label, "--env", telling("orders"))
	g.waitStatus(t, path, http.StatusOK)
	now, created, running := time.Now(), l.created(t, "orders"), l.running(t, "orders")
	times := newTable("A service created with --label '"+label+"'", "", "after")
	times.row("running", running.Sub(created).Round(time.Millisecond))
	times.row("answers at its route", now.Sub(created).Round(time.Millisecond))
	if limit := max(routeLimit, running.Sub(created)+routeLimit/2); now.Sub(created) > limit {
		t.Errorf("got the first answer %v after the creation, want it within %v", now.Sub(created), limit)
	}
	a := g.post(t, path, http.Header{"X-Route-Id": {"forged"}}, []byte("two of each"))
	if got, want := string(a.body), "orders: POST /orders/17%2F4 id=17/4\ntwo of each"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if a, err := g.call(t.Context(), http.MethodGet, path, nil, nil); err != nil || a.status != http.StatusMethodNotAllowed || a.header.Get("Allow") != "POST" {
		t.Errorf("GET: got status %d, Allow %q, %v; want 405 and POST", a.status, a.header.Get("Allow"), err)
	}

	t.Run("two claimants", func(t *testing.T) {
		createFunction(t, l, "younger", catImage, "--label", label, "--env", telling("younger"))
		g.waitAnswer(t, "younger") // by name, which it keeps
		for range 5 {
			if a := g.post(t, path, nil, nil); !strings.HasPrefix(string(a.body), "orders:") {
				t.Fatalf("got %d %q, want the older service's answer", a.status, firstLine(a.body))
			}
		}
		if got := g.metric(t, "gateway_route_conflicts"); got != 1 {
			t.Errorf("got %v conflicts, want 1", got)
		}
		lines := g.waitLines(t, "label rejected", "service younger", "service orders is older")
		if len(lines) != 1 {
			t.Errorf("got %d lines about it in the log, want 1: %q", len(lines), lines)
		}
		t.Logf("the operator sees: %s", lines)

		l.docker(t, "service", "rm", "orders")
		removed := time.Now()
		if err := pollFor(t, func() bool { return strings.HasPrefix(string(g.post(t, path, nil, nil).body), "younger:") }); err != nil {
			t.Fatalf("the route has not gone to the younger service: %v", err)
		}
		times.row("goes to the younger claimant when the older is removed", time.Since(removed).Round(time.Millisecond))
		if got := g.metric(t, "gateway_route_conflicts"); got != 0 {
			t.Errorf("got %v conflicts after the older one is gone, want 0", got)
		}
		l.docker(t, "service", "rm", "younger")
		removed = time.Now()
		g.waitStatus(t, path, http.StatusNotFound)
		stopped := time.Since(removed)
		times.row("stops when the service is removed", stopped.Round(time.Millisecond))
		if stopped > routeLimit {
			t.Errorf("the route was there %v after its service, want at most %v", stopped, routeLimit)
		}
	})
	times.print(t)
}

// alexaCall is a request of the Alexa Skills Kit of the given type; the intent
// may be empty.
func alexaCall(kind, intent, skill string) []byte {
	request := fmt.Sprintf(`"type": %q, "requestId": "amzn1.echo-api.request.1", "timestamp": "2026-01-01T00:00:00Z"`, kind)
	if intent != "" {
		request += fmt.Sprintf(`, "intent": {"name": %q}`, intent)
	}
	return fmt.Appendf(nil, `{"version": "1.0",  "session": {"sessionId": "s", "application": {"applicationId": %q}}, "request": {%s}}`, skill, request)
}

func TestAlexaLabels(t *testing.T) {
	l := useLab(t)
	g := startGateway(t, l.node(1))
	const skill, other = "amzn1.ask.skill.1", "amzn1.ask.skill.2"
	createFunction(t, l, "helper", catImage, "--env", telling("helper"), "--label", "faas.alexa.intent=AMAZON.HelpIntent,AMAZON.StopIntent")
	createFunction(t, l, "launcher", catImage, "--env", telling("launcher"), "--label", "faas.alexa.application="+skill)
	g.waitAnswer(t, "helper")
	g.waitAnswer(t, "launcher")

	reached := newTable("Alexa requests by label", "request", "intent", "skill", "answer")
	for _, tt := range []struct {
		kind, intent, skill string
		want                string // function; "": 404
	}{
		{"IntentRequest", "AMAZON.HelpIntent", skill, "helper"},
		{"IntentRequest", "AMAZON.StopIntent", other, "helper"},
		{"LaunchRequest", "", skill, "launcher"},
		{"SessionEndedRequest", "", skill, "launcher"},
		{"CanFulfillIntentRequest", "", skill, "launcher"},
		{"IntentRequest", "launcher", skill, "launcher"}, // by its name
		{"IntentRequest", "NoSuchIntent", skill, ""},
		{"LaunchRequest", "", other, ""},
	} {
		body := alexaCall(tt.kind, tt.intent, tt.skill)
		a := g.post(t, "/", http.Header{"Content-Type": {"application/json"}}, body)
		reached.row(tt.kind, tt.intent, tt.skill, fmt.Sprintf("%d %s", a.status, firstLine(a.body)))
		if tt.want == "" {
			if a.status != http.StatusNotFound {
				t.Errorf("%s %s of %s: got status %d, want 404", tt.kind, tt.intent, tt.skill, a.status)
			}
			continue
		}
		line, got, _ := bytes.Cut(a.body, []byte("\n"))
		if a.status != http.StatusOK || !strings.HasPrefix(string(line), tt.want+":") {
			t.Errorf("%s %s of %s: got %d %q, want an answer of %s", tt.kind, tt.intent, tt.skill, a.status, line, tt.want)
			continue
		}
		if err := diff(body, got); err != nil {
			t.Errorf("%s %s: the function did not get the body as it was sent: %v", tt.kind, tt.intent, err)
		}
	}
	reached.print(t)

	t.Run("verify", func(t *testing.T) {
		// The certificate authorities come with the image.
		g := startGateway(t, l.node(2), "-alexa-verify", "-alexa-application", skill)
		g.waitAnswer(t, "helper")
		before := g.metric(t, "gateway_function_invocation_started", `function_name="helper"`)
		refusals := newTable("Requests that are not Amazon's, under -alexa-verify", "request", "answer")
		chain := func(url string) http.Header {
			return http.Header{"SignatureCertChainUrl": {url}, "Signature-256": {"c2lnbmVk"}}
		}
		for _, tt := range []struct {
			name   string
			header http.Header
			skill  string
			reason string
		}{
			{"unsigned", nil, skill, "signature_missing"},
			{"a chain of somebody else", chain("https://s3.example.com/echo.api/chain.pem"), skill, "url_host"},
			{"a chain over http", chain("http://s3.amazonaws.com/echo.api/chain.pem"), skill, "url_scheme"},
			{"a path that leads out", chain("https://s3.amazonaws.com/echo.api/../chain.pem"), skill, "url_path"},
			{"another skill", nil, other, "skill"},
		} {
			counted := g.metric(t, "gateway_alexa_refusals_total", fmt.Sprintf("reason=%q", tt.reason))
			body := bytes.Replace(alexaCall("IntentRequest", "AMAZON.HelpIntent", tt.skill), []byte("2026-01-01T00:00:00Z"),
				[]byte(time.Now().UTC().Format(time.RFC3339)), 1)
			a := g.post(t, "/", tt.header, body)
			refusals.row(tt.name, fmt.Sprintf("%d %s", a.status, firstLine(a.body)))
			if a.status != http.StatusBadRequest || !strings.HasSuffix(strings.TrimSpace(string(a.body)), ": "+tt.reason) {
				t.Errorf("%s: got %d %q, want 400 and the reason %s", tt.name, a.status, firstLine(a.body), tt.reason)
			}
			if got := g.metric(t, "gateway_alexa_refusals_total", fmt.Sprintf("reason=%q", tt.reason)) - counted; got != 1 {
				t.Errorf("%s: got %v counted as %s, want 1", tt.name, got, tt.reason)
			}
		}
		refusals.print(t)
		if got := g.metric(t, "gateway_function_invocation_started", `function_name="helper"`) - before; got != 0 {
			t.Errorf("got %v invocations, want none", got)
		}
	})
}

// created returns when Swarm took a service.
func (l *lab) created(t testing.TB, service string) time.Time {
	t.Helper()
	return l.serviceTime(t, "CreatedAt", service)
}

// running returns since when a service with one task runs.
func (l *lab) running(t testing.TB, service string) time.Time {
	t.Helper()
	task := l.docker(t, "service", "ps", "--quiet", "--filter", "desired-state=running", service)
	return parseTime(t, l.docker(t, "inspect", "--type", "task", "--format", "{{.Status.Timestamp.Format \""+time.RFC3339Nano+"\"}}", task))
}

// serviceTime returns a time that Swarm keeps of a service.
func (l *lab) serviceTime(t testing.TB, field, service string) time.Time {
	t.Helper()
	return parseTime(t, l.docker(t, "service", "inspect", "--format", "{{."+field+".Format \""+time.RFC3339Nano+"\"}}", service))
}

func parseTime(t testing.TB, s string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		t.Fatal(err)
	}
	return at
}
