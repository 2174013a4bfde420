package watchdog

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// A recorder keeps the attributes of each record.
type recorder struct{ records []map[string]any }

func (r *recorder) Enabled(context.Context, slog.Level) bool { return true }
func (r *recorder) WithAttrs([]slog.Attr) slog.Handler       { return r }
func (r *recorder) WithGroup(string) slog.Handler            { return r }
func (r *recorder) Handle(_ context.Context, rec slog.Record) error {
	attrs := map[string]any{}
	rec.Attrs(func(a slog.Attr) bool { attrs[a.Key] = a.Value.Any(); return true })
	r.records = append(r.records, attrs)
	return nil
}

func TestLogLines(t *testing.T) {
	long := strings.Repeat("x", maxLine)
	for _, tt := range []struct {
		name, in string
		want     []string
		cut      []bool
	}{
		{"nothing", "", nil, nil},
		{"lines", "a\nb\r\n\nc", []string{"a", "b", "", "c"}, []bool{false, false, false, false}},
		{"as long as may be", long + "\nb\n", []string{long, "b"}, []bool{false, false}},
		{"longer", long + long + "end\nb\n", []string{long, long, "end", "b"}, []bool{true, true, false, false}},
		{"longer without an end", long + "end", []string{long, "end"}, []bool{true, false}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var rec recorder
			logLines(slog.New(&rec), iotest.HalfReader(strings.NewReader(tt.in)), "id")
			var lines []string
			var cut []bool
			for _, r := range rec.records {
				lines = append(lines, r["line"].(string))
				cut = append(cut, r["cut"] == true)
				if r["call_id"] != "id" {
					t.Errorf("got call ID %v, want id", r["call_id"])
				}
			}
			if !slices.Equal(lines, tt.want) || !slices.Equal(cut, tt.cut) {
				t.Errorf("got %d lines, cut %v, want %d, %v", len(lines), cut, len(tt.want), tt.cut)
			}
		})
	}
}

// STDERR reaches the log with the call ID, however the process ends; STDOUT
// never does.
func TestStderrIsLogged(t *testing.T) {
	for _, script := range []string{
		`echo secret; echo said >&2`,
		`echo secret; echo said >&2; sleep 0.1; exit 3`,
		`sleep 60 & echo secret; echo said >&2`,
	} {
		url, _, log := serve(t, testConfig(t, "sh -c '"+script+"'"))
		do(t, "GET", url, nil, "X-Call-Id: call-1")
		if got := log.String(); !strings.Contains(got, "call_id=call-1 line=said") || strings.Contains(got, "secret") {
			t.Errorf("%s: got log %q, want said with the call ID and no STDOUT", script, got)
		}
	}
}

// With prefix_logs=false STDERR is the watchdog's own.
func TestStderrInherited(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	old := os.Stderr
	os.Stderr = w
	defer func() { os.Stderr = old }()
	url, _, log := serve(t, testConfig(t, `sh -c 'echo said >&2'`, "prefix_logs=false"))
	do(t, "GET", url, nil)
	b := make([]byte, 100)
	if n, err := r.Read(b); err != nil || string(b[:n]) != "said\n" {
		t.Errorf("got %q, %v, want said", b[:n], err)
	}
	if strings.Contains(log.String(), "said") {
		t.Errorf("got log %q, want nothing of it", log)
	}
}
