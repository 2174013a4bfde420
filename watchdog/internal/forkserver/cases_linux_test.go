package forkserver

// Commands that answer the same through a template and the plain way.

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A scenario is a script that is run both ways.
type scenario struct {
	name    string
	text    string
	stdin   string
	options []string          // of the interpreter
	args    []string          // of the script
	files   map[string]string // beside the script
	env     []string
	dir     string
	plain   bool // there is no template for it
}

// environment is the same both ways, and not that of who runs the tests.
func environment() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=/tmp", "LANG=C.UTF-8", "GREETING=hello", "REMOVED=yes"}
}

// runScenarios runs each of the scenarios several times through a template and
// once the plain way.
func runScenarios(t *testing.T, language string, scenarios []scenario) {
	command := interpreter(t, language)
	for _, c := range scenarios {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			name := script(t, "handler", c.text)
			for file, text := range c.files {
				write(t, filepath.Join(filepath.Dir(name), file), text)
			}
			argv := append(append(append([]string{command}, c.options...), name), c.args...)
			env := environment()
			r := Request{Dir: c.dir, Env: append(append(env[:len(env)-1:len(env)-1], "Http_Query=a=b&c"), c.env...)}
			want := plain(t, argv, r, c.stdin)
			s, book := start(t, Options{Command: argv, Template: []string{language}, Env: env})
			if c.plain {
				until(t, "a warning", func() bool { return strings.Contains(book.String(), "level=WARN") })
				if _, err := s.Fork(r); !errors.Is(err, ErrNotNow) && !errors.Is(err, ErrNever) {
					t.Errorf("got %v, want ErrNotNow or ErrNever", err)
				}
				if n := strings.Count(book.String(), "level=WARN"); n != 1 {
					t.Errorf("got %d warnings, want 1:\n%s", n, book)
				}
				return
			}
			for range 2 {
				if got := forked(t, s, r, c.stdin); got.masked() != want.masked() {
					t.Errorf("got  %v\nwant %v\nlog:\n%s", got, want, book)
				}
			}
		})
	}
}
