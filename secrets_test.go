package main

import (
	"strings"
	"testing"
)

// Clients that read a secret from a file send it twice.
func TestSecretValue(t *testing.T) {
	text := func(s string) *string { return &s }
	for _, c := range []struct {
		name       string
		value, raw *string
		want       string
	}{
		{"value alone", text("a b\n"), nil, "a b\n"},
		{"raw alone", nil, text("AAEC/w=="), "\x00\x01\x02\xff"},
		{"both, a text with white space around it", text("secret"), text("c2VjcmV0Cg=="), "secret"},
		{"both, and the text has lost bytes", text("\ufffd"), text("/w=="), "\xff"},
		{"empty value beside raw", text(""), text("eA=="), "x"},
	} {
		b := secretBody{Value: c.value, RawValue: c.raw}
		if got, err := b.bytes(); err != nil || string(got) != c.want {
			t.Errorf("%s: got %q, %v, want %q", c.name, got, err, c.want)
		}
	}
	for _, b := range []secretBody{
		{}, {Value: text("")}, {RawValue: text("")}, {RawValue: text("no base64!")}, {Value: text(strings.Repeat("x", maxSecret+1))},
	} {
		if got, err := b.bytes(); err == nil {
			t.Errorf("got %d bytes, want an error", len(got))
		} else if b.Value != nil && len(*b.Value) > 0 && strings.Contains(err.Error(), "xxx") {
			t.Errorf("got %q, which quotes the value", err)
		}
	}
}
