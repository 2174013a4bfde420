package main

// What a caller says in the gateway's place does not reach a function, by
// whichever way the request comes.

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// forgeries are names that servers which put headers into variables take for
// one of the gateway's.
var forgeries = []string{
	"X_Forwarded_For", "x_forwarded_for", "X-Forwarded_For", "X.Forwarded.For", "X_Forwarded_Host", "X_Forwarded_Proto",
	"X_Forwarded_Prefix", "X_Forwarded_Port", "X_Call_Id", "X-Call_Id", "X_Start_Time", "X_TIMEOUT", "X_Function", "X_Route_Id", "X-Route_Id",
	"Content_Length", "Transfer_Encoding", "Keep_Alive", "Proxy_Connection", "Proxy_Authorization",
}

// innocents only look like them.
var innocents = []string{"Access_token", "X_custom", "X_forwarded", "X-Forward_for", "X_call_ids", "X-Routes"}

func TestDropOwnHeaders(t *testing.T) {
	h := http.Header{}
	for _, name := range slices.Concat(forgeries, innocents, []string{"X-Route-Id", "X-ROUTE-", "X.route.id", "X-Route-Id-2", "X-Call-Id", "X-Forwarded-For", "Accept"}) {
		h.Set(name, "1")
	}
	dropOwnHeaders(h)
	want := slices.Concat(innocents, []string{"X-Call-Id", "X-Forwarded-For", "Accept"}) // those are set afterwards
	slices.Sort(want)
	if got := names(h); !slices.Equal(got, want) {
		t.Errorf("got %q left, want %q", got, want)
	}
}

func TestDropOwnTrailers(t *testing.T) {
	h := http.Header{}
	for _, name := range slices.Concat(forgeries, innocents, []string{"X-Call-Id", "X-Forwarded-Prefix", "X-Route-Id", "X-Timeout", "X-Start-Time", "Forwarded", "X-Sum"}) {
		h.Set(name, "1")
	}
	dropOwnTrailers(h)
	want := append(slices.Clone(innocents), "X-Sum")
	slices.Sort(want)
	if got := names(h); !slices.Equal(got, want) {
		t.Errorf("got %q left, want %q", got, want)
	}
}

func names(h http.Header) []string {
	var all []string
	for name := range h {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

func BenchmarkDropOwnHeaders(b *testing.B) {
	h := http.Header{}
	for _, k := range []string{"Accept", "Accept-Encoding", "Content-Length", "Content-Type", "User-Agent", "X-Call-Id", "X-Request-Id", "Authorization"} {
		h.Set(k, "1")
	}
	b.ReportAllocs()
	for b.Loop() {
		dropOwnHeaders(h)
	}
}

// A heardRequest is what a function got.
type heardRequest struct{ header, trailer http.Header }

// startHearingGateway starts a gateway whose functions tell what they got.
func startHearingGateway(t *testing.T, args ...string) (base string, heard chan heardRequest) {
	heard = make(chan heardRequest, 1)
	addr := startReplica(t, func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			t.Errorf("the function's body: %v", err)
		}
		heard <- heardRequest{r.Header, r.Trailer}
	})
	p := newMemoryProvider()
	p.set("f", func(d *definition) {
		d.claim(labelRoute, []string{"/by/{id}"})
		d.claim(labelIntent, []string{"HostnameIntent"})
	}, addr)
	return startGateway(t, p, args...), heard
}

// check looks for anything of the caller's under a name that folds into one of
// the gateway's, which is how a server with variables looks at it.
func (got heardRequest) check(t *testing.T) {
	t.Helper()
	for _, h := range []http.Header{got.header, got.trailer} {
		for name, values := range h {
			if (isTold(foldName(name)) || oddlySpelt(name)) && slices.Contains(values, "forged") {
				t.Errorf("the function got %s: %q", name, values)
			}
		}
	}
	for name, n := range map[string]int{"x-forwarded-for": 1, "x-call-id": 1, "x-start-time": 1, "x-timeout": 1} {
		for other := range got.header {
			if foldName(other) == name {
				n--
			}
		}
		if n != 0 {
			t.Errorf("the function got %s under %d names, want one: %v", name, 1-n, names(got.header))
		}
	}
	if got.header.Get("Access_token") != "mine" {
		t.Error("a header of the caller's own with an underscore did not pass")
	}
}

// callerWays are the ways in.
var callerWays = []struct{ name, method, path, header, body string }{
	{"name", "GET", "/function/f/x", "", ""},
	{"header", "GET", "/", "X-Function: f\r\n", ""},
	{"route", "GET", "/by/7", "", ""},
	{"intent", "POST", "/", "", skillRequest("IntentRequest", "HostnameIntent", "skill-1")},
}

func TestForgedHeadersReachNoFunction(t *testing.T) {
	for _, trusted := range []string{"", "127.0.0.0/8"} {
		t.Run("trusted="+trusted, func(t *testing.T) {
			bothTransports(t, func(t *testing.T, args ...string) {
				base, heard := startHearingGateway(t, append(args, "-trusted-proxies", trusted)...)
				for _, way := range callerWays {
					t.Run(way.name, func(t *testing.T) {
						head := "Access_token: mine\r\n"
						for _, name := range forgeries {
							head += name + ": forged\r\n"
						}
						c := dialRaw(t, base)
						c.send("%s %s HTTP/1.1\r\nHost: x\r\n%s%sContent-Length: %d\r\n\r\n%s", way.method, way.path, way.header, head, len(way.body), way.body)
						if resp, body := c.receive(way.method); resp.StatusCode != http.StatusOK {
							t.Fatalf("got %d %q, want 200", resp.StatusCode, body)
						}
						got := <-heard
						got.check(t)
						if id := got.header.Values("X-Route-Id"); way.name == "route" && (len(id) != 1 || id[0] != "7") {
							t.Errorf("got X-Route-Id %q, want 7", id)
						}
					})
					t.Run(way.name+", HTTP/2", func(t *testing.T) {
						req, err := http.NewRequestWithContext(t.Context(), way.method, base+way.path, strings.NewReader(way.body))
						if err != nil {
							t.Fatal(err)
						}
						req.Header.Set("Access_token", "mine")
						for _, name := range forgeries {
							req.Header.Set(name, "forged")
						}
						if name, value, ok := strings.Cut(strings.TrimSpace(way.header), ": "); ok {
							req.Header.Set(name, value)
						}
						sendHTTP2(t, req)
						got := <-heard
						got.check(t)
					})
				}
			})
		})
	}
}

// sendHTTP2 sends a request by HTTP/2 without TLS, and wants 200.
func sendHTTP2(t *testing.T, req *http.Request) {
	t.Helper()
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2 {
		t.Fatalf("got HTTP/%d, %d, %v, want HTTP/2 and 200", resp.ProtoMajor, resp.StatusCode, err)
	}
}

// Trailers are added to the headers by some servers. One that is announced
// brings others along that are not.
func TestForgedTrailersReachNoFunction(t *testing.T) {
	forged := slices.Concat(forgeries, []string{"X-Call-Id", "X-Start-Time", "X-Timeout", "X-Route-Id", "X-Forwarded-Prefix"})
	bothTransports(t, func(t *testing.T, args ...string) {
		base, heard := startHearingGateway(t, args...)
		check := func(t *testing.T) {
			t.Helper()
			got := <-heard
			got.check(t)
			if fmt.Sprint(got.trailer) != "map[X-Sum:[42]]" {
				t.Errorf("got trailers %v, want X-Sum alone", got.trailer)
			}
		}
		for _, announced := range []string{"X-Sum", "X-Sum, " + strings.Join(forged, ", ")} {
			t.Run("announced: "+announced, func(t *testing.T) {
				c := dialRaw(t, base)
				c.send("POST /function/f HTTP/1.1\r\nHost: x\r\nAccess_token: mine\r\nTrailer: %s\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 42\r\n%s: forged\r\n\r\n",
					announced, strings.Join(forged, ": forged\r\n"))
				if resp, body := c.receive("POST"); resp.StatusCode != http.StatusOK {
					t.Fatalf("got %d %q, want 200", resp.StatusCode, body)
				}
				check(t)
			})
		}
		t.Run("HTTP/2", func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), "POST", base+"/function/f", io.MultiReader(strings.NewReader("hello")))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Access_token", "mine")
			req.Trailer = http.Header{"X-Sum": {"42"}, "Forwarded": {"forged"}, "X-Forwarded-For": {"forged"}}
			for _, name := range forged {
				req.Trailer.Set(name, "forged")
			}
			sendHTTP2(t, req)
			check(t)
		})
	})
}
