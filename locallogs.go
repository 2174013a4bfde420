package main

// Logs of local functions: the last lines of each, in memory.

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"faas/internal/deployment"
)

// What is kept of one function: the newest lines.
const (
	maxRingLines = 10_000
	maxRingBytes = 1 << 20
	ringOverhead = 64 // bytes that a line costs besides its text, about
)

// A logRing has the last lines of one function.
type logRing struct {
	mu      sync.Mutex
	lines   []logLine
	first   int // number of lines[0] since the start
	bytes   int
	changed chan struct{} // closed with the next line
}

func newLogRing() *logRing { return &logRing{changed: make(chan struct{})} }

func (r *logRing) add(line logLine) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, line)
	r.bytes += len(line.Text) + ringOverhead
	drop := 0
	for r.bytes > maxRingBytes || len(r.lines)-drop > maxRingLines {
		r.bytes -= len(r.lines[drop].Text) + ringOverhead
		r.lines[drop] = logLine{} // its text is free at once
		drop++
	}
	r.lines, r.first = r.lines[drop:], r.first+drop
	close(r.changed)
	r.changed = make(chan struct{})
}

// after returns the lines from number next on, the number of the one that comes
// after them, and a channel that is closed when there is one. Lines that are
// gone are left out.
func (r *logRing) after(next int) (lines []logLine, then int, changed <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	from := max(next-r.first, 0)
	return append([]logLine(nil), r.lines[from:]...), r.first + len(r.lines), r.changed
}

// read calls emit as that of a logSource does.
func (r *logRing) read(ctx context.Context, q logQuery, emit func(logLine) error) error {
	lines, next, changed := r.after(0)
	wanted := lines[:0]
	for _, line := range lines {
		if q.wants(line) {
			wanted = append(wanted, line)
		}
	}
	if q.tail >= 0 {
		wanted = wanted[max(len(wanted)-q.tail, 0):]
	}
	for {
		for _, line := range wanted {
			if err := emit(line); err != nil {
				return err
			}
		}
		if !q.follow {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
		lines, next, changed = r.after(next)
		wanted = lines[:0]
		for _, line := range lines {
			if q.wants(line) {
				wanted = append(wanted, line)
			}
		}
	}
}

// wants reports whether a line is among those that were asked for.
func (q *logQuery) wants(line logLine) bool {
	return (q.instance == "" || line.Instance == q.instance) && !line.Timestamp.Before(q.since)
}

// A ringHandler passes records on, and keeps those of a replica in its
// function's ring: lines of STDERR as they are, what the watchdog has to say
// with its attributes.
type ringHandler struct {
	slog.Handler
	ring     *logRing
	instance string
}

func (h *ringHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo
}

func (h *ringHandler) Handle(ctx context.Context, record slog.Record) error {
	text, line := strings.Builder{}, ""
	text.WriteString(record.Message)
	record.Attrs(func(a slog.Attr) bool {
		if a.Key == "line" {
			line = a.Value.String()
			return false
		}
		text.WriteString(" " + a.String())
		return true
	})
	if line == "" && record.Message != "stderr" {
		line = text.String()
	}
	h.ring.add(logLine{Instance: h.instance, Timestamp: record.Time.UTC().Round(0), Text: line})
	if !h.Handler.Enabled(ctx, record.Level) {
		return nil
	}
	return h.Handler.Handle(ctx, record)
}

func (h *ringHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &ringHandler{h.Handler.WithAttrs(attrs), h.ring, h.instance}
}

func (h *ringHandler) WithGroup(name string) slog.Handler {
	return &ringHandler{h.Handler.WithGroup(name), h.ring, h.instance}
}

func (p *localProvider) logs(ctx context.Context, d definition, q logQuery) (func(func(logLine) error) error, error) {
	p.mu.Lock()
	s := p.functions[d.service]
	p.mu.Unlock()
	if s == nil {
		return nil, fmt.Errorf("logs of %s: %w", d.name, errNotFound)
	}
	return func(emit func(logLine) error) error { return s.ring.read(ctx, q, emit) }, nil
}

// describe shows a function's command and labels. Its variables may be secrets, and are
// not shown.
func (p *localProvider) describe(_ context.Context, defs []definition) (map[string]deployment.Status, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := make(map[string]deployment.Status, len(defs))
	for _, d := range defs {
		if s := p.functions[d.service]; s != nil {
			status := (&deployment.Deployment{Service: d.name, EnvProcess: s.command, Labels: s.labels}).Status()
			status.CreatedAt = p.started
			known[d.service] = status
		}
	}
	return known, nil
}
