package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"faas/internal/alexa"
)

// A restored body gives every byte and the end that reading had, however it is
// read, and the end comes with the last bytes.
func TestRestoredBody(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct {
		name, kept string
		end        error
		rest, want string
		err        error
	}{
		{"all was read", "hello", io.EOF, "", "hello", nil},
		{"nothing was there", "", io.EOF, "", "", nil},
		{"a part was read", "hel", nil, "lo", "hello", nil},
		{"a part was read, and no more comes", "hello", nil, "", "hello", nil},
		{"reading has failed", "hel", broken, "lo", "hel", broken},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, reader := range []func(io.Reader) io.Reader{func(r io.Reader) io.Reader { return r }, iotest.OneByteReader} {
				b := &restoredBody{[]byte(c.kept), c.end, io.NopCloser(strings.NewReader(c.rest))}
				if got, err := io.ReadAll(reader(b)); string(got) != c.want || err != c.err {
					t.Errorf("got %q, %v, want %q, %v", got, err, c.want, c.err)
				}
				if n, err := b.Read(make([]byte, 1)); n != 0 || err == nil {
					t.Errorf("afterwards: got %d, %v, want an error still", n, err)
				}
			}
		})
	}
	b := &restoredBody{[]byte("hello"), io.EOF, http.NoBody}
	if n, err := b.Read(make([]byte, 5)); n != 5 || err != io.EOF {
		t.Errorf("got %d, %v, want the end with the last bytes", n, err)
	}
}

// kept sends a request and checks its answer, and that the connection was kept.
func kept(t *testing.T, c *rawClient, status int, format string, args ...any) {
	t.Helper()
	c.send(format, args...)
	method, _, _ := strings.Cut(format, " ")
	resp, body := c.receive(method)
	if resp.StatusCode != status {
		t.Errorf("got %d %q, want %d", resp.StatusCode, body, status)
	}
	if resp.Close {
		t.Errorf("the connection is closed with a %d", resp.StatusCode)
		return
	}
	c.send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
	if resp, body := c.receive("GET"); resp.StatusCode != http.StatusOK || body != "OK\n" {
		t.Errorf("the next request on the connection: got %d %q, want 200 OK", resp.StatusCode, body)
	}
}

// A body that the gateway has looked at for Alexa costs nobody the connection.
func TestAConnectionIsKeptAfterALookForAlexa(t *testing.T) {
	const line = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"
	bothTransports(t, func(t *testing.T, args ...string) {
		p := newMemoryProvider()
		echo := startReplica(t, func(w http.ResponseWriter, r *http.Request) {
			b, err := io.ReadAll(r.Body)
			if err != nil {
				t.Errorf("the function's body: %v", err)
			}
			w.Write(b)
		})
		p.set("EchoIntent", nil, echo)
		p.set("BusyIntent", func(d *definition) { d.scale.Fixed = true })
		p.set("BrokenIntent", nil, closedAddr(t))
		base := startGateway(t, p, append(args, "-queue-timeout", "1ms")...)
		waitForMetric(t, base, `gateway_service_count{function_name="EchoIntent"} 1`)
		waitForMetric(t, base, `gateway_service_count{function_name="BrokenIntent"} 1`)
		for _, tt := range []struct {
			intent string
			status int
		}{{"EchoIntent", 200}, {"NoIntent", 404}, {"BusyIntent", 503}, {"BrokenIntent", 502}} {
			for _, spaces := range []int{0, 100 << 10} { // sent whole, and streamed
				t.Run(fmt.Sprint(tt.intent, " ", spaces), func(t *testing.T) {
					t.Parallel() // it takes a while to find that nobody accepts a connection
					c := dialRaw(t, base)
					body := skillRequest("IntentRequest", tt.intent, "skill-1") + strings.Repeat(" ", spaces)
					kept(t, c, tt.status, line, len(body), body)
				})
			}
		}

		p = newMemoryProvider()
		p.set("root", func(d *definition) { d.claim(labelRoute, []string{"POST /{$}"}) }, echo)
		c := dialRaw(t, startGateway(t, p, args...))
		for name, body := range map[string]string{
			"no object": "hello", "an object": `{"hello": 1}`, "a long object": `{"hello": "` + strings.Repeat("x", 100<<10) + `"}`,
			"long text": strings.Repeat("x", 100<<10), "too long to look at": strings.Repeat("x", alexa.MaxBody+1), "one byte": "1", "spaces": "   ",
		} {
			t.Run(name, func(t *testing.T) { kept(t, c, http.StatusOK, line, len(body), body) })
		}
	})
}

// The gateway's answers to requests without a body leave the connection open.
func TestAConnectionIsKeptAfterAnErrorWithoutABody(t *testing.T) {
	bothTransports(t, func(t *testing.T, args ...string) {
		p := newMemoryProvider()
		p.set("refused", nil, closedAddr(t))
		p.set("none", func(d *definition) { d.scale.Fixed = true })
		p.set("slow", func(d *definition) { d.timeout = guardDelay / 2 }, startReplica(t, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
		p.set("slower", func(d *definition) { d.timeout = 5 * guardDelay }, startReplica(t, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
		base := startGateway(t, p, append(args, "-queue-timeout", "1ms")...)
		waitForMetric(t, base, `gateway_service_count{function_name="refused"} 1`)
		waitForMetric(t, base, `gateway_service_count{function_name="slow"} 1`)
		waitForMetric(t, base, `gateway_service_count{function_name="slower"} 1`)
		for name, status := range map[string]int{"refused": 502, "none": 503, "slow": 504, "slower": 504, "nope": 404} {
			methods := []string{"GET", "HEAD", "DELETE", "POST"}
			if name == "refused" {
				methods = []string{"GET", "POST"} // each takes connectBudget
			}
			for _, method := range methods {
				t.Run(name+" "+method, func(t *testing.T) {
					t.Parallel()
					c := dialRaw(t, base)
					head := ""
					if method == "POST" {
						head = "Content-Length: 0\r\n"
					}
					kept(t, c, status, method+" /function/%s HTTP/1.1\r\nHost: x\r\n%s\r\n", name, head)
				})
			}
		}
	})
}

// The gateway's own answers say how long they are, so that their end does not
// wait for the rest of a body that nobody reads.
func TestARefusalSaysItsLength(t *testing.T) {
	p := newMemoryProvider()
	p.set("none", func(d *definition) { d.scale.Fixed = true })
	p.set("slow", func(d *definition) { d.timeout = guardDelay }, startReplica(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }))
	p.set("full", func(d *definition) { d.maxInflight = 1 }, startReplica(t, echoReplica))
	base := startGateway(t, p, "-queue-timeout", "1ms", "-alexa-route", "/alexa")
	waitForMetric(t, base, `gateway_service_count{function_name="full"} 1`)
	waitForMetric(t, base, `gateway_service_count{function_name="slow"} 1`)
	inside := dialRaw(t, base)
	inside.send("POST /function/full HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
	waitForMetric(t, base, `gateway_function_invocation_inflight{function_name="full"} 1`)
	for target, status := range map[string]int{
		"POST /function/none": 503, "POST /function/slow": 504, "POST /function/full": 429, "POST /function/nope": 404,
		"POST /": 400, "PUT /alexa": 405, "POST /function/none?" + strings.Repeat("a", maxURLLen): 414,
	} {
		t.Run(target[:min(len(target), 20)], func(t *testing.T) {
			c := dialRaw(t, base)
			c.send("%s HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nsome", target)
			resp, err := http.ReadResponse(c.br, &http.Request{Method: "POST"})
			if err != nil {
				t.Fatal(err)
			}
			body := make([]byte, max(resp.ContentLength, 0))
			if _, err := io.ReadFull(resp.Body, body); err != nil || resp.StatusCode != status || !bytes.HasSuffix(body, []byte("\n")) {
				t.Errorf("got %d, Content-Length %d, %q, %v, want %d and the length of its text", resp.StatusCode, resp.ContentLength, body, err, status)
			}
		})
	}
}
