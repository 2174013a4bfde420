package forkserver

import (
	"slices"
	"strings"
	"testing"
)

// The script is found after whatever options there are, and an error says what
// is wrong with a command that has none.
func TestLaunch(t *testing.T) {
	for _, c := range []struct{ template, command, script, args, err string }{
		{"python", "python3 a.py", "a.py", "", ""},
		{"python", "/opt/python3 -u -OO ./a.py -c x", "./a.py", "-c x", ""},
		{"python", "python3 -W ignore -Xutf8 -X dev -uWerror a.py b", "a.py", "b", ""},
		{"python", "python3 --check-hash-based-pycs never a.py", "a.py", "", ""},
		{"python", "python3 -Wignore::cm a.py", "a.py", "", ""},
		{"python", "python3 -m json.tool", "", "", "option -m is not supported"},
		{"python", "python3 -uc pass", "", "", "option -c is not supported"},
		{"python", "python3 -", "", "", `"-" is not supported`},
		{"python", "python3", "", "", "there is no script"},
		{"python", "./handler.py", "", "", "there is no script"},
		{"python", "python3 -W ignore", "", "", "there is no script"},
		{"perl", "perl -w -T -Ilib -I lib -MJSON::PP -CS a.pl x", "a.pl", "x", ""},
		{"perl", "perl -Mstrict -wle print", "", "", "option -e is not supported"},
		{"perl", "perl -x a.pl", "", "", "option -x is not supported"},
		{"ruby", "ruby -w -Ilib -r json -rset --disable gems --encoding=utf-8 -W0 a.rb x y", "a.rb", "x y", ""},
		{"ruby", "ruby -ne print", "", "", "option -n is not supported"},
		{"ruby", "ruby -C / a.rb", "", "", "option -C is not supported"},
		{"ruby", "ruby -- a.rb", "", "", `"--" is not supported`},
		{"./template --flag", "node a.js b", "", "a.js b", ""},
	} {
		t.Run(c.template+" "+c.command, func(t *testing.T) {
			command := strings.Fields(c.command)
			l, err := newLaunch(Options{Command: command, Template: strings.Fields(c.template)})
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("got %v, want an error with %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if l.script != c.script || strings.Join(l.args, " ") != c.args {
				t.Errorf("got script %q and arguments %q, want %q and %q", l.script, l.args, c.script, c.args)
			}
			if c.script == "" {
				if got := strings.Join(l.argv, " "); got != c.template {
					t.Errorf("got the command %q, want %q", got, c.template)
				}
				return
			}
			// The options stay in front, the script and its arguments at the end.
			at := slices.Index(command, c.script)
			if !slices.Equal(l.argv[:at], command[:at]) || !slices.Contains(l.argv[at:], c.script) {
				t.Errorf("got the command %.60q", l.argv)
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	for name, o := range map[string]Options{
		"no command":      {Template: []string{"python"}},
		"no template":     {Command: []string{"python3", "a.py"}},
		"bad module":      {Command: []string{"python3", "a.py"}, Template: []string{"python"}, Preload: []string{"a; import b"}},
		"negative forks":  {Command: []string{"python3", "a.py"}, Template: []string{"python"}, MaxForks: -1},
		"negative growth": {Command: []string{"python3", "a.py"}, Template: []string{"python"}, MaxGrowth: -1},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

// The templates are short enough to be read.
func TestTemplatesAreShort(t *testing.T) {
	for name, text := range map[string]string{"python": pythonTemplate, "perl": perlTemplate, "ruby": rubyTemplate} {
		if n := strings.Count(text, "\n"); n >= 80 {
			t.Errorf("%s: got %d lines, want less than 80", name, n)
		}
	}
}
