package main

// Which Alexa requests are taken again, and for how long: those that did not
// succeed, and skill events, which Amazon repeats for an hour.

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"faas/internal/alexa/alexatest"
)

// A fickleSkill is a gateway that checks signatures, before a function that
// answers as it is told.
type fickleSkill struct {
	base  string
	clock atomic.Int64 // seconds after alexatest.Now
	made  int
}

func startFickleSkill(t *testing.T, limit time.Duration, f http.HandlerFunc) *fickleSkill {
	t.Helper()
	s := new(fickleSkill)
	a := alexatest.NewAmazon(t)
	v := gatewayVerifier(t, a, func() time.Time { return alexatest.Now.Add(time.Duration(s.clock.Load()) * time.Second) })
	p := newMemoryProvider()
	p.set("HostnameIntent", func(d *definition) {
		d.claim(labelApplication, []string{alexatest.Skill})
		d.timeout = limit
		d.maxInflight = 1
	}, startReplica(t, f))
	s.base = "http://" + startGatewayVerifying(t, p, v, nil)
	return s
}

// request returns one that was not sent before, of the kind and so old.
func (s *fickleSkill) request(t *testing.T, kind string, age time.Duration) *alexatest.SignedBody {
	t.Helper()
	s.made++
	r := alexatest.SignedRequest(t)
	r.Set(t, "requestId", fmt.Sprintf("request-%d", s.made))
	r.Set(t, "type", kind)
	r.Retime(t, alexatest.Now.Add(-age).Format(time.RFC3339))
	return r
}

// mustAnswer sends r and checks the status, and the reason of a refusal.
func (s *fickleSkill) mustAnswer(t *testing.T, r *alexatest.SignedBody, status int, reason string) {
	t.Helper()
	g := skillGateway{base: s.base}
	code, answer := g.send(t, "/", r)
	if got := strings.TrimSuffix(strings.TrimPrefix(answer, alexaRefusalText), "\n"); code != status || reason != "" && got != reason {
		t.Fatalf("got %d %q, want %d %q", code, answer, status, reason)
	}
}

// Amazon sends again what was not accepted. It is let through until a function
// has accepted it, once.
func TestAnAlexaRequestThatFailedIsTakenAgain(t *testing.T) {
	var next atomic.Value // of http.HandlerFunc
	s := startFickleSkill(t, 2*time.Second, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		next.Load().(http.HandlerFunc)(w, r)
	})
	abort := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Write(make([]byte, 100<<10))
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	for _, kind := range []string{"IntentRequest", "LaunchRequest", "AlexaSkillEvent.SkillEnabled"} {
		t.Run(kind, func(t *testing.T) {
			r := s.request(t, kind, time.Second)
			for _, code := range []int{500, 503, 429, 400} { // as the function's own answer
				next.Store(status(code))
				s.mustAnswer(t, r, code, "")
			}
			if kind == "IntentRequest" { // it takes its time
				next.Store(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
				s.mustAnswer(t, r, http.StatusGatewayTimeout, "")
			}
			next.Store(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
			s.mustAnswer(t, r, http.StatusBadGateway, "")

			next.Store(abort)
			c := dialRaw(t, s.base)
			c.send("%s", raw(r))
			resp, err := http.ReadResponse(c.br, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, resp.Body); err == nil {
				t.Error("an answer that broke off: got all of it, want an error")
			}

			next.Store(status(204))
			s.mustAnswer(t, r, 204, "")
			for range 2 {
				s.mustAnswer(t, r, http.StatusBadRequest, "replayed")
			}
		})
	}
}

// raw is a signed request as bytes.
func raw(r *alexatest.SignedBody) string {
	head := fmt.Sprintf("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n", len(r.Body))
	for name := range r.Header {
		head += name + ": " + r.Header.Get(name) + "\r\n"
	}
	return head + "\r\n" + string(r.Body)
}

// A request that is being answered counts as having been here: two of the same
// at a time could both succeed. So does one that found no function or no place,
// for no longer than that.
func TestAnAlexaRequestInProgressIsRefusedAgain(t *testing.T) {
	inside, release := make(chan struct{}, 1), make(chan int)
	s := startFickleSkill(t, 15*time.Second, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		inside <- struct{}{}
		select {
		case code := <-release:
			w.WriteHeader(code)
		case <-r.Context().Done():
		}
	})
	first, other := s.request(t, "IntentRequest", 0), s.request(t, "IntentRequest", 0)
	lost := s.request(t, "IntentRequest", 0)
	lost.Body = []byte(strings.Replace(string(lost.Body), "HostnameIntent", "NoSuchIntent", 1))
	lost.Sign(alexatest.SigningKey())
	for range 2 {
		s.mustAnswer(t, lost, http.StatusNotFound, "no function for this intent")
	}

	done := make(chan struct{})
	c := dialRaw(t, s.base)
	c.send("%s", raw(first))
	go func() {
		defer close(done)
		if resp, err := http.ReadResponse(c.br, nil); err != nil || resp.StatusCode/100 != 5 {
			t.Errorf("the first: got %v, %v, want a 5xx", resp, err)
		}
	}()
	<-inside
	s.mustAnswer(t, first, http.StatusBadRequest, "replayed")
	s.mustAnswer(t, other, http.StatusTooManyRequests, "")
	release <- 500
	<-done

	for _, r := range []*alexatest.SignedBody{first, other} {
		go func() {
			<-inside
			select {
			case release <- 200:
			case <-t.Context().Done():
			}
		}()
		s.mustAnswer(t, r, http.StatusOK, "")
		s.mustAnswer(t, r, http.StatusBadRequest, "replayed")
	}
}

// A skill event may be an hour old, and is known for that long.
func TestSkillEventsMayBeAnHourOld(t *testing.T) {
	s := startFickleSkill(t, 15*time.Second, func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })
	for _, tt := range []struct {
		kind   string
		age    time.Duration
		status int
		reason string
	}{
		{"AlexaSkillEvent.SkillEnabled", 3600 * time.Second, 200, ""},
		{"AlexaSkillEvent.ProactiveSubscriptionChanged", 3600 * time.Second, 200, ""},
		{"AlexaSkillEvent.SkillEnabled", 3601 * time.Second, 400, "timestamp_old"},
		{"AlexaSkillEvent.SkillEnabled", -alexatest.Tolerance, 200, ""},
		{"AlexaSkillEvent.SkillEnabled", -alexatest.Tolerance - time.Second, 400, "timestamp_future"},
		{"LaunchRequest", alexatest.Tolerance, 200, ""},
		{"LaunchRequest", alexatest.Tolerance + time.Second, 400, "timestamp_old"},
		{"AlexaSkillEvents", alexatest.Tolerance + time.Second, 400, "timestamp_old"},
		{"Messaging.MessageReceived", alexatest.Tolerance + time.Second, 400, "timestamp_old"},
	} {
		t.Run(fmt.Sprint(tt.kind, " ", tt.age), func(t *testing.T) {
			s.mustAnswer(t, s.request(t, tt.kind, tt.age), tt.status, tt.reason)
		})
	}

	// One that is timed ahead stays good longest. Others come in between.
	event := s.request(t, "AlexaSkillEvent.SkillDisabled", -alexatest.Tolerance)
	s.mustAnswer(t, event, 200, "")
	for minute := range 62 {
		s.clock.Store(int64(minute) * 60)
		s.mustAnswer(t, event, 400, "replayed")
		s.mustAnswer(t, s.request(t, "LaunchRequest", -time.Duration(minute)*time.Minute), 200, "")
		s.mustAnswer(t, s.request(t, "AlexaSkillEvent.SkillEnabled", -time.Duration(minute)*time.Minute), 200, "")
	}
	s.clock.Store(int64((alexatest.Tolerance + time.Hour) / time.Second))
	s.mustAnswer(t, event, 400, "replayed")
	s.clock.Add(1)
	s.mustAnswer(t, event, 400, "timestamp_old")
}
