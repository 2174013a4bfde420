package main

// Looking for an Alexa request in a body.

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"

	"faas/internal/alexa"
	"faas/internal/alexa/alexatest"
)

// countingBody counts how often and how far it was read.
type countingBody struct {
	io.Reader
	bytes  int
	closed bool
}

func (b *countingBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	b.bytes += n
	return n, err
}

func (b *countingBody) Close() error { b.closed = true; return nil }

func TestPeekAlexa(t *testing.T) {
	spaces := strings.Repeat(" ", 3000)
	large := strings.Repeat("x", 1<<20)
	tests := []struct {
		name   string
		body   string
		length int64 // Content-Length; -2: the body's
		want   bool
		reads  int // bytes at most
	}{
		{"Alexa", alexatest.Minimal, -2, true, len(alexatest.Minimal)},
		{"Alexa, chunked", alexatest.Minimal, -1, true, len(alexatest.Minimal)},
		{"Alexa, as long as may be", alexatest.Padded(alexa.MaxBody), -1, true, alexa.MaxBody},
		{"one byte too long", alexatest.Padded(alexa.MaxBody + 1), -2, false, 0},
		{"one byte too long, chunked", alexatest.Padded(alexa.MaxBody + 1), -1, false, alexa.MaxBody + 1},
		{"Alexa and then much else", alexatest.Minimal + large, -1, false, alexa.MaxBody + 1},
		{"large object", `{"x":"` + large + `"}`, -1, false, alexa.MaxBody + 1},
		{"no object", large, -1, false, 512},
		{"no object, with a length", large[:100_000], -2, false, 8 << 10},
		{"spaces, then no object", spaces + large, -1, false, 4096},
		{"spaces, then Alexa", spaces + alexatest.Minimal, -1, true, 3000 + len(alexatest.Minimal)},
		{"nothing but spaces", spaces, -1, false, 3000},
		{"empty", "", -2, false, 0},
		{"empty, chunked", "", -1, false, 0},
	}
	readers := map[string]func(io.Reader) io.Reader{
		"whole":                  func(r io.Reader) io.Reader { return r },
		"byte by byte":           iotest.OneByteReader,
		"EOF with the last byte": iotest.DataErrReader,
	}
	for _, tt := range tests {
		for how, reader := range readers {
			t.Run(tt.name+"/"+how, func(t *testing.T) {
				source := &countingBody{Reader: reader(strings.NewReader(tt.body))}
				r := httptest.NewRequest("POST", "/", nil)
				r.Body, r.ContentLength = source, tt.length
				if tt.length == -2 {
					r.ContentLength = int64(len(tt.body))
				}
				req, body, ok, err := peekAlexa(r)
				if err != nil || ok != tt.want {
					t.Fatalf("got %v, %v, want %v", ok, err, tt.want)
				}
				if source.bytes > tt.reads {
					t.Errorf("got %d bytes read, want %d at most", source.bytes, tt.reads)
				}
				if ok && (string(body) != tt.body || req.Intent != "I") {
					t.Errorf("got %d bytes and %+v, want the whole body", len(body), req)
				}
				rest, err := io.ReadAll(r.Body)
				if err != nil || string(rest) != tt.body {
					t.Errorf("got %d bytes left in the body, %v, want all %d", len(rest), err, len(tt.body))
				}
				if err := r.Body.Close(); err != nil || !source.closed {
					t.Errorf("got %v, closed %v, want the original closed", err, source.closed)
				}
			})
		}
	}
}

func TestPeekAlexaReadError(t *testing.T) {
	broken := errors.New("connection reset")
	r := httptest.NewRequest("POST", "/", nil)
	r.Body = io.NopCloser(io.MultiReader(strings.NewReader(alexatest.Minimal[:20]), iotest.ErrReader(broken)))
	r.ContentLength = int64(len(alexatest.Minimal))
	if _, _, ok, err := peekAlexa(r); ok || !errors.Is(err, broken) {
		t.Fatalf("got %v, %v, want the read's error", ok, err)
	}
	got, err := io.ReadAll(r.Body)
	if string(got) != alexatest.Minimal[:20] || !errors.Is(err, broken) {
		t.Errorf("got %q, %v, want what was read and the error again", got, err)
	}
}

func TestPeekAlexaNoBody(t *testing.T) {
	for _, body := range []io.ReadCloser{nil, http.NoBody} {
		r := &http.Request{Method: "POST", Body: body}
		if _, _, ok, err := peekAlexa(r); ok || err != nil {
			t.Errorf("body %v: got %v, %v", body, ok, err)
		}
	}
}

// What is an Alexa request is found in a body, which is given back whole.
func FuzzPeekAlexa(f *testing.F) {
	for _, name := range []string{"intent", "launch", "audioplayer"} {
		f.Add(alexatest.Body(f, name))
	}
	f.Add([]byte(alexatest.Minimal))
	f.Fuzz(func(t *testing.T, body []byte) {
		_, want := alexa.Parse(body)
		r := httptest.NewRequest("POST", "/", bytes.NewReader(body))
		_, again, ok, err := peekAlexa(r)
		if ok != want || err != nil || ok && !bytes.Equal(again, body) {
			t.Errorf("got %d bytes, %v, %v, want %v and the body's %d", len(again), ok, err, want, len(body))
		}
	})
}

func BenchmarkPeekAlexa(b *testing.B) {
	for name, body := range map[string][]byte{
		"intent":     alexatest.Body(b, "intent"),
		"text-1MiB":  bytes.Repeat([]byte("x"), 1<<20),
		"form-256":   bytes.Repeat([]byte("a=b&"), 64),
		"json-64KiB": []byte(`{"x":"` + strings.Repeat("x", 64<<10) + `"}`),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r := &http.Request{Method: "POST", Body: io.NopCloser(bytes.NewReader(body)), ContentLength: -1}
				if _, _, ok, err := peekAlexa(r); err != nil || ok != (name == "intent") {
					b.Fatalf("got %v, %v", ok, err)
				}
			}
		})
	}
}
