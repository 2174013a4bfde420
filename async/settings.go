package main

// How settings are read: flags, environment variables, and the values that
// they may have.

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// settings is a FlagSet that goes on after a bad value, so that all of them
// are reported at once.
type settings struct {
	*flag.FlagSet
	errs []error
}

func (p *settings) parse(args []string, getenv func(string) string) error {
	for err := p.Parse(args); err != nil; err = p.Parse(p.Args()) { // which begins behind the bad one
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		p.errs = append(p.errs, err)
	}
	if p.NArg() > 0 {
		p.errs = append(p.errs, fmt.Errorf("unexpected argument %q: settings are flags, as in -listen :8081", p.Arg(0)))
	}
	given := map[string]bool{"version": true, "run-healthcheck": true}
	p.Visit(func(f *flag.Flag) { given[f.Name] = true })
	p.VisitAll(func(f *flag.Flag) {
		if value := getenv(strings.ReplaceAll(f.Name, "-", "_")); value != "" && !given[f.Name] {
			if err := f.Value.Set(value); err != nil {
				p.errs = append(p.errs, fmt.Errorf("-%s: %w", f.Name, err))
			}
		}
	})
	return errors.Join(p.errs...)
}

// value defines a flag whose values set takes; its error is kept for later,
// under the flag's name.
func (p *settings) value(name, def, usage string, set func(string) error) {
	if def != "" {
		usage += " (default " + def + ")"
		if err := set(def); err != nil {
			panic("default of -" + name + ": " + err.Error())
		}
	}
	p.Func(name, usage, func(s string) error {
		if err := set(s); err != nil {
			p.errs = append(p.errs, fmt.Errorf("-%s: %w", name, err))
		}
		return nil
	})
}

func (p *settings) text(v *string, name, def, usage string, valid func(string) error) {
	p.value(name, def, usage, func(s string) error {
		if valid != nil {
			if err := valid(s); err != nil {
				return err
			}
		}
		*v = s
		return nil
	})
}

func (p *settings) number(v *int, name string, def, least int, usage string) {
	p.value(name, strconv.Itoa(def), usage, func(s string) error {
		n, err := strconv.Atoi(s)
		if err != nil || n < least {
			return fmt.Errorf("%q is not a whole number from %d up", s, least)
		}
		*v = n
		return nil
	})
}

func (p *settings) duration(v *time.Duration, name string, def time.Duration, usage string) {
	p.value(name, def.String(), usage, func(s string) (err error) {
		*v, err = parseDuration(s)
		return err
	})
}

func (p *settings) size(v *int64, name, def, usage string) {
	p.value(name, def, usage, func(s string) (err error) {
		*v, err = parseSize(s)
		return err
	})
}

// parseDuration takes a Go duration or whole seconds, not below 0.
func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if seconds, e := strconv.Atoi(s); e == nil && int64(seconds) <= int64(time.Duration(1<<63-1)/time.Second) {
		d, err = time.Duration(seconds)*time.Second, nil
	}
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is not a duration such as 30s or 1m30s, nor whole seconds", s)
	}
	return d, nil
}

// parseSize takes bytes, KiB, MiB or GiB.
func parseSize(s string) (int64, error) {
	number, shift := s, 0
	for unit, bits := range map[string]int{"KiB": 10, "MiB": 20, "GiB": 30} {
		if n, ok := strings.CutSuffix(s, unit); ok {
			number, shift = n, bits
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > 1<<60>>shift {
		return 0, fmt.Errorf("%q is not a number of bytes such as 65536, 64KiB, 8MiB or 1GiB", s)
	}
	return n << shift, nil
}

func splitList(s string) []string {
	var list []string
	for v := range strings.SplitSeq(s, ",") {
		if v = strings.TrimSpace(v); v != "" {
			list = append(list, v)
		}
	}
	return list
}

func notEmpty(s string) error {
	if s == "" {
		return errors.New("must not be empty")
	}
	return nil
}

func readable(s string) error {
	if s == "" {
		return nil
	}
	f, err := os.Open(s)
	if err != nil {
		return err
	}
	return f.Close()
}

func oneOf(values ...string) func(string) error {
	return func(s string) error {
		if !slices.Contains(values, s) {
			return fmt.Errorf("%q is none of %s", s, strings.Join(values, ", "))
		}
		return nil
	}
}

func validListen(s string) error {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("%q is not an address such as :8081 or 127.0.0.1:8081", s)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q: port %q is not a number from 0 to 65535", s, port)
	}
	return nil
}
