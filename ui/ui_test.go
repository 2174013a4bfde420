package ui

import (
	"bytes"
	"compress/gzip"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func newHandler(t *testing.T) http.Handler {
	t.Helper()
	h, err := Handler(func(*http.Request) Access { return Access{State: AccessLogin} })
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func ask(h http.Handler, method, path string, header ...string) *http.Response {
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, resp *http.Response) []byte {
	t.Helper()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// paths are those of all files.
func paths(t *testing.T) []string {
	t.Helper()
	var all []string
	err := fs.WalkDir(files, "static", func(name string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			all = append(all, "/ui/"+strings.TrimPrefix(name, "static/"))
		}
		return err
	})
	if err != nil || len(all) < 10 {
		t.Fatalf("got files %v, %v, want the whole page", all, err)
	}
	return all
}

func TestAnswers(t *testing.T) {
	h := newHandler(t)
	for _, c := range []struct {
		method, path string
		status       int
		kind         string
	}{
		{"GET", "/ui/", 200, "text/html; charset=utf-8"},
		{"HEAD", "/ui/", 200, "text/html; charset=utf-8"},
		{"GET", "/ui/index.html", 200, "text/html; charset=utf-8"},
		{"GET", "/ui/main.js", 200, "text/javascript; charset=utf-8"},
		{"GET", "/ui/style.css", 200, "text/css; charset=utf-8"},
		{"GET", "/ui/icon.svg", 200, "image/svg+xml"},
		{"GET", "/ui", 308, "text/html; charset=utf-8"},
		{"GET", "/ui/access", 200, "application/json"},
		{"POST", "/ui/access", 405, "text/plain; charset=utf-8"},
		{"GET", "/ui/none.js", 404, "text/plain; charset=utf-8"},
		{"GET", "/ui/static/main.js", 404, "text/plain; charset=utf-8"},
		{"GET", "/ui/../ui.go", 404, "text/plain; charset=utf-8"},
		{"GET", "/ui/%2e%2e/ui.go", 404, "text/plain; charset=utf-8"},
		{"GET", "/ui//", 404, "text/plain; charset=utf-8"},
		{"POST", "/ui/", 405, "text/plain; charset=utf-8"},
		{"DELETE", "/ui/main.js", 405, "text/plain; charset=utf-8"},
		{"OPTIONS", "/ui/none", 405, "text/plain; charset=utf-8"},
	} {
		resp := ask(h, c.method, c.path)
		if got := resp.Header.Get("Content-Type"); resp.StatusCode != c.status || got != c.kind {
			t.Errorf("%s %s: got %d, %q, want %d, %q", c.method, c.path, resp.StatusCode, got, c.status, c.kind)
		}
		if allow := resp.Header.Get("Allow"); c.status == 405 && allow != "GET, HEAD" {
			t.Errorf("%s %s: got Allow %q", c.method, c.path, allow)
		}
		if c.method == "HEAD" && len(body(t, resp)) > 0 {
			t.Errorf("HEAD %s has a body", c.path)
		}
	}
	if got := ask(h, "GET", "/ui").Header.Get("Location"); got != "/ui/" {
		t.Errorf("got a redirect to %q, want /ui/", got)
	}
}

// Every answer, refusals included, has the headers that bind the browser.
func TestHeaders(t *testing.T) {
	h := newHandler(t)
	for _, path := range append(paths(t), "/ui/", "/ui", "/ui/none", "/ui/access") {
		for _, method := range []string{"GET", "POST"} {
			resp := ask(h, method, path)
			for name, want := range map[string]string{
				"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY",
				"Cross-Origin-Resource-Policy": "same-origin", "Content-Security-Policy": policy,
			} {
				if got := resp.Header.Get(name); got != want {
					t.Errorf("%s %s: got %s %q, want %q", method, path, name, got, want)
				}
			}
		}
	}
	for _, part := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'", "require-trusted-types-for 'script'"} {
		if !strings.Contains(policy, part) {
			t.Errorf("the policy lacks %q", part)
		}
	}
	for _, part := range []string{"unsafe", "data:", "*", "http"} {
		if strings.Contains(strings.Replace(policy, "img-src 'self' data:", "", 1), part) {
			t.Errorf("the policy has %q", part)
		}
	}
}

func TestCompression(t *testing.T) {
	h := newHandler(t)
	for _, c := range []struct {
		accept string
		packed bool
	}{
		{"", false}, {"gzip", true}, {"deflate, GZIP;q=0.5, br", true}, {"br, zstd", false}, {"gzip;q=0", false}, {"gzip; q=0.0", false}, {"x-gzip", false},
	} {
		resp := ask(h, "GET", "/ui/main.js", "Accept-Encoding", c.accept)
		if got := resp.Header.Get("Content-Encoding") == "gzip"; got != c.packed {
			t.Errorf("Accept-Encoding %q: got compressed %v, want %v", c.accept, got, c.packed)
		}
		if got := resp.Header.Get("Vary"); got != "Accept-Encoding" {
			t.Errorf("Accept-Encoding %q: got Vary %q", c.accept, got)
		}
	}
	for _, path := range paths(t) {
		plain := body(t, ask(h, "GET", path))
		r, err := gzip.NewReader(bytes.NewReader(body(t, ask(h, "GET", path, "Accept-Encoding", "gzip"))))
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		unpacked, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(plain, unpacked) {
			t.Errorf("%s: the compressed form is not the same: %v", path, err)
		}
	}
}

func TestRevalidation(t *testing.T) {
	h := newHandler(t)
	for _, encoding := range []string{"", "gzip"} {
		first := ask(h, "GET", "/ui/main.js", "Accept-Encoding", encoding)
		tag := first.Header.Get("ETag")
		if tag == "" || first.Header.Get("Cache-Control") != "no-cache" {
			t.Fatalf("got ETag %q, Cache-Control %q", tag, first.Header.Get("Cache-Control"))
		}
		for header, want := range map[string]int{tag: 304, "W/" + tag: 304, `"other", ` + tag: 304, "*": 304, `"other"`: 200, "": 200} {
			resp := ask(h, "GET", "/ui/main.js", "Accept-Encoding", encoding, "If-None-Match", header)
			if resp.StatusCode != want {
				t.Errorf("%q, If-None-Match %s: got %d, want %d", encoding, header, resp.StatusCode, want)
			}
			if resp.StatusCode == 304 && (len(body(t, resp)) > 0 || resp.Header.Get("ETag") != tag) {
				t.Errorf("%q, If-None-Match %s: got a body, or ETag %q", encoding, header, resp.Header.Get("ETag"))
			}
		}
	}
	plain, packed := ask(h, "GET", "/ui/main.js").Header.Get("ETag"), ask(h, "GET", "/ui/main.js", "Accept-Encoding", "gzip").Header.Get("ETag")
	if plain == packed {
		t.Errorf("got ETag %s for both forms, want two", plain)
	}
}

// The whole page, as it comes over the wire, is small.
func TestWeight(t *testing.T) {
	const most = 60_000
	h, sum := newHandler(t), 0
	for _, path := range paths(t) {
		sum += len(body(t, ask(h, "GET", path, "Accept-Encoding", "gzip")))
	}
	if sum > most {
		t.Errorf("got %d bytes, want %d at most", sum, most)
	}
	t.Logf("%d bytes compressed", sum)
}

// Every file that the page names is there, every module that the first list waits for is
// preloaded and no other, and nothing is fetched from elsewhere or stands inline.
func TestPageIsWhole(t *testing.T) {
	h := newHandler(t)
	page := string(body(t, ask(h, "GET", "/ui/")))
	names := regexp.MustCompile(`(?:'\./|href="|src=")([a-z]+\.[a-z]+)`)
	for _, path := range paths(t) {
		text := string(body(t, ask(h, "GET", path)))
		for _, m := range names.FindAllStringSubmatch(text, -1) {
			if resp := ask(h, "GET", "/ui/"+m[1]); resp.StatusCode != 200 {
				t.Errorf("%s names %s, which is %d", path, m[1], resp.StatusCode)
			}
		}
		for _, sink := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "srcdoc", "localStorage", "sessionStorage", "document.cookie"} {
			if strings.Contains(text, sink) {
				t.Errorf("%s has %s", path, sink)
			}
		}
	}
	// reached returns the modules that those named lead to, by lines of the pattern.
	reached := func(pattern string, modules ...string) []string {
		for i := 0; i < len(modules); i++ {
			text := string(body(t, ask(h, "GET", "/ui/"+modules[i])))
			for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
				if !slices.Contains(modules, m[1]) {
					modules = append(modules, m[1])
				}
			}
		}
		slices.Sort(modules)
		return modules
	}
	needed := reached(`from '\./([a-z]+\.js)'`, "main.js", "list.js")
	var preloaded []string
	for _, m := range regexp.MustCompile(`<(?:link rel="modulepreload" href|script type="module" src)="([a-z]+\.js)"`).FindAllStringSubmatch(page, -1) {
		preloaded = append(preloaded, m[1])
	}
	slices.Sort(preloaded)
	if !slices.Equal(preloaded, needed) {
		t.Errorf("the page preloads %v, want %v", preloaded, needed)
	}
	loaded := reached(`'\./([a-z]+\.js)'`, "main.js")
	for _, path := range paths(t) {
		if module := strings.TrimPrefix(path, "/ui/"); strings.HasSuffix(module, ".js") && !slices.Contains(loaded, module) {
			t.Errorf("nothing loads %s", module)
		}
	}
	if m := regexp.MustCompile(`<style|style=|<script>|\son[a-z]+=|https?://`).FindString(page); m != "" {
		t.Errorf("the page has %q", m)
	}
}
