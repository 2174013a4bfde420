// Thumbnail reads an image (PNG, JPEG or GIF) from STDIN and writes it to
// STDOUT as a PNG that fits into a square.
//
// usage: thumbnail [SIDE], in pixels, 128 unless told
package main

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	_ "image/gif"
	_ "image/jpeg"
	"image/png"
	"io"
	"os"
	"strconv"
)

const (
	defaultSide = 128
	maxSide     = 1024
	// A small file can announce a picture of many gigabytes.
	maxBytes  = 16 << 20
	maxPixels = 40 << 20
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "thumbnail:", err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	side := defaultSide
	if len(args) > 0 {
		var err error
		if side, err = strconv.Atoi(args[0]); err != nil || side < 1 || side > maxSide {
			return fmt.Errorf("side %q: want a number from 1 to %d", args[0], maxSide)
		}
	}
	src, err := decode(in)
	if err != nil {
		return err
	}
	return png.Encode(out, shrink(src, side))
}

// decode looks at the size that the image claims before it decodes it.
func decode(in io.Reader) (image.Image, error) {
	data, err := io.ReadAll(io.LimitReader(in, maxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read image: %w", err)
	}
	if len(data) > maxBytes {
		return nil, fmt.Errorf("image of more than %d bytes", maxBytes)
	}
	config, _, err := image.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("decode image: %w", err)
	}
	if config.Width < 1 || config.Height < 1 {
		return nil, errors.New("image without pixels")
	}
	if config.Width > maxPixels/config.Height {
		return nil, fmt.Errorf("image of %d by %d pixels: want %d at most in all",
			config.Width, config.Height, maxPixels)
	}
	img, _, err := image.Decode(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("decode image: %w", err)
	}
	return img, nil
}

// shrink fits src into a square, its proportions kept. Each new pixel is the
// mean of those that it covers. A smaller image stays as it is.
func shrink(src image.Image, side int) image.Image {
	b := src.Bounds()
	longest := max(b.Dx(), b.Dy())
	if longest <= side {
		return src
	}
	w, h := max(1, b.Dx()*side/longest), max(1, b.Dy()*side/longest)
	dst := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		y0, y1 := b.Min.Y+y*b.Dy()/h, b.Min.Y+(y+1)*b.Dy()/h
		for x := range w {
			x0, x1 := b.Min.X+x*b.Dx()/w, b.Min.X+(x+1)*b.Dx()/w
			dst.SetRGBA(x, y, mean(src, image.Rect(x0, y0, x1, y1)))
		}
	}
	return dst
}

// mean works on colours multiplied by their alpha, as Color.RGBA returns them,
// so that what is transparent does not bleed.
func mean(src image.Image, area image.Rectangle) color.RGBA {
	var r, g, b, a uint64
	for y := area.Min.Y; y < area.Max.Y; y++ {
		for x := area.Min.X; x < area.Max.X; x++ {
			pr, pg, pb, pa := src.At(x, y).RGBA()
			r, g, b, a = r+uint64(pr), g+uint64(pg), b+uint64(pb), a+uint64(pa)
		}
	}
	n := uint64(area.Dx() * area.Dy())
	return color.RGBA{uint8(r / n >> 8), uint8(g / n >> 8), uint8(b / n >> 8), uint8(a / n >> 8)}
}
