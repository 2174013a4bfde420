package main

import (
	"net/http"
	"testing"
)

// A function sees the target as it was sent, but for bytes that no path may
// have: those are escaped, and the escapes beside them stay.
func TestTargetsArriveAsTheyWereSent(t *testing.T) {
	bothTransports(t, func(t *testing.T, args ...string) {
		p := newMemoryProvider()
		p.set("echo", nil, startReplica(t, echoReplica))
		c := dialRaw(t, startGateway(t, p, args...))
		for sent, want := range map[string]string{
			"/a%2Fb/%e2%82%AC//./../c;d=1,2?q=%zz&%20;+": "/a%2Fb/%e2%82%AC//./../c;d=1,2?q=%zz&%20;+",
			"/é%2F/x":      "/%C3%A9%2F/x",
			`/a\b`:         "/a%5Cb",
			"/a<b>|\"^`{}": "/a%3Cb%3E%7C%22%5E%60%7B%7D",
			"/a#b":         "/a%23b",
			`//é\`:         "//%C3%A9%5C",
			"/x?é\\<#%2F":  "/x?é\\<#%2F",
		} {
			c.send("GET /function/echo%s HTTP/1.1\r\nHost: x\r\n\r\n", sent)
			if resp, _ := c.receive("GET"); resp.StatusCode != http.StatusOK || resp.Header.Get("Seen-Request") != "GET "+want+" x" {
				t.Errorf("%s: got %d and %q at the function, want %q", sent, resp.StatusCode, resp.Header.Get("Seen-Request"), want)
			}
		}
	})
}
