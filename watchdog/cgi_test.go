package watchdog

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestParseCGIHeader(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     cgiHeader
		body     string
	}{
		{"document", "Content-Type: text/html\n\nhi\n", cgiHeader{0, http.Header{"Content-Type": {"text/html"}}, ""}, "hi\n"},
		{"CRLF", "Content-type: a\r\n\r\n\r\nb", cgiHeader{0, http.Header{"Content-Type": {"a"}}, ""}, "\r\nb"},
		{"status", "Status: 404 Not Found\nX-A:1\n\n", cgiHeader{404, http.Header{"X-A": {"1"}}, ""}, ""},
		{"status without a reason", "Status: 201\n\n", cgiHeader{201, http.Header{}, ""}, ""},
		{"repeated", "Set-Cookie: a=1\nSet-Cookie: b=2\nstatus: 200 OK\n\n", cgiHeader{200, http.Header{"Set-Cookie": {"a=1", "b=2"}}, ""}, ""},
		{"redirect", "Location: http://x/\n\n", cgiHeader{302, http.Header{"Location": {"http://x/"}}, ""}, ""},
		{"redirect with a status", "Location: /x\nStatus: 303 See\n\n", cgiHeader{303, http.Header{"Location": {"/x"}}, ""}, ""},
		{"local redirect", "Location: /x?y\n\n", cgiHeader{302, http.Header{"Location": {"/x?y"}}, "/x?y"}, ""},
		{"another host is not local", "Location: //x/y\n\n", cgiHeader{302, http.Header{"Location": {"//x/y"}}, ""}, ""},
		{"of the connection", "Connection: close\nTransfer-Encoding: chunked\nContent-Length: 2\n\nhi", cgiHeader{0, http.Header{"Content-Length": {"2"}}, ""}, "hi"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, body, err := parseCGIHeader([]byte(tt.in))
			if err != nil || !reflect.DeepEqual(got, tt.want) || string(body) != tt.body {
				t.Errorf("got %+v, %q, %v, want %+v, %q", got, body, err, tt.want, tt.body)
			}
		})
	}
}

func TestParseCGIHeaderMalformed(t *testing.T) {
	for name, in := range map[string]string{
		"no colon":          "hello\n\n",
		"empty":             "\nhello",
		"blank name":        ": x\n\n",
		"space in a name":   "X A: x\n\n",
		"continued line":    "X-A: x\n y\n\n",
		"status of letters": "Status: abc\n\n",
		"status beyond":     "Status: 600\n\n",
		"status of 1xx":     "Status: 101\n\n",
		"length":            "Content-Length: -1\n\n",
		"control character": "X-A: a\x01b\n\n",
		"lone CR":           "X-A: a\rb\n\n",
		"location":          "Location: /%zz\n\n",
		"too long":          "X-A: " + strings.Repeat("x", maxCGIHeader) + "\n\n",
		"never ends":        strings.Repeat("X-A: x\n", maxCGIHeader/7+1),
	} {
		if got, _, err := parseCGIHeader([]byte(in)); err == nil || errors.Is(err, errHeaderOpen) {
			t.Errorf("%s: got %+v, %v, want an error", name, got, err)
		}
	}
	for _, in := range []string{"", "X-A", "X-A: x\n", "X-A: x\r\n\r"} {
		if _, _, err := parseCGIHeader([]byte(in)); !errors.Is(err, errHeaderOpen) {
			t.Errorf("%q: got %v, want %v", in, err, errHeaderOpen)
		}
	}
}

// What parses can be sent: names and values are valid, the status is one of a
// response, and a block that is cut short never passes for a whole one.
func FuzzParseCGIHeader(f *testing.F) {
	for _, s := range []string{"Status: 200 OK\nX-A: b\n\nbody", "Location: /a\r\n\r\n", "A:\n\n", "\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		head, body, err := parseCGIHeader(b)
		if err != nil {
			return
		}
		if head.status != 0 && (head.status < 200 || head.status > 599) {
			t.Fatalf("got status %d", head.status)
		}
		for name, values := range head.header {
			for _, v := range append(values, name) {
				if strings.ContainsAny(v, "\r\n\x00") {
					t.Fatalf("got %q: %q", name, values)
				}
			}
		}
		if !strings.HasSuffix(string(b), string(body)) {
			t.Fatalf("got body %q of %q", body, b)
		}
		block := b[:len(b)-len(body)]
		if _, rest, err := parseCGIHeader(block); err != nil || len(rest) > 0 {
			t.Fatalf("got %v, %q of the block alone", err, rest)
		}
		if _, _, err := parseCGIHeader(block[:len(block)-1]); !errors.Is(err, errHeaderOpen) {
			t.Fatalf("got %v of a block cut short, want %v", err, errHeaderOpen)
		}
	})
}

func TestScriptName(t *testing.T) {
	for _, prefix := range []string{"/function/shop", "/a", "/a.b-c_d~1/x"} {
		if got := scriptName(http.Header{"X-Forwarded-Prefix": {prefix}}); got != prefix {
			t.Errorf("got %q, want %q", got, prefix)
		}
	}
	for _, values := range [][]string{nil, {}, {""}, {"/"}, {"a"}, {"/a/"}, {"//a"}, {"/a//b"}, {"/a/../b"}, {"/."}, {"/a b"}, {"/a?b"}, {"/a%2Fb"},
		{"/<script>"}, {"/\u00e9"}, {"/a\n"}, {"http://a/b"}, {"/a", "/b"}, {"/a, /b"}, {"/" + strings.Repeat("a", maxScriptName)}} {
		if got := scriptName(http.Header{"X-Forwarded-Prefix": values}); got != "" {
			t.Errorf("%q: got %q, want none", values, got)
		}
	}
}

func TestCGI(t *testing.T) {
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte(`#!/bin/sh
case $PATH_INFO in
/env) printf 'Content-Type: text/plain\n\n'; env; cat ;;
/status) printf 'Status: 404 Not Found\nX-A: 1\nX-A: 2\n\nno' ;;
/local) printf 'Location: /status?x\n\n' ;;
/self) printf "Location: $SCRIPT_NAME/status?x\n\n" ;;
/root) printf "Location: $SCRIPT_NAME\n\n" ;;
/) printf 'Status: 404\n\nroot' ;;
/loop) printf 'Location: /loop\n\n' ;;
/away) printf 'Location: http://example.com/\n\n' ;;
/none) printf 'Status: 204\n\n' ;;
/bad) printf 'hello\n\nworld' ;;
/open) printf 'X-A: 1\n' ;;
/silent) ;;
/fail) printf 'Content-Type: text/plain\n\nwent wrong'; exit 3 ;;
/long) printf 'Status: 201\nContent-Type: text/plain\n\n'; head -c 3000000 /dev/zero ;;
esac
`), 0o755); err != nil {
		t.Fatal(err)
	}
	url, _, log := serve(t, testConfig(t, script, "mode=cgi"))
	http.DefaultClient.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	defer func() { http.DefaultClient.CheckRedirect = nil }()

	for _, tt := range []struct {
		path   string
		status int
		body   string
		header http.Header
	}{
		{"/status", 404, "no", http.Header{"X-A": {"1", "2"}, "Content-Type": {"application/octet-stream"}}},
		{"/local", 404, "no", http.Header{"X-A": {"1", "2"}}},
		{"/loop", 502, "function redirects for ever\n", nil},
		{"/away", 302, "", http.Header{"Location": {"http://example.com/"}}},
		{"/none", 204, "", nil},
		{"/bad", 502, "function wrote a malformed CGI header\n", nil},
		{"/open", 502, "function wrote a malformed CGI header\n", nil},
		{"/silent", 502, "function wrote a malformed CGI header\n", nil},
		{"/fail", 500, "went wrong", http.Header{"X-Exit-Code": {"3"}, "Content-Type": {"text/plain"}}},
		{"/long", 201, strings.Repeat("\x00", 3000000), http.Header{"Content-Type": {"text/plain"}}},
	} {
		t.Run(tt.path, func(t *testing.T) {
			resp, body := do(t, "POST", url+tt.path, strings.NewReader("hello"))
			if resp.StatusCode != tt.status || body != tt.body {
				t.Errorf("got status %d, %q, want %d, %q", resp.StatusCode, clip(body), tt.status, clip(tt.body))
			}
			for name, want := range tt.header {
				if got := resp.Header[name]; !reflect.DeepEqual(got, want) {
					t.Errorf("got %s: %q, want %q", name, got, want)
				}
			}
		})
	}
	// A script can redirect to itself by the name that the client has for it.
	for path, want := range map[string]string{"/self": "no", "/root": "root", "/local": "no"} {
		if resp, body := do(t, "POST", url+path, nil, "X-Forwarded-Prefix: /function/shop"); resp.StatusCode != 404 || body != want {
			t.Errorf("%s: got status %d, %q, want 404, %q", path, resp.StatusCode, body, want)
		}
	}
	// It can do so while its client still sends.
	resp, _, _ := raw(t, url, "POST /local HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\n\r\nhalf")
	if resp.StatusCode != 404 {
		t.Errorf("redirect with half of a body: got status %d, want 404", resp.StatusCode)
	}
	if !strings.Contains(log.String(), "header line without a colon") {
		t.Errorf("got log %q, want what is wrong with the header", log)
	}

	_, env := do(t, "POST", url+"/env?a=b", strings.NewReader("hello"), "Proxy: evil", "X-Thing: 1", "Content-Type: text/css",
		"X-Forwarded-Prefix: /function/shop", "X-Forwarded-Proto: https")
	for _, want := range []string{"GATEWAY_INTERFACE=CGI/1.1\n", "REQUEST_METHOD=POST\n", "PATH_INFO=/env\n", "QUERY_STRING=a=b\n",
		"CONTENT_LENGTH=5\n", "CONTENT_TYPE=text/css\n", "HTTP_X_THING=1\n", "SERVER_PROTOCOL=HTTP/1.1\n", "REMOTE_ADDR=127.0.0.1\n",
		"SERVER_NAME=127.0.0.1\n", "SCRIPT_NAME=/function/shop\n", "REQUEST_URI=/function/shop/env?a=b\n", "HTTPS=on\n"} {
		if !strings.Contains(env, want) {
			t.Errorf("got %q, want %q", env, want)
		}
	}
	if strings.Contains(env, "evil") || !strings.HasSuffix(env, "hello") {
		t.Errorf("got %q, want no proxy, and the body last", env)
	}
}
