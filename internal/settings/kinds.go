package settings

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The kinds of settings, and what their values may be.

// Repeatable defines a setting that may be given more than once.
func (p *Set) Repeatable(name, kind, meaning string, add func(string) error) {
	p.Define(Setting{Name: name, Kind: kind, Meaning: meaning, repeats: true, Set: add})
}

// Text defines a setting that valid accepts.
func (p *Set) Text(v *string, name, kind, def, meaning string, valid func(string) error) {
	p.Define(Setting{Name: name, Kind: kind, Def: def, Meaning: meaning, Set: func(s string) error {
		if err := valid(s); err != nil {
			return err
		}
		*v = s
		return nil
	}})
}

// Choice defines a setting that is one of the words in kind, as in "text|json";
// the first is the default.
func (p *Set) Choice(v *string, name, kind, meaning string) {
	words := strings.Split(kind, "|")
	p.Text(v, name, kind, words[0], meaning, func(s string) error {
		if !slices.Contains(words, s) {
			return fmt.Errorf("%q is none of %s", s, strings.Join(words, ", "))
		}
		return nil
	})
}

// Number defines a whole number from least to most.
func (p *Set) Number(v *int, name, def string, least, most int, meaning string) {
	p.Define(Setting{Name: name, Kind: "number", Def: def, Meaning: meaning, Set: func(s string) error {
		n, err := strconv.Atoi(s)
		if err != nil || n < least || n > most {
			if most == math.MaxInt {
				return fmt.Errorf("%q is not a whole number from %d up", s, least)
			}
			return fmt.Errorf("%q is not a whole number from %d to %d", s, least, most)
		}
		*v = n
		return nil
	}})
}

// Duration defines a setting that is not below least.
func (p *Set) Duration(v *time.Duration, name, def string, least time.Duration, meaning string) {
	p.Define(Setting{Name: name, Kind: "duration", Def: def, Meaning: meaning, Set: func(s string) error {
		d, err := ParseDuration(s)
		if err == nil && d < least {
			err = fmt.Errorf("%q is less than %s", s, least)
		}
		if err == nil {
			*v = d
		}
		return err
	}})
}

// Boolean defines a setting that is true or false.
func (p *Set) Boolean(v *bool, name, def, meaning string) {
	p.Define(Setting{Name: name, Kind: kindBool, Def: def, Meaning: meaning, Set: func(s string) error {
		b, err := strconv.ParseBool(s)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", s)
		}
		*v = b
		return nil
	}})
}

// Action defines a flag that does something other than serve.
func (p *Set) Action(v *bool, name, meaning string) {
	p.Boolean(v, name, "", meaning)
	p.find(name).flagOnly = true
}

// ParseDuration takes a Go duration or whole seconds, not below 0.
func ParseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if seconds, e := strconv.Atoi(s); e == nil && int64(seconds) <= int64(time.Duration(1<<63-1)/time.Second) {
		d, err = time.Duration(seconds)*time.Second, nil
	}
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is not a duration such as 30s or 1m30s, nor whole seconds", s)
	}
	return d, nil
}

// SplitList returns what stands between commas, trimmed, without what is empty.
func SplitList(s string) []string {
	var list []string
	for v := range strings.SplitSeq(s, ",") {
		if v = strings.TrimSpace(v); v != "" {
			list = append(list, v)
		}
	}
	return list
}

// NotEmpty is a check for Text.
func NotEmpty(s string) error {
	if s == "" {
		return errors.New("must not be empty")
	}
	return nil
}
