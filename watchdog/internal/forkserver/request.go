package forkserver

// The request that a child reads: directory, arguments, variables.

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
)

// The limits of execve(2) where the stack may have 8 MiB: whatever cannot be
// given to a process cannot be given to a child, either.
const (
	maxString = 128 << 10
	maxTotal  = 2 << 20
)

var errNUL = errors.New("fork: a directory, argument or variable holds a NUL byte")

// encode returns what a child reads of r: the directory, the number of
// arguments, the arguments, the variables in which r differs from the
// template's environment, with a NUL byte between any two. A variable without
// "=" is one to remove.
//
// Only differences are sent, so that changes that imports made to the template's
// environment are kept, as in a process that imports by itself.
func (s *Server) encode(r Request) ([]byte, error) {
	if r.Args == nil {
		r.Args = s.args
	}
	total := 0
	for _, list := range [][]string{{r.Dir}, r.Args, r.Env} {
		for _, v := range list {
			if strings.IndexByte(v, 0) >= 0 {
				return nil, errNUL
			}
			if total += len(v) + 9; len(v) >= maxString || total > maxTotal {
				return nil, fmt.Errorf("fork: %w", syscall.E2BIG)
			}
		}
	}
	b := append([]byte(r.Dir), 0)
	b = strconv.AppendInt(b, int64(len(r.Args)), 10)
	for _, arg := range r.Args {
		b = append(append(b, 0), arg...)
	}
	kept := 0 // variables of the template's that r has, in whatever value
	seen := make(map[string]bool, len(r.Env))
	for _, v := range r.Env {
		name, value, ok := strings.Cut(v, "=")
		if !ok || name == "" {
			continue
		}
		old, had := s.base[name]
		if had && !seen[name] {
			kept++
		}
		if !had || old != value || seen[name] {
			b = append(append(b, 0), v...)
		}
		seen[name] = true
	}
	if kept < len(s.base) {
		for name := range s.base {
			if !seen[name] {
				b = append(append(b, 0), name...)
			}
		}
	}
	return b, nil
}

// variables returns an environment as a map. As for exec.Cmd, the last value of
// a name counts.
func variables(env []string) map[string]string {
	m := make(map[string]string, len(env))
	for _, v := range env {
		if name, value, ok := strings.Cut(v, "="); ok && name != "" {
			m[name] = value
		}
	}
	return m
}
