package main

// Alexa requests on their way through a whole gateway.

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"faas/internal/alexa"
	"faas/internal/alexa/alexatest"
)

// What the gateway says before the reason of a refusal.
const alexaRefusalText = "this request does not pass the checks of the Alexa Skills Kit: "

// gatewayVerifier returns a verifier that asks a for chains.
func gatewayVerifier(t testing.TB, a *alexatest.Amazon, now func() time.Time, skills ...string) *alexa.Verifier {
	t.Helper()
	v, err := alexa.NewVerifier(alexa.Options{Applications: skills, Roots: a.Roots, Transport: a.Transport, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// A skillGateway is a gateway with the function HostnameIntent behind it.
type skillGateway struct {
	base string
	made int // requests

	mu     sync.Mutex
	bodies []string // that the function got
}

// startSkillGateway starts one that checks Alexa requests with v, nil for no
// checks, until the test ends.
func startSkillGateway(t *testing.T, v *alexa.Verifier, args ...string) *skillGateway {
	t.Helper()
	g := new(skillGateway)
	p := newMemoryProvider()
	p.set("HostnameIntent", nil, startReplica(t, func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("the function's body: %v", err)
		}
		g.mu.Lock()
		g.bodies = append(g.bodies, string(b))
		g.mu.Unlock()
		io.WriteString(w, "hello")
	}))
	g.base = "http://" + startGatewayVerifying(t, p, v, nil, args...)
	return g
}

// request returns a signed request that was not sent before.
func (g *skillGateway) request(t testing.TB) *alexatest.SignedBody {
	t.Helper()
	g.made++
	r := alexatest.SignedRequest(t)
	r.Set(t, "requestId", fmt.Sprintf("request-%d", g.made))
	return r
}

func (g *skillGateway) send(t *testing.T, path string, r *alexatest.SignedBody) (code int, answer string) {
	t.Helper()
	var header []string
	for name, values := range r.Header {
		for _, v := range values {
			header = append(header, name, v)
		}
	}
	resp, answer := call(t, "POST", g.base+path, string(r.Body), header...)
	return resp.StatusCode, answer
}

// got returns the bodies that the function got so far.
func (g *skillGateway) got() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.bodies)
}

// mustPass sends r and checks that the function got it byte for byte.
func (g *skillGateway) mustPass(t *testing.T, path string, r *alexatest.SignedBody) {
	t.Helper()
	before := len(g.got())
	if code, answer := g.send(t, path, r); code != http.StatusOK || answer != "hello" {
		t.Fatalf("got %d %q, want 200 and the function's answer", code, answer)
	}
	got := g.got()[before:]
	if len(got) != 1 {
		t.Fatalf("got %d calls of the function, want 1", len(got))
	}
	if got[0] != string(r.Body) {
		t.Errorf("the function got %q, want the bytes that were signed, %q", got[0], r.Body)
	}
}

// On a path of its own Alexa is answered there, with the same checks, and
// nowhere else.
func TestAlexaRoute(t *testing.T) {
	a := alexatest.NewAmazon(t)
	g := startSkillGateway(t, gatewayVerifier(t, a, func() time.Time { return alexatest.Now }), "-alexa-route", "/alexa")
	g.mustPass(t, "/alexa", g.request(t))

	forged := g.request(t)
	forged.Sign(alexatest.OtherKey())
	before := len(g.got())
	if code, answer := g.send(t, "/alexa", forged); code != http.StatusBadRequest || answer != alexaRefusalText+"signature_wrong"+"\n" {
		t.Errorf("forged: got %d %q, want 400 %q", code, answer, "signature_wrong")
	}
	for _, path := range []string{"/", "/alexa/", "/Alexa", "/%61lexa"} {
		if code, _ := g.send(t, path, g.request(t)); code != http.StatusBadRequest && code != http.StatusNotFound {
			t.Errorf("%s: got %d, want 400 or 404", path, code)
		}
	}
	for _, method := range []string{"GET", "HEAD", "PUT", "OPTIONS"} {
		resp, _ := call(t, method, g.base+"/alexa", "")
		if resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != "POST" {
			t.Errorf("%s: got %d, Allow %q, want 405 and POST", method, resp.StatusCode, resp.Header.Get("Allow"))
		}
	}
	for _, body := range []string{"", "hello", "{}", `{"request":{"type":"IntentRequest"}}`, alexatest.Padded(alexa.MaxBody + 1)} {
		resp, answer := call(t, "POST", g.base+"/alexa", body)
		if resp.StatusCode != http.StatusBadRequest || !strings.Contains(answer, "only requests of the Alexa Skills Kit") {
			t.Errorf("a body of %d bytes: got %d %q, want 400", len(body), resp.StatusCode, answer)
		}
	}
	if n := len(g.got()) - before; n != 0 {
		t.Errorf("got %d calls of the function, want none", n)
	}
}

// A function's route that -alexa-route covers is counted as a label at fault.
func TestAlexaRouteTakesNoOthersRoute(t *testing.T) {
	p := newMemoryProvider()
	p.set("shadowed", func(d *definition) { d.claim(labelRoute, []string{"/alexa"}) }, startReplica(t, echoReplica))
	base := startGateway(t, p, "-alexa-route", "/alexa")
	if resp, _ := call(t, "POST", base+"/alexa", "hello"); resp.StatusCode != http.StatusBadRequest {
		t.Errorf("got %d, want 400", resp.StatusCode)
	}
	_, metrics := call(t, "GET", base+"/metrics", "")
	if want := "gateway_label_errors_total 1\n"; !strings.Contains(metrics, want) {
		t.Errorf("metrics lack %q", want)
	}
}

// A function's route at / gets a stream as it comes, even one that begins as
// an Alexa request does.
func TestStreamIsNotHeldBackForAlexa(t *testing.T) {
	p := newMemoryProvider()
	begun := make(chan string, 1)
	p.set("stream", func(d *definition) { d.claim(labelRoute, []string{"POST /{$}"}) }, startReplica(t, func(w http.ResponseWriter, r *http.Request) {
		first := make([]byte, 5)
		io.ReadFull(r.Body, first)
		begun <- string(first)
		io.Copy(w, r.Body)
	}))
	base := startGateway(t, p)
	body, send := io.Pipe()
	late := time.AfterFunc(20*time.Second, func() { send.CloseWithError(errors.New("the function got nothing of the body")) })
	defer late.Stop()
	go func() {
		io.WriteString(send, `{"a":`)
		select {
		case first := <-begun:
			io.WriteString(send, first) // back to the function, and from there to the test
			send.Close()
		case <-t.Context().Done():
		}
	}()
	resp, err := http.Post(base+"/", "application/json", body)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got, err := io.ReadAll(resp.Body); err != nil || string(got) != `{"a":` {
		t.Errorf("got %q, %v, want what the function got while the body was still being sent", got, err)
	}
}

// Alexa requests without a length are none on /, and are taken on a path that
// is Alexa's alone.
func TestAlexaWithoutLength(t *testing.T) {
	for _, tt := range []struct {
		route  string
		status int
	}{{"/", http.StatusBadRequest}, {"/alexa", http.StatusOK}} {
		g := startSkillGateway(t, nil, "-alexa-route", tt.route)
		want := alexatest.Body(t, "intent")
		resp, err := http.Post(g.base+tt.route, "application/json", io.MultiReader(bytes.NewReader(want)))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != tt.status {
			t.Errorf("%s: got %d, want %d", tt.route, resp.StatusCode, tt.status)
		}
		if got := g.got(); tt.status == http.StatusOK && (len(got) != 1 || got[0] != string(want)) {
			t.Errorf("%s: the function got %q, want the request once", tt.route, got)
		}
	}
}
