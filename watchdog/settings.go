package watchdog

// Parsing of settings, by kind of value.

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// settings parses values by kind and collects errors.
type settings struct {
	getenv   func(string) string
	errs     []error
	warnings []string
}

// tolerated are the settings for which OpenFaaS's watchdogs take their default
// where a value makes no sense: images come with such values.
var tolerated = []string{"exec_timeout", "read_timeout", "write_timeout", "healthcheck_interval",
	"max_inflight", "cgi_headers", "combine_output", "prefix_logs", "suppress_lock"}

func (s *settings) bad(name, format string, args ...any) {
	err := fmt.Errorf("%s: "+format, append([]any{name}, args...)...)
	if slices.Contains(tolerated, name) {
		s.warnings = append(s.warnings, err.Error())
	} else {
		s.errs = append(s.errs, err)
	}
}

func (s *settings) text(name, fallback string) string {
	if v := s.getenv(name); v != "" {
		return v
	}
	return fallback
}

// list returns what commas separate, without blanks around it.
func (s *settings) list(name string) []string {
	var list []string
	for word := range strings.SplitSeq(s.getenv(name), ",") {
		if word = strings.TrimSpace(word); word != "" {
			list = append(list, word)
		}
	}
	return list
}

// oneOf returns the value, which must be one of choices; the first one holds
// when there is none.
func (s *settings) oneOf(name string, choices ...string) string {
	v := s.text(name, choices[0])
	for _, c := range choices {
		if v == c {
			return v
		}
	}
	s.bad(name, "%q is none of %s", v, strings.Join(choices, ", "))
	return choices[0]
}

func (s *settings) integer(name string, fallback, low, high int) int {
	v := s.getenv(name)
	if v == "" {
		return fallback
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < low || n > high {
		s.bad(name, "%q is not a number: use a whole one from %d to %d", v, low, high)
		return fallback
	}
	return n
}

func (s *settings) boolean(name string, fallback bool) bool {
	v := s.getenv(name)
	if v == "" {
		return fallback
	}
	b, err := strconv.ParseBool(v)
	if err != nil {
		s.bad(name, "%q is neither true nor false", v)
		return fallback
	}
	return b
}

// duration takes what time.ParseDuration takes, and whole seconds.
func (s *settings) duration(name string, fallback time.Duration) time.Duration {
	v := s.getenv(name)
	if v == "" {
		return fallback
	}
	d, ok := parseDuration(v)
	if !ok {
		s.bad(name, "%q is not a duration: use for example 30s, 1m30s or whole seconds, 0 for none", v)
		return fallback
	}
	return d
}

// parseDuration takes a Go duration or whole seconds, neither negative.
func parseDuration(v string) (time.Duration, bool) {
	d, err := time.ParseDuration(v)
	if err != nil {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || n > int64(time.Duration(1<<63-1)/time.Second) {
			return 0, false
		}
		d = time.Duration(n) * time.Second
	}
	return d, d >= 0
}

// size takes bytes, with a unit such as KiB, MiB or GiB (of 1024) or kB, MB,
// GB (of 1000), up to 1 GiB.
func (s *settings) size(name string, fallback int) int {
	v := s.getenv(name)
	if v == "" {
		return fallback
	}
	digits := strings.TrimRight(v, " abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
	var unit int64
	switch strings.ToLower(strings.TrimSpace(v[len(digits):])) {
	case "", "b":
		unit = 1
	case "k", "kib":
		unit = 1 << 10
	case "m", "mib":
		unit = 1 << 20
	case "g", "gib":
		unit = 1 << 30
	case "kb":
		unit = 1e3
	case "mb":
		unit = 1e6
	case "gb":
		unit = 1e9
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || unit == 0 || n < 0 || n > (1<<30)/unit {
		s.bad(name, "%q is not a size: use bytes or for example 64KiB or 1MiB, up to 1GiB", v)
		return fallback
	}
	return int(n * unit)
}
