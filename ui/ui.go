// Package ui is the gateway's page: static files that are compiled in. All that
// they show comes from the gateway's API, so what the page can, curl can.
package ui

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
)

//go:embed static
var files embed.FS

// policy lets the page load and ask nothing but the gateway, and takes every way
// to turn text into HTML or script from its own code: functions and logs write
// what they like. data: is for pictures that a function answers: a drawing that
// somebody opens in a tab of its own may run, and has no origin then.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// types are those of the files there are, by extension. The machine's own table
// is not asked: it may be wrong.
var types = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// A file is one that is served, as it is and compressed.
type file struct {
	kind        string // Content-Type
	tag         string // ETag
	plain, gzip []byte
}

// Access is whether the API lets whoever asks in: the page's first question. An
// attempt without a login would be an error in the browser's console.
type Access struct {
	State string `json:"state"` // AccessOpen, ...: a closed set
	Text  string `json:"text,omitempty"`
}

// The states of an Access.
const (
	AccessOpen   = "open"   // without a login
	AccessLogin  = "login"  // with one
	AccessClosed = "closed" // nobody; Text says why
)

// Handler serves the page below /ui/, and access at /ui/access. It holds all files
// in memory, compressed once.
func Handler(access func(*http.Request) Access) (http.Handler, error) {
	static, err := fs.Sub(files, "static")
	if err != nil {
		return nil, fmt.Errorf("page: %w", err)
	}
	served := map[string]*file{}
	err = fs.WalkDir(static, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		f, err := readFile(static, name)
		served["/ui/"+name] = f
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("page: %w", err)
	}
	served["/ui/"] = served["/ui/index.html"]
	return handler(served, access), nil
}

func readFile(from fs.FS, name string) (*file, error) {
	kind, ok := types[path.Ext(name)]
	if !ok {
		return nil, fmt.Errorf("%s: no type is known for it", name)
	}
	plain, err := fs.ReadFile(from, name)
	if err != nil {
		return nil, err
	}
	var packed bytes.Buffer
	w, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	w.Write(plain)
	if err := w.Close(); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(plain)
	return &file{kind: kind, tag: base64.RawURLEncoding.EncodeToString(sum[:12]), plain: plain, gzip: packed.Bytes()}, nil
}

func handler(served map[string]*file, access func(*http.Request) Access) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Content-Security-Policy", policy)
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("X-Frame-Options", "DENY") // for browsers that do not know frame-ancestors
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "the page can only be read", http.StatusMethodNotAllowed)
			return
		}
		if r.URL.Path == "/ui" {
			http.Redirect(w, r, "/ui/", http.StatusPermanentRedirect)
			return
		}
		if r.URL.Path == "/ui/access" {
			h.Set("Content-Type", "application/json")
			h.Set("Cache-Control", "no-store")
			json.NewEncoder(w).Encode(access(r))
			return
		}
		f := served[r.URL.Path]
		if f == nil {
			http.Error(w, "the page has no such file", http.StatusNotFound)
			return
		}
		f.serve(w, r)
	})
}

func (f *file) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	body, tag := f.plain, `"`+f.tag+`"`
	h.Set("Vary", "Accept-Encoding")
	h.Set("Content-Type", f.kind)
	if acceptsGzip(r.Header.Get("Accept-Encoding")) {
		body, tag = f.gzip, `"`+f.tag+`-gzip"`
		h.Set("Content-Encoding", "gzip")
	}
	// Another gateway may have another page: each use asks, and a 304 is short.
	h.Set("Cache-Control", "no-cache")
	h.Set("ETag", tag)
	if matches(r.Header.Get("If-None-Match"), tag) {
		h.Del("Content-Encoding")
		h.Del("Content-Type")
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if r.Method == http.MethodGet {
		w.Write(body)
	}
}

// acceptsGzip reads an Accept-Encoding (RFC 9110, 12.5.3).
func acceptsGzip(accept string) bool {
	for part := range strings.SplitSeq(accept, ",") {
		coding, parameter, _ := strings.Cut(part, ";")
		if !strings.EqualFold(strings.TrimSpace(coding), "gzip") {
			continue
		}
		weight, given := strings.CutPrefix(strings.ReplaceAll(parameter, " ", ""), "q=")
		q, err := strconv.ParseFloat(weight, 64)
		return !given || err == nil && q > 0
	}
	return false
}

// matches reads an If-None-Match (RFC 9110, 13.1.2), which compares weakly.
func matches(header, tag string) bool {
	for part := range strings.SplitSeq(header, ",") {
		part = strings.TrimSpace(part)
		if part == "*" || strings.TrimPrefix(part, "W/") == tag {
			return true
		}
	}
	return false
}
