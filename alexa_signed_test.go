package main

// Signed Alexa requests and forged ones, through a whole gateway.

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"faas/internal/alexa"
	"faas/internal/alexa/alexatest"
)

func TestAlexaVerifyAccepts(t *testing.T) {
	a := alexatest.NewAmazon(t)
	for _, skills := range [][]string{nil, {"amzn1.ask.skill.other", alexatest.Skill}} {
		g := startSkillGateway(t, gatewayVerifier(t, a, func() time.Time { return alexatest.Now }, skills...))
		for _, tt := range alexatest.Acceptable(t) {
			t.Run(fmt.Sprintf("%s, %d skills", tt.Name, len(skills)), func(t *testing.T) {
				r := g.request(t)
				tt.Change(r)
				g.mustPass(t, "/", r)
			})
		}
	}
	for _, path := range a.Requests() {
		if path != "/echo.api/cert.pem" {
			t.Errorf("got a request for %q, want the normalised path alone", path)
		}
	}
}

// Each case breaks one rule, and the gateway does not call the function.
func TestAlexaForgeries(t *testing.T) {
	a := alexatest.NewAmazon(t)
	var report strings.Builder
	table := tabwriter.NewWriter(&report, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "forgery\treason")
	seen := map[string]bool{}
	row := func(name, reason string) {
		seen[reason] = true
		fmt.Fprintf(table, "%s\t%s\n", name, reason)
	}
	g := startSkillGateway(t, gatewayVerifier(t, a, func() time.Time { return alexatest.Now }, alexatest.Skill))
	refusals := map[string]int{}
	mustRefuse := func(t *testing.T, name, reason string, r *alexatest.SignedBody) {
		t.Helper()
		calls := len(g.got())
		code, answer := g.send(t, "/", r)
		if want := alexaRefusalText + reason + "\n"; code != http.StatusBadRequest || answer != want {
			t.Errorf("got %d %q, want 400 %q", code, answer, want)
		}
		if n := len(g.got()) - calls; n != 0 {
			t.Errorf("got %d calls of the function, want none", n)
		}
		refusals[reason]++
		row(name, strings.TrimSpace(strings.TrimPrefix(answer, alexaRefusalText)))
	}
	for _, tt := range a.Forgeries(t) {
		t.Run(tt.Name, func(t *testing.T) {
			r := g.request(t)
			tt.Change(r)
			mustRefuse(t, tt.Name, tt.Reason, r)
			g.mustPass(t, "/", g.request(t)) // what is right is still taken
		})
	}
	for name, change := range map[string]func(*alexatest.SignedBody){
		"replayed":                    func(*alexatest.SignedBody) {},
		"replayed by Signature alone": func(r *alexatest.SignedBody) { r.Header.Del("Signature-256") },
	} {
		t.Run(name, func(t *testing.T) {
			r := g.request(t)
			g.mustPass(t, "/", r)
			change(r)
			mustRefuse(t, name, "replayed", r)
		})
	}
	_, metrics := call(t, "GET", g.base+"/metrics", "")
	for reason, n := range refusals {
		if want := fmt.Sprintf("gateway_alexa_refusals_total{reason=%q} %d\n", reason, n); !strings.Contains(metrics, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	table.Flush()
	t.Logf("every forgery got 400 and no function was called:\n%s", report.String())
	for _, reason := range alexa.Reasons() {
		if !seen[reason] {
			t.Errorf("no forgery has the reason %q", reason)
		}
	}
	for _, path := range a.Requests() {
		if !strings.HasPrefix(path, "/echo.api/") {
			t.Errorf("got a request for %q, want none outside %s", path, "/echo.api/")
		}
	}
}
