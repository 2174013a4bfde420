package main

// What of an answer is the gateway's, at the caller's socket.

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"faas/internal/tcptest"
)

// A function that sends no Content-Type is answered for without one: what its
// bytes look like is the browser's guess, or with nosniff nobody's.
func TestNoContentTypeIsInvented(t *testing.T) {
	bothTransports(t, func(t *testing.T, args ...string) {
		const page = "<html><script>alert(1)</script>"
		answers := map[string]string{
			"none":    "HTTP/1.1 200 OK\r\nContent-Length: 31\r\n\r\n" + page,
			"nosniff": "HTTP/1.1 200 OK\r\nX-Content-Type-Options: nosniff\r\nContent-Length: 31\r\n\r\n" + page,
			"chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1f\r\n" + page + "\r\n0\r\n\r\n",
			"early":   "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 31\r\n\r\n" + page,
			"error":   "HTTP/1.1 500 Oops\r\nContent-Length: 31\r\n\r\n" + page,
			"its own": "HTTP/1.1 200 OK\r\nContent-Type: text/x-own\r\nContent-Length: 31\r\n\r\n" + page,
			"empty":   "HTTP/1.1 200 OK\r\nContent-Type:\r\nContent-Length: 31\r\n\r\n" + page,
		}
		p := newMemoryProvider()
		for name, answer := range answers {
			p.set(strings.ReplaceAll(name, " ", "-"), nil, tcptest.Start(t, func(_ int64, c net.Conn) {
				readRequestHead(c)
				io.WriteString(c, answer)
			}))
		}
		base := startGateway(t, p, args...)
		for name := range answers {
			t.Run(name, func(t *testing.T) {
				var want []string
				switch name {
				case "its own":
					want = []string{"text/x-own"}
				case "empty":
					want = []string{""}
				}
				check := func(proto string, h http.Header, body string) {
					t.Helper()
					if got, ok := h["Content-Type"]; len(got) != len(want) || len(want) > 0 && got[0] != want[0] || ok != (want != nil) {
						t.Errorf("%s: got Content-Type %q, want the function's %q", proto, got, want)
					}
					if body != page {
						t.Errorf("%s: got %q, want what the function sent", proto, body)
					}
				}
				url := base + "/function/" + strings.ReplaceAll(name, " ", "-")
				resp, body := call(t, "GET", url, "")
				check("HTTP/1.1", resp.Header, body)

				protocols := new(http.Protocols)
				protocols.SetUnencryptedHTTP2(true)
				transport := &http.Transport{Protocols: protocols}
				defer transport.CloseIdleConnections()
				req, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
				if err != nil {
					t.Fatal(err)
				}
				resp, err = transport.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				b, err := io.ReadAll(resp.Body)
				if err != nil {
					t.Fatal(err)
				}
				check("HTTP/2", resp.Header, string(b))
			})
		}
	})
}

// readRequestHead reads up to the empty line.
func readRequestHead(r io.Reader) {
	var head []byte
	for b := make([]byte, 1); !strings.HasSuffix(string(head), "\r\n\r\n"); head = append(head, b[0]) {
		if _, err := r.Read(b); err != nil {
			return
		}
	}
}

// Nothing here makes a tunnel, whatever CONNECT asks for. What a function
// answered with 200 would be taken for one.
func TestConnectIsNotAllowed(t *testing.T) {
	p := newMemoryProvider()
	p.set("echo", func(d *definition) { d.claim(labelRoute, []string{"/orders/{id}"}) }, startReplica(t, echoReplica))
	base := startGateway(t, p)
	for _, target := range []string{"/function/echo", "/function/echo/a:1", "/function/nope", "/orders/1", "/healthz", "/", "example.com:443"} {
		c := dialRaw(t, base)
		for range 2 {
			c.send("CONNECT %s HTTP/1.1\r\nHost: example.com\r\nX-Function: echo\r\n\r\n", target)
			resp, body := c.receive("CONNECT")
			if resp.StatusCode != http.StatusMethodNotAllowed || !strings.Contains(resp.Header.Get("Allow"), "GET") || resp.Header.Get("Seen-Request") != "" {
				t.Errorf("%s: got %d, Allow %q, %q, want 405", target, resp.StatusCode, resp.Header.Get("Allow"), body)
			}
		}
	}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), "CONNECT", base, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("HTTP/2: got %d, want 405", resp.StatusCode)
	}
}
