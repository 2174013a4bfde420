package forkserver

import (
	"os"
	"strings"
	"testing"
)

// The template that docs/forkserver.md shows is one.
func TestTemplateOfThePage(t *testing.T) {
	page, err := os.ReadFile("../../../docs/forkserver.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```python\n")
	text, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("the page shows no template in Python")
	}
	s, book := start(t, Options{
		Command:  []string{"true", "default"},
		Template: []string{interpreter(t, "python"), script(t, "template.py", text)},
		Env:      environment(),
	})
	r := Request{Env: append(environment(), "Http_Query=a=b")}
	for range 3 {
		if got, want := forked(t, s, r, ""), (result{"[\"default\"] a=b\n", "", 0}); got != want {
			t.Errorf("got %v, want %v\n%s", got, want, book)
		}
	}
	r.Args, r.Dir = []string{"x", "", "y z"}, "/"
	if got, want := forked(t, s, r, ""), (result{"[\"x\", \"\", \"y z\"] a=b\n", "", 0}); got != want {
		t.Errorf("got %v, want %v\n%s", got, want, book)
	}
}
