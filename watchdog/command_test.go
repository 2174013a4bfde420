package watchdog

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

func TestSplitCommand(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want []string
	}{
		{``, nil},
		{" \t\n", nil},
		{`cat`, []string{"cat"}},
		{`  wc   -l `, []string{"wc", "-l"}},
		{`sh -c 'echo "a b"; exit 3'`, []string{"sh", "-c", `echo "a b"; exit 3`}},
		{`sh -c "echo 'a b' \"c\" \$d \\ \e"`, []string{"sh", "-c", `echo 'a b' "c" $d \ \e`}},
		{`a''b "" ''`, []string{"ab", "", ""}},
		{`a\ b \' \"`, []string{"a b", "'", `"`}},
		{"a\\\nb \"c\\\nd\"", []string{"ab", "cd"}},
		{`$HOME *.go ~ #no`, []string{"$HOME", "*.go", "~", "#no"}},
		{`'ä' ö\ü`, []string{"ä", "öü"}},
	} {
		t.Run(tt.in, func(t *testing.T) {
			got, err := SplitCommand(tt.in)
			if err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

func TestSplitCommandErrors(t *testing.T) {
	for in, want := range map[string]string{
		`echo 'a`:    "single quote",
		`echo "a`:    "double quote",
		`echo "a\`:   "double quote",
		`echo \`:     "backslash",
		"echo a\x00": "NUL",
		"'\x00'":     "NUL",
		"\"\x00\"":   "NUL",
		"\\\x00":     "NUL",
	} {
		if got, err := SplitCommand(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %q, %v, want an error about %s", in, got, err, want)
		}
	}
}

// What is split must be what a shell makes of it, where nothing is there to be
// expanded; and words that are quoted must come back as they were.
func FuzzSplitCommand(f *testing.F) {
	for _, s := range []string{`a 'b c' "d\"e" f\ g`, `''`, "\\\n", `"\x"`} {
		f.Add(s)
	}
	shell, _ := exec.LookPath("sh")
	runs := 0
	f.Fuzz(func(t *testing.T, s string) {
		words, err := SplitCommand(s)
		if err != nil {
			return
		}
		var quoted []string
		for _, w := range words {
			quoted = append(quoted, "'"+strings.ReplaceAll(w, "'", `'\''`)+"'")
		}
		again, err := SplitCommand(strings.Join(quoted, " "))
		if err != nil || !slices.Equal(again, words) {
			t.Fatalf("%q: got %q, %v after quoting, want %q", s, again, err, words)
		}
		if runs++; shell == "" || runs > 2000 || strings.ContainsAny(s, "$`*?[]{}()<>|&;#~=!\r\v\f\x00") || !isASCII(s) || newlineOutsideQuotes(s) || len(words) == 0 {
			return
		}
		out, err := exec.Command(shell, "-c", `printf '%s\0' `+s).Output()
		if err != nil {
			return // the shell refuses it for another reason
		}
		if want := strings.Join(words, "\x00") + "\x00"; string(out) != want {
			t.Fatalf("%q: got %q, a shell has %q", s, want, out)
		}
	})
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > 0x7e || r < ' ' && r != '\t' && r != '\n' })
}

// newlineOutsideQuotes reports whether s may hold a newline that ends a command
// in a shell, where it only separates words here.
func newlineOutsideQuotes(s string) bool { return strings.Contains(s, "\n") }
