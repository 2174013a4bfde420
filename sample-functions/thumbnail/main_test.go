package main

// Real images in, real images out, by the functions and under the watchdog.

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"net/http"
	"strings"
	"testing"

	"faas/sample-functions/internal/sampletest"
)

// halves is red on the left and blue on the right, opaque.
func halves(w, h int) *image.RGBA {
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			c := color.RGBA{R: 255, A: 255}
			if x >= w/2 {
				c = color.RGBA{B: 255, A: 255}
			}
			img.SetRGBA(x, y, c)
		}
	}
	return img
}

func encode(t *testing.T, img image.Image, format string) []byte {
	t.Helper()
	var buf bytes.Buffer
	var err error
	switch format {
	case "png":
		err = png.Encode(&buf, img)
	case "jpeg":
		err = jpeg.Encode(&buf, img, nil)
	case "gif":
		err = gif.Encode(&buf, img, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestHandler(t *testing.T) {
	url := sampletest.Start(t, nil)
	for _, format := range []string{"png", "jpeg", "gif"} {
		t.Run(format, func(t *testing.T) {
			in := encode(t, halves(400, 300), format)
			got := sampletest.Do(t, http.MethodPost, url, in, nil)
			if got.Status != 200 {
				t.Fatalf("got status %d, want 200: %s", got.Status, got.Body)
			}
			if ct := got.Header.Get("Content-Type"); ct != "image/png" {
				t.Errorf("got content type %q, want image/png", ct)
			}
			img, err := png.Decode(bytes.NewReader(got.Body))
			if err != nil {
				t.Fatalf("decode answer: %v", err)
			}
			if size := img.Bounds().Size(); size != image.Pt(128, 96) {
				t.Errorf("got %v, want (128,96)", size)
			}
			if r, _, b, _ := img.At(10, 50).RGBA(); r < 0xf000 || b > 0x1000 {
				t.Errorf("left: got red %#x and blue %#x, want red alone", r, b)
			}
			if r, _, b, _ := img.At(118, 50).RGBA(); b < 0xf000 || r > 0x1000 {
				t.Errorf("right: got red %#x and blue %#x, want blue alone", r, b)
			}
		})
	}
	t.Run("no image", func(t *testing.T) {
		got := sampletest.Do(t, http.MethodPost, url, []byte("hello"), nil)
		if got.Status != 500 || got.Header.Get("X-Exit-Code") != "1" || len(got.Body) != 0 {
			t.Errorf("got status %d, exit code %q, body %q, want 500, 1 and no body",
				got.Status, got.Header.Get("X-Exit-Code"), got.Body)
		}
	})
}

func TestShrink(t *testing.T) {
	tests := []struct{ w, h, side, wantW, wantH int }{
		{400, 300, 128, 128, 96},
		{300, 400, 128, 96, 128},
		{128, 128, 128, 128, 128},
		{10, 20, 128, 10, 20},
		{5000, 1, 128, 128, 1},
		{129, 129, 128, 128, 128},
	}
	for _, tt := range tests {
		got := shrink(halves(tt.w, tt.h), tt.side).Bounds().Size()
		if want := image.Pt(tt.wantW, tt.wantH); got != want {
			t.Errorf("%d by %d into %d: got %v, want %v", tt.w, tt.h, tt.side, got, want)
		}
	}
}

func TestMeanKeepsBounds(t *testing.T) {
	// A part of a larger picture does not begin at (0,0).
	part := halves(400, 400).SubImage(image.Rect(200, 100, 400, 300))
	if _, _, b, _ := shrink(part, 10).At(0, 0).RGBA(); b != 0xffff {
		t.Errorf("got blue %#x, want 0xffff", b)
	}
}

func TestBadInput(t *testing.T) {
	small := string(encode(t, halves(4, 4), "png"))
	tests := []struct {
		name, in, want string
		args           []string
	}{
		{name: "empty", in: "", want: "decode image"},
		{name: "text", in: "hello", want: "decode image"},
		{name: "cut off", in: small[:len(small)/2], want: "decode image"},
		{name: "too many bytes", in: strings.Repeat("x", maxBytes+1), want: "more than"},
		{name: "too many pixels", in: hugePNG(), want: "pixels"},
		{name: "side of no number", in: small, args: []string{"big"}, want: "side"},
		{name: "side too large", in: small, args: []string{"1025"}, want: "side"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := run(tt.args, strings.NewReader(tt.in), io.Discard)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one with %q", err, tt.want)
			}
		})
	}
}

// hugePNG is a PNG header that announces 100,000 by 100,000 pixels.
func hugePNG() string {
	ihdr := []byte("IHDR")
	ihdr = binary.BigEndian.AppendUint32(ihdr, 100_000)
	ihdr = binary.BigEndian.AppendUint32(ihdr, 100_000)
	ihdr = append(ihdr, 8, 6, 0, 0, 0)
	out := []byte("\x89PNG\r\n\x1a\n")
	out = binary.BigEndian.AppendUint32(out, uint32(len(ihdr)-4))
	out = append(out, ihdr...)
	return string(binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(ihdr)))
}
