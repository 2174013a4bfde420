package watchdog

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestRequestEnviron(t *testing.T) {
	r := httptest.NewRequest("POST", "http://example.com/a%2Fb/c?x=1&y", strings.NewReader("hello"))
	r.Header = http.Header{
		"Content-Type":   {"text/plain"},
		"Content-Length": {"99"},
		"X-Call-Id":      {"abc"},
		"X_call_id":      {"spoofed"},
		"X_other":        {"1"},
		"X_Other":        {"0"},
		"Accept":         {"a", "b"},
		"Cookie":         {"a=1", "b=2"},
		"Proxy":          {"http://evil"},
		"Method":         {"spoofed"},
		"Content_length": {"spoofed"},
		"X-Equals":       {"a=b"},
		"Bad=Name":       {"x"},
		"X_timeout":      {"spoofed"},
		"X.Other":        {"2"},
	}
	got, err := requestEnviron([]string{"PATH=/bin"}, r)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(got)
	want := []string{
		"Http_Accept=a, b",
		"Http_ContentLength=5",
		"Http_Content_Length=5",
		"Http_Content_Type=text/plain",
		"Http_Cookie=a=1; b=2",
		"Http_Host=example.com",
		"Http_Method=POST",
		"Http_Path=/a%2Fb/c",
		"Http_Query=x=1&y",
		"Http_X_Call_Id=abc",
		"Http_X_Equals=a=b",
		"Http_X_Other=0",
		"PATH=/bin",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestRequestEnvironChunked(t *testing.T) {
	r := httptest.NewRequest("POST", "/", nil)
	r.ContentLength, r.TransferEncoding = -1, []string{"chunked"}
	got, err := requestEnviron(nil, r)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(got, "Http_Transfer_Encoding=chunked") || slices.ContainsFunc(got, func(v string) bool { return strings.HasPrefix(v, "Http_Content_Length=") }) {
		t.Errorf("got %q, want a transfer encoding and no length", got)
	}
}

func TestRequestEnvironNUL(t *testing.T) {
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("X-Nul", "a\x00b")
	if got, err := requestEnviron(nil, r); !errors.Is(err, errNUL) {
		t.Errorf("got %q, %v, want %v", got, err, errNUL)
	}
}

// Variables that the watchdog inherits must not seem to come from a request.
func TestBaseEnviron(t *testing.T) {
	env := []string{"PATH=/bin", "Http_X=1", "HTTP_X=1", "HTTP_PROXY=p", "PATH_INFO=1", "FAAS_INVOCATION=1"}
	for mode, want := range map[string][]string{
		ModeFork: {"PATH=/bin", "HTTP_X=1", "HTTP_PROXY=p", "PATH_INFO=1"},
		ModeCGI:  {"PATH=/bin", "Http_X=1", "HTTP_PROXY=p"},
	} {
		if got := baseEnviron(env, mode); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", mode, got, want)
		}
	}
}

// Whatever a request holds, each variable comes up once, has no NUL and no
// line that could be another one, and the proxy cannot be set.
func FuzzRequestEnviron(f *testing.F) {
	f.Add("GET", "/a", "q=1", "h", "X-A", "1", "X_a", "2")
	f.Add("POST", "/%00", "", "", "Proxy", "x", "proxy", "y")
	f.Add("GET", "/", "\x00", "h", "Method", "x", "Content_length", "y")
	f.Fuzz(func(t *testing.T, method, path, query, host, name1, value1, name2, value2 string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.Method, r.URL.Path, r.URL.RawQuery, r.Host = method, path, query, host
		r.Header = http.Header{}
		r.Header.Add(name1, value1)
		r.Header.Add(name2, value2)
		for name, build := range map[string]func([]string, *http.Request) ([]string, error){"fork": requestEnviron, "cgi": cgiEnviron} {
			env, err := build([]string{"PATH=/bin"}, r)
			if err != nil {
				if !strings.Contains(method+path+query+host+name1+value1+name2+value2, "\x00") {
					t.Fatalf("%s: got %v without a NUL", name, err)
				}
				continue
			}
			seen := map[string]bool{}
			for _, v := range env {
				key, _, ok := strings.Cut(v, "=")
				if !ok || strings.Contains(v, "\x00") {
					t.Fatalf("%s: got %q, which is no variable", name, v)
				}
				// PHP, for one, makes the same of every punctuation.
				if plain := strings.ToUpper(fold(key)); seen[plain] {
					t.Fatalf("%s: got %s twice in %q", name, key, env)
				} else {
					seen[plain] = true
				}
				if key == "Http_Proxy" || key == "HTTP_PROXY" {
					t.Fatalf("%s: got %q", name, v)
				}
			}
		}
	})
}

// Headers that nobody can confuse are the same map as before.
func TestUnfolded(t *testing.T) {
	plain := http.Header{"X-A": {"1"}, "X-A-B": {"2"}}
	if got := unfolded(plain); reflect.ValueOf(got).Pointer() != reflect.ValueOf(plain).Pointer() {
		t.Errorf("got a copy of %q, want itself", plain)
	}
	h := http.Header{
		"X-A": {"1"}, "X_a": {"2"}, // - wins
		"X_b_c": {"3"}, "X.b.c": {"4"}, "X_b-C": {"5"}, // then the most _
		"X.d": {"6"}, "X*d": {"7"}, // then the first
		"X_forwarded_for": {"8"}, "X.route.id": {"9"}, "Content_length": {"10"}, // never
	}
	want := http.Header{"X-A": {"1"}, "X_b_c": {"3"}, "X*d": {"7"}}
	if got := unfolded(h); !reflect.DeepEqual(got, want) || len(h) != 10 {
		t.Errorf("got %q of %q, want %q", got, h, want)
	}
}
