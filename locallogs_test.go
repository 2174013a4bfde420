package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The control plane of local functions, on this machine.
func TestLocalAPI(t *testing.T) {
	p := startLocal(t, pathOnly, "-function", "f=sh -c 'cat >&2; echo done'", "-env", "f:log_calls=false")
	base := startGateway(t, p, "-auth-dir", t.TempDir(), "-provider", "local")
	for _, c := range []struct {
		method, target, body string
		status               int
		want                 string
	}{
		{"GET", "/system/info", "", 200, `"orchestration":"local"`},
		{"GET", "/system/functions", "", 200, `"envProcess":"sh -c 'cat \u003e\u00262; echo done'"`},
		{"GET", "/system/function/f.openfaas-fn", "", 200, `"replicas":1`},
		{"POST", "/system/scale-function/f", `{"replicas":2}`, 202, ""},
		{"GET", "/system/function/f", "", 200, `"replicas":2`},
		{"POST", "/system/alert", `{"alerts":[{"status":"resolved","labels":{"function_name":"f"}}]}`, 200, ""},
		{"GET", "/system/function/f", "", 200, `"replicas":1`},
		{"POST", "/system/functions", `{"service":"g","image":"i"}`, 501, "is a command on this machine"},
		{"PUT", "/system/functions", `{"service":"f","image":"i"}`, 501, "is a command on this machine"},
		{"DELETE", "/system/functions", `{"functionName":"f"}`, 501, "is a command on this machine"},
		{"GET", "/system/secrets", "", 501, "has no secrets"},
		{"POST", "/function/f", "one\ntwo\n", 200, "done"},
		{"GET", "/system/logs?name=f&follow=false&tail=1", "", 200, `"text":"two"`},
	} {
		status, body := apiRequest(t, base, c.method, c.target, c.body)
		if status != c.status || !strings.Contains(body, c.want) {
			t.Errorf("%s %s %s: got %d %q, want %d with %q", c.method, c.target, c.body, status, body, c.status, c.want)
		}
	}

	resp, err := http.Get(base + "/system/logs?name=f&follow=true&tail=-1")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	next := func() (l logLine) {
		t.Helper()
		if !lines.Scan() || json.Unmarshal(lines.Bytes(), &l) != nil {
			t.Fatalf("got %q, %v, want a line", lines.Text(), lines.Err())
		}
		return l
	}
	if one, two := next(), next(); one.Text != "one" || two.Text != "two" || one.Name != "f" || one.Instance == "" || time.Since(one.Timestamp).Abs() > time.Hour {
		t.Errorf("got %+v and %+v, want the past", one, two)
	}
	apiRequest(t, base, "POST", "/function/f", "three\n")
	if three := next(); three.Text != "three" {
		t.Errorf("got %+v, want the new line", three)
	}
}

// Those who follow logs do not hold up the end of the gateway.
func TestLogStreamsEndWithTheGateway(t *testing.T) {
	p := startLocal(t, pathOnly, "-function", "f=sh -c 'cat >&2'")
	signals := make(chan os.Signal, 1)
	base := "http://" + startGatewaySignals(t, p, signals, "-auth-dir", t.TempDir(), "-provider", "local", "-shutdown-timeout", "3s")
	apiRequest(t, base, "POST", "/function/f", "one\n")
	resp, err := http.Get(base + "/system/logs?name=f&follow=true")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	signals <- syscall.SIGTERM
	if got, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(got), `"text":"one"`) {
		t.Errorf("got %q, %v, want the line and the regular end of the stream", got, err)
	}
}

// The ring keeps the newest lines, within both limits, and who reads slowly
// misses lines instead of holding them.
func TestLogRing(t *testing.T) {
	r := newLogRing()
	at := func(n int) time.Time { return time.Unix(int64(n), 0) }
	for i := range maxRingLines + 10 {
		r.add(logLine{Text: fmt.Sprint(i), Instance: fmt.Sprint(i % 2), Timestamp: at(i)})
	}
	read := func(q logQuery) (texts []string) {
		t.Helper()
		err := r.read(t.Context(), q, func(l logLine) error {
			texts = append(texts, l.Text)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return texts
	}
	const last = maxRingLines + 9
	for _, c := range []struct {
		name        string
		q           logQuery
		first, last int
		count       int
	}{
		{"all", logQuery{tail: -1}, 10, last, maxRingLines},
		{"tail", logQuery{tail: 3}, last - 2, last, 3},
		{"since", logQuery{tail: -1, since: at(last - 4)}, last - 4, last, 5},
		{"instance", logQuery{tail: 2, instance: "0"}, last - 3, last - 1, 2},
	} {
		got := read(c.q)
		if len(got) != c.count || got[0] != fmt.Sprint(c.first) || got[len(got)-1] != fmt.Sprint(c.last) {
			t.Errorf("%s: got %d lines, from %s to %s, want %d, from %d to %d", c.name, len(got), got[0], got[len(got)-1], c.count, c.first, c.last)
		}
	}
	for range 40 {
		r.add(logLine{Text: strings.Repeat("x", 64<<10)})
	}
	if r.bytes > maxRingBytes || len(r.lines) != maxRingBytes/(64<<10+ringOverhead) {
		t.Errorf("got %d bytes in %d lines, want at most %d bytes", r.bytes, len(r.lines), maxRingBytes)
	}
	ctx, cancel := context.WithCancel(t.Context())
	seen := 0
	err := r.read(ctx, logQuery{tail: 1, follow: true}, func(logLine) error {
		if seen++; seen == 1 {
			for range 100 { // while it is held up
				r.add(logLine{Text: strings.Repeat("y", 64<<10)})
			}
		} else if seen == 10 {
			cancel()
		}
		return nil
	})
	if err != nil || seen > 1+maxRingBytes/(64<<10) {
		t.Errorf("got %d lines, %v, want no more than the ring holds", seen, err)
	}
}
