package forkserver

// The command of a template: the function's own, with something in front of its
// script that has the interpreter read a template.

import (
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strings"
)

var (
	//go:embed shims/template.py
	pythonTemplate string
	//go:embed shims/template.pl
	perlTemplate string
	//go:embed shims/template.rb
	rubyTemplate string
)

// What has an interpreter run the text that it can read from descriptor 4. For
// Perl it runs ahead of the script, and is one line, as the numbers of the
// script's lines would be off otherwise.
const (
	pythonBoot = "with open(4) as f: text = f.read()\nexec(text)"
	perlBoot   = "-M5.006;BEGIN{my $t=do{local $/;open my $f,'<&=4';<$f>};eval $t;die $@ if $@}"
	rubyBoot   = "eval(IO.for_fd(4).read,TOPLEVEL_BINDING,'forkserver')"
)

// A language is what has to be known of an interpreter's options to find the
// script after them.
type language struct {
	takes string   // letters whose argument is the rest of the word, or else the next one
	holds string   // letters whose argument is the rest of the word, or nothing
	bars  string   // letters with which there is no script, or it is read in a way of its own
	words []string // long options whose argument is the next word
	boot  []string // what goes before the script
	text  string   // of the template
}

func languageOf(name string) (language, bool) {
	switch name {
	case "python":
		return language{takes: "WX", bars: "cmi", words: []string{"--check-hash-based-pycs"},
			boot: []string{"-c", pythonBoot}, text: pythonTemplate}, true
	case "perl":
		return language{takes: "I", holds: "CdDFimMV", bars: "eEsSx",
			boot: []string{perlBoot}, text: perlTemplate}, true
	case "ruby":
		return language{takes: "EIr", holds: "FiKTW", bars: "CenpsSxX",
			words: []string{"--backtrace-limit", "--disable", "--enable", "--encoding", "--external-encoding", "--internal-encoding"},
			boot:  []string{"-e", rubyBoot}, text: rubyTemplate}, true
	}
	return language{}, false
}

// isModule reports whether name looks like a module's in any of the languages.
func isModule(name string) bool {
	return name != "" && strings.IndexByte(".:/-", name[0]) < 0 && !strings.ContainsFunc(name, func(r rune) bool {
		letter := 'a' <= r|0x20 && r|0x20 <= 'z'
		return !letter && !('0' <= r && r <= '9') && !strings.ContainsRune("_.:/-", r)
	})
}

// A launch is how a template is started.
type launch struct {
	argv   []string
	text   string   // what argv reads from descriptor 4; "": it has no such descriptor
	script string   // "": only the template knows
	args   []string // of the script, where a request has none of its own
}

func newLaunch(o Options) (launch, error) {
	if len(o.Command) == 0 || len(o.Template) == 0 {
		return launch{}, errors.New("a fork server needs a command and a template")
	}
	for _, name := range o.Preload {
		if !isModule(name) {
			return launch{}, fmt.Errorf("preload: %q is no name of a module", name)
		}
	}
	l, ok := languageOf(o.Template[0])
	if !ok || len(o.Template) > 1 {
		return launch{argv: o.Template, args: o.Command[1:]}, nil
	}
	at, err := l.script(o.Command)
	if err != nil {
		return launch{}, fmt.Errorf("template %s: %q: %w: the command has to be INTERPRETER [options] SCRIPT [arguments]",
			o.Template[0], strings.Join(o.Command, " "), err)
	}
	options, script, args := o.Command[:at], o.Command[at], o.Command[at+1:]
	return launch{argv: slices.Concat(options, l.boot, o.Command[at:]), text: l.text, script: script, args: args}, nil
}

// script returns which word of an interpreter's command is the script.
func (l language) script(argv []string) (int, error) {
	for i := 1; i < len(argv); i++ {
		word := argv[i]
		switch {
		case word == "-" || word == "--":
			return 0, fmt.Errorf("%q is not supported", word)
		case !strings.HasPrefix(word, "-"):
			return i, nil
		case strings.HasPrefix(word, "--"):
			if slices.Contains(l.words, word) {
				i++
			}
			continue
		}
		last := strings.IndexAny(word[1:], l.takes+l.holds) + 1 // the letter that the rest of the word belongs to
		if last == 0 {
			last = len(word) - 1
		} else if last == len(word)-1 && strings.IndexByte(l.takes, word[last]) >= 0 {
			i++
		}
		if at := strings.IndexAny(word[1:last+1], l.bars); at >= 0 {
			return 0, fmt.Errorf("option -%c is not supported", word[at+1])
		}
	}
	return 0, errors.New("there is no script")
}
