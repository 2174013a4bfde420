package main

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// startLocal makes a local provider from arguments, as newProvider does.
func startLocal(t *testing.T, getenv func(string) string, args ...string) *localProvider {
	t.Helper()
	c, err := parseConfig(args, getenv, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	defaults := definition{port: 8080, timeout: c.upstreamTimeout, scale: c.scale}
	p := newLocal(c.functions, defaults, slog.New(slog.NewTextHandler(t.Output(), nil)))
	t.Cleanup(p.close)
	if err := p.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return p
}

var pathOnly = env("PATH", os.Getenv("PATH"))

func TestSamplesAnswer(t *testing.T) {
	base := startGateway(t, startLocal(t, pathOnly))
	for _, c := range []struct{ function, body, answer string }{
		{"echo", "hello", "hello"},
		{"echo", "", ""},
		{"wordcount", "one two\nthree\n", "2       3      14"},
		{"hash", "hello", "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"},
		{"env", "", "Http_Method=POST"},
	} {
		resp, got := call(t, "POST", base+"/function/"+c.function, c.body)
		if resp.StatusCode != 200 || !strings.Contains(strings.Join(strings.Fields(got), " "), strings.Join(strings.Fields(c.answer), " ")) {
			t.Errorf("%s: got %d %q, want 200 with %q", c.function, resp.StatusCode, got, c.answer)
		}
	}
	_, body := call(t, "POST", base+"/", skillRequest("IntentRequest", "HostnameIntent", "any"))
	var answer struct {
		Version  string
		Response struct {
			OutputSpeech     struct{ Type, Text string }
			ShouldEndSession bool
		}
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || answer.Version != "1.0" || answer.Response.OutputSpeech.Type != "PlainText" ||
		!strings.Contains(answer.Response.OutputSpeech.Text, host) || !answer.Response.ShouldEndSession {
		t.Errorf("HostnameIntent: got %s, %v, want an Alexa response that says %s", body, err, host)
	}
}

// A function sees what it needs to run and nothing else of the gateway's.
func TestAFunctionDoesNotSeeTheGatewaysEnvironment(t *testing.T) {
	t.Setenv("GATEWAY_SECRET", "from the process")
	p := startLocal(t, func(name string) string {
		switch name {
		case "PATH":
			return os.Getenv("PATH")
		case "LANG":
			return "C.UTF-8"
		case "API_TOKEN", "DOCKER_HOST":
			return "from getenv"
		}
		return ""
	})
	_, got := call(t, "GET", startGateway(t, p)+"/function/env/a?b=c", "")
	for _, want := range []string{"LANG=C.UTF-8", "PATH=", "Http_Path=/a", "Http_Query=b=c"} {
		if !strings.Contains(got, want) {
			t.Errorf("got %q, want %s in it", got, want)
		}
	}
	for _, secret := range []string{"GATEWAY_SECRET", "API_TOKEN", "DOCKER_HOST"} {
		if strings.Contains(got, secret) {
			t.Errorf("the function sees %s", secret)
		}
	}
}

func TestLocalScale(t *testing.T) {
	p := startLocal(t, pathOnly, "-function", "f=cat")
	base := startGateway(t, p, "-scale-max=1")
	d := definition{name: "f", service: "f"}
	to := func(n int) error { return p.scale(t.Context(), d, func(int) int { return n }) }
	for _, n := range []int{5, 2, 0, 1} {
		if err := to(n); err != nil {
			t.Fatal(err)
		}
		addrs, err := p.addresses(t.Context(), d)
		if err != nil || len(addrs) != n {
			t.Fatalf("got %v, %v, want %d replicas", addrs, err, n)
		}
	}
	if resp, got := call(t, "POST", base+"/function/f", "hello"); resp.StatusCode != 200 || got != "hello" {
		t.Errorf("got %d %q, want 200 hello", resp.StatusCode, got)
	}
	if err := p.scale(t.Context(), definition{name: "nope"}, func(int) int { return 1 }); !errors.Is(err, errNotFound) {
		t.Errorf("no such function: got %v, want %v", err, errNotFound)
	}
	p.close()
	if err := to(3); err == nil {
		t.Error("after close: got no error, want one")
	}
	if addrs, _ := p.addresses(t.Context(), d); len(addrs) != 0 {
		t.Errorf("after close: got %v", addrs)
	}
}

// Scaling down under load loses nothing.
func TestLocalScaleDownUnderLoad(t *testing.T) {
	p := startLocal(t, pathOnly, "-function", "f=cat", "-scale-max=4", "-scale-min=4")
	base := startGateway(t, p)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if resp, got := call(t, "POST", base+"/function/f", "hello"); resp.StatusCode != 200 || got != "hello" {
					t.Errorf("got %d %q, want 200 hello", resp.StatusCode, got)
					return
				}
			}
		})
	}
	for _, n := range []int{1, 3, 1, 2} {
		if err := p.scale(t.Context(), definition{name: "f", service: "f"}, func(int) int { return n }); err != nil {
			t.Error(err)
		}
		time.Sleep(localLinger / 2) // of load, and the first ones end in it
	}
	close(stop)
	wg.Wait()
}

// What runs when the provider is closed ends in its own time, and nothing is
// left then.
func TestLocalCloseWaitsForProcesses(t *testing.T) {
	inside := filepath.Join(t.TempDir(), "inside")
	p := startLocal(t, pathOnly, "-function", "f=sh -c 'touch "+inside+"; cat; sleep 0.3; echo end'")
	addrs, _ := p.addresses(t.Context(), definition{name: "f", service: "f"})
	answer := make(chan string, 1)
	go func() {
		_, got := call(t, "POST", "http://"+addrs[0]+"/", "hello")
		answer <- got
	}()
	for _, err := os.Stat(inside); err != nil; _, err = os.Stat(inside) {
		time.Sleep(5 * time.Millisecond)
	}
	p.close()
	select {
	case got := <-answer:
		if got != "helloend\n" {
			t.Errorf("got %q, want helloend", got)
		}
	case <-time.After(10 * time.Second):
		t.Error("the process was in flight when close returned")
	}
}
