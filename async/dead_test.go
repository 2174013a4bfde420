package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// deadLetters lists them over HTTP, without a login: this machine may.
func (s *testService) deadLetters(t testing.TB, query string) []deadLetter {
	t.Helper()
	r := ask(t, "GET", s.url+"/system/async/dead"+query, "")
	var list []deadLetter
	if err := json.Unmarshal([]byte(r.body), &list); err != nil || r.code != 200 {
		t.Fatalf("got %d %s, want a list", r.code, r.body)
	}
	return list
}

// What was given up keeps request, last answer and reason, runs again when
// told to, and is dropped when told to.
func TestDeadLetters(t *testing.T) {
	g, got := newStandIn(t), &keep{}
	var well atomic.Bool
	fail := func(w http.ResponseWriter, r *http.Request) {
		got.add(r)
		if well.Load() {
			return
		}
		w.Header().Set("X-Why", "because")
		w.WriteHeader(500)
		io.WriteString(w, "it is "+strings.Repeat("bad", keptAnswer))
	}
	g.function("a", with(quick, labelAttempts, "2"), fail)
	g.function("b.c", with(quick, labelAttempts, "1"), fail)
	s := startBoth(t, g)
	if list := s.deadLetters(t, ""); len(list) != 0 {
		t.Fatalf("got %v, want none", list)
	}
	id := s.call(t, "a/path?q=1", "body of a", "X-Mine", "1")
	s.awaitStatus(t, id, stateDead)
	for i := range 3 {
		s.awaitStatus(t, s.call(t, "b.c", fmt.Sprint("\xff", i)), stateDead)
	}
	list := s.deadLetters(t, "")
	if len(list) != 4 || len(s.deadLetters(t, "?function=b.c")) != 3 || len(s.deadLetters(t, "?limit=2")) != 2 || len(s.deadLetters(t, fmt.Sprint("?from=", list[3].ID))) != 1 {
		t.Fatalf("got %+v, want 4, 3 of them of b.c", list)
	}
	d := list[0]
	if d.Function != "a" || d.CallID != id || d.Kind != "call" || d.Attempts != 2 || d.Status != 500 || d.Reason != "status 500" || time.Since(d.Died) > time.Minute || d.Request != nil {
		t.Errorf("got %+v", d)
	}
	show := func(id uint64) (d deadLetter) {
		t.Helper()
		r := ask(t, "GET", fmt.Sprint(s.url, "/system/async/dead/", id), "")
		if err := json.Unmarshal([]byte(r.body), &d); err != nil || r.code != 200 {
			t.Fatalf("got %d %s", r.code, r.body)
		}
		return d
	}
	d = show(d.ID)
	if d.Request.Method != "POST" || d.Request.Path != "/path?q=1" || d.Request.Body != "body of a" || d.Request.Header.Get("X-Mine") != "1" {
		t.Errorf("got request %+v", d.Request)
	}
	if len(d.Answer.Body) != keptAnswer || !strings.HasPrefix(d.Answer.Body, "it is bad") || d.Answer.Header.Get("X-Why") != "because" {
		t.Errorf("got answer of %d bytes, %v, want %d", len(d.Answer.Body), d.Answer.Header, keptAnswer)
	}
	if d := show(list[1].ID); string(d.Request.Base64) != "\xff0" {
		t.Errorf("got %+v, want the bytes in base64", d.Request)
	}

	// Again, while it still fails: another dead letter in its place.
	if r := ask(t, "POST", fmt.Sprint(s.url, "/system/async/dead/", d.ID, "/run"), ""); r.code != 202 || r.header.Get("X-Call-Id") != id {
		t.Errorf("got %d %v, want 202 with the call's ID", r.code, r.header)
	}
	within(t, soon, "dead again", func() bool { l := s.deadLetters(t, "?function=a"); return len(l) == 1 && l[0].ID != d.ID })
	well.Store(true)
	if r := ask(t, "POST", s.url+"/system/async/dead/run?all=true", ""); r.code != 202 || strings.TrimSpace(r.body) != `{"run":4}` {
		t.Errorf("got %d %s, want 4 run", r.code, r.body)
	}
	s.awaitStatus(t, id, stateDone)
	within(t, soon, "all run", func() bool { return len(got.all()) == 2+3+2+4 && len(s.deadLetters(t, "")) == 0 })
	last := got.all()[10]
	if strings.HasPrefix(last.uri, "/function/a/") && (last.uri != "/function/a/path?q=1" || last.body != "body of a") {
		t.Errorf("got %+v, want the request as it was", last)
	}

	well.Store(false)
	for range 3 {
		s.awaitStatus(t, s.call(t, "b.c", "x"), stateDead)
	}
	dead := s.deadLetters(t, "")[0].ID
	for _, tt := range []struct {
		method, path string
		code         int
	}{
		{"DELETE", fmt.Sprint("/", dead), 204},
		{"DELETE", fmt.Sprint("/", dead), 404},
		{"GET", fmt.Sprint("/", dead), 404},
		{"POST", fmt.Sprint("/", dead, "/run"), 404},
		{"GET", "/x", 400},
		{"GET", "?limit=0", 400},
		{"GET", "?from=x", 400},
		{"DELETE", "", 400},
		{"POST", "/run", 400},
		{"DELETE", "?function=a", 204},
		{"PUT", "", 405},
	} {
		if r := ask(t, tt.method, s.url+"/system/async/dead"+tt.path, ""); r.code != tt.code {
			t.Errorf("%s %s: got %d %s, want %d", tt.method, tt.path, r.code, r.body, tt.code)
		}
	}
	if n := len(s.deadLetters(t, "")); n != 2 {
		t.Errorf("got %d left, want 2", n)
	}
	ask(t, "DELETE", s.url+"/system/async/dead?function=b.c", "")
	if n := len(s.deadLetters(t, "")); n != 0 {
		t.Errorf("got %d left, want none", n)
	}
	if log := s.log.String(); strings.Count(log, "audit: ") != 5 || strings.Contains(log, "body of a") {
		t.Error("want one line for each change, and no bodies")
	}
}

// A callback that was given up is a dead letter, too, and is posted again.
func TestDeadCallback(t *testing.T) {
	g, got := newStandIn(t), &keep{}
	g.function("fn", with(quick, labelAttempts, "1"), func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "answer") })
	var well atomic.Bool
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !well.Load() {
			w.WriteHeader(500)
			return
		}
		got.add(r)
	}))
	defer receiver.Close()
	s := startBoth(t, g, "-callback-allow", "127.0.0.1/32")
	id := s.call(t, "fn", "x", "X-Callback-Url", receiver.URL+"/here")
	within(t, soon, "dead", func() bool { return len(s.deadLetters(t, "")) == 1 })
	if st := s.status(t, id); st.Status != stateDone {
		t.Errorf("got %+v: the call itself is done", st)
	}
	d := s.deadLetters(t, "")[0]
	if d.Kind != "callback" || d.Callback != receiver.URL+"/here" || d.Reason != "the callback's receiver says 500" {
		t.Errorf("got %+v", d)
	}
	well.Store(true)
	ask(t, "POST", fmt.Sprint(s.url, "/system/async/dead/", d.ID, "/run"), "")
	within(t, soon, "posted", func() bool {
		l := got.all()
		return len(l) == 1 && l[0].body == "answer" && l[0].header.Get("X-Call-Id") == id
	})
}
