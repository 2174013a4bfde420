// Package settings reads a program's settings: flags that are environment
// variables, too, checked all at once and listed by -help.
package settings

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
)

// A Setting is one flag and its variables.
type Setting struct {
	Name     string
	Kind     string // of its value, for -help
	Def      string // "": none
	Meaning  string
	group    string // its heading in -help
	flagOnly bool   // has no variable
	repeats  bool   // its variable holds one value a line
	Set      func(value string) error

	source string // what its value came from, as messages name it; "": it is the default
	failed bool   // a value was bad
}

// A Set is a FlagSet that continues after an invalid value, so that all of them
// are reported at once.
type Set struct {
	flags *flag.FlagSet
	Group string // of what is defined next
	all   []*Setting
	errs  []error
}

// New returns an empty set of the settings of program.
func New(program string) *Set {
	p := &Set{flags: flag.NewFlagSet(program, flag.ContinueOnError)}
	p.flags.SetOutput(io.Discard)
	return p
}

// variables returns the names of a flag's environment variables, in order of
// precedence. Without the prefix other programs may use some of them, too.
func variables(name string) []string {
	bare := strings.ReplaceAll(name, "-", "_")
	return []string{"FAAS_" + strings.ToUpper(bare), "FAAS_" + bare, bare}
}

// Parse reads args, and settings not in args from the environment. Problems are
// added to the set; the error is nil or flag.ErrHelp.
func (p *Set) Parse(args []string, getenv func(string) string) error {
	if err := p.parseFlags(args); err != nil {
		return err
	}
	for _, s := range p.all {
		if s.source != "" || s.flagOnly {
			continue
		}
		for _, variable := range variables(s.Name) {
			value := getenv(variable)
			if value == "" {
				continue
			}
			values := []string{value}
			if s.repeats {
				values = strings.FieldsFunc(value, func(r rune) bool { return r == '\n' || r == '\r' })
			}
			for _, v := range values {
				if strings.TrimSpace(v) != "" {
					p.take(s, "variable "+variable, v)
				}
			}
			break
		}
	}
	return nil
}

// parseFlags continues after errors.
func (p *Set) parseFlags(args []string) error {
	for {
		err := p.flags.Parse(args)
		rest := p.flags.Args()
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		if err != nil {
			text := err.Error()
			if name, unknown := strings.CutPrefix(text, "flag provided but not defined: "); unknown {
				text = name + ": there is no such setting"
				if len(rest) > 0 && !strings.HasPrefix(rest[0], "-") {
					rest = rest[1:] // most likely its value
				}
			} else if name, found := strings.CutPrefix(text, "flag needs an argument: "); found {
				text = name + ": it needs a value"
			}
			p.errs = append(p.errs, errors.New(text))
		}
		if len(rest) == 0 {
			return nil
		}
		if err == nil {
			p.errs = append(p.errs, stray(rest[0], args[:len(args)-len(rest)], p.find))
			rest = rest[1:]
		}
		args = rest
	}
}

// stray returns the error for an argument that is not a flag. before are the
// arguments in front of it.
func stray(arg string, before []string, find func(name string) *Setting) error {
	if len(before) > 0 {
		last := strings.TrimLeft(before[len(before)-1], "-")
		if s := find(last); s != nil && s.Kind == kindBool {
			return fmt.Errorf("unexpected argument %q: the value of -%s needs an equals sign, as in -%s=false", arg, last, last)
		}
	}
	return fmt.Errorf("unexpected argument %q: settings are flags, as in -listen :8080", arg)
}

// take sets s, and records an error if the value is invalid.
func (p *Set) take(s *Setting, source, value string) {
	s.source = source
	if err := s.Set(value); err != nil {
		s.failed = true
		p.Bad(source, err)
	}
}

// Bad records an error of the setting that source names: a line for each error that
// err joins.
func (p *Set) Bad(source string, err error) {
	for line := range strings.Lines(err.Error()) {
		p.errs = append(p.errs, fmt.Errorf("%s: %s", source, strings.TrimSuffix(line, "\n")))
	}
}

// Failed reports whether the setting was given an invalid value.
func (p *Set) Failed(name string) bool { return p.find(name).failed }

// Err joins the errors of all settings.
func (p *Set) Err() error { return errors.Join(p.errs...) }

func (p *Set) find(name string) *Setting {
	i := slices.IndexFunc(p.all, func(s *Setting) bool { return s.Name == name })
	if i < 0 {
		return nil
	}
	return p.all[i]
}

// Given reports whether the setting differs from its default.
func (p *Set) Given(name string) bool { return p.find(name).source != "" }

// Source names what a setting's value came from, for messages.
func (p *Set) Source(name string) string {
	if s := p.find(name); s.source != "" {
		return s.source
	}
	return "-" + name
}

// Usage prints every setting under its heading.
func (p *Set) Usage(w io.Writer) {
	group := ""
	for _, s := range p.all {
		if s.group != group {
			group = s.group
			fmt.Fprintf(w, "\n%s:\n", group)
		}
		def := ""
		if s.Def != "" {
			def = " (default " + s.Def + ")"
		}
		fmt.Fprintf(w, "  -%s %s%s\n    \t%s\n", s.Name, s.Kind, def, strings.ReplaceAll(s.Meaning, "\n", "\n    \t"))
	}
}

const kindBool = "bool"

// Define adds a setting of any kind. Its default has to be a good value.
func (p *Set) Define(s Setting) {
	s.group = p.Group
	if s.Def != "" {
		if err := s.Set(s.Def); err != nil {
			panic("default of -" + s.Name + ": " + err.Error())
		}
	}
	p.all = append(p.all, &s)
	set := func(value string) error {
		p.take(&s, "-"+s.Name, value)
		return nil
	}
	if s.Kind == kindBool {
		p.flags.BoolFunc(s.Name, "", set)
	} else {
		p.flags.Func(s.Name, "", set)
	}
}
