package servicelog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// logFrame is what the engine sends for one write of a process.
func logFrame(stream byte, text string) string {
	header := make([]byte, frameHeader)
	header[0] = stream
	binary.BigEndian.PutUint32(header[4:], uint32(len(text)))
	return string(header) + text
}

const logPrefix = "2026-01-02T03:04:05.000000006Z com.docker.swarm.node.id=n1,com.docker.swarm.service.id=s1,com.docker.swarm.task.id=t1 "

func readFrames(t *testing.T, in io.Reader, tty bool) ([]Line, error) {
	t.Helper()
	var lines []Line
	err := Read(in, tty, func(l Line) error {
		lines = append(lines, l)
		return nil
	})
	return lines, err
}

func TestLogFrames(t *testing.T) {
	long := strings.Repeat("x", 16<<10)
	for _, c := range []struct {
		name, in string
		want     []string
	}{
		{"nothing", "", nil},
		{"one line", logFrame(1, logPrefix+"hello\n"), []string{"hello"}},
		{"both streams", logFrame(1, logPrefix+"out\n") + logFrame(2, logPrefix+"err\r\n"), []string{"out", "err"}},
		{"shorter than eight bytes", logFrame(1, "a\n") + logFrame(2, "\n"), []string{"a", ""}},
		{"no bytes", logFrame(1, "") + logFrame(1, logPrefix+"b\n"), []string{"b"}},
		{"no line feed", logFrame(1, logPrefix+"c"), []string{"c"}},
		{"a line of blanks and commas", logFrame(1, logPrefix+"a, b  c=d\n"), []string{"a, b  c=d"}},
		{"bytes that look like a header", logFrame(1, logPrefix+"\x01\x00\x00\x00\x00\x00\x00\x05\n"), []string{"\x01\x00\x00\x00\x00\x00\x00\x05"}},
		{"long", logFrame(1, logPrefix+long+"\n"), []string{long}},
	} {
		for _, in := range []io.Reader{strings.NewReader(c.in), iotest.OneByteReader(strings.NewReader(c.in))} {
			lines, err := readFrames(t, in, false)
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			var got []string
			for _, l := range lines {
				got = append(got, l.Text)
				if l.Time.IsZero() != !strings.Contains(c.in, logPrefix) && l.Text != "" && l.Text != "a" {
					t.Errorf("%s: %q: got time %v", c.name, l.Text, l.Time)
				}
			}
			if strings.Join(got, "|") != strings.Join(c.want, "|") || len(got) != len(c.want) {
				t.Errorf("%s: got %q, want %q", c.name, got, c.want)
			}
		}
	}
	lines, _ := readFrames(t, strings.NewReader(logFrame(1, logPrefix+"hello\n")), false)
	want := Line{Task: "t1", Time: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), Text: "hello"}
	if len(lines) != 1 || lines[0] != want {
		t.Errorf("got %+v, want %+v", lines, want)
	}
}

func TestLogFramesThatAreNone(t *testing.T) {
	for _, in := range []string{
		"HTTP/1.1 500\r\n",
		logFrame(1, logPrefix+"cut short\n")[:40],
		logFrame(1, "x")[:4],
		logFrame(9, "x"),
		logFrame(3, "the engine's own error"),
		string([]byte{1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}),
	} {
		if lines, err := readFrames(t, strings.NewReader(in), false); err == nil || len(lines) > 0 {
			t.Errorf("%q: got %v, %v, want an error and no line", in, lines, err)
		}
	}
	broken := errors.New("the client went away")
	if err := Read(strings.NewReader(logFrame(1, "a\n")+logFrame(1, "b\n")), false, func(Line) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("got %v, want what emit said", err)
	}
}

func FuzzLogFrames(f *testing.F) {
	f.Add([]byte(logFrame(1, logPrefix+"hello\n")), false)
	f.Add([]byte(logPrefix+"tty\n"), true)
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0}, false)
	f.Fuzz(func(t *testing.T, in []byte, tty bool) {
		total := 0
		Read(bytes.NewReader(in), tty, func(l Line) error {
			total += len(l.Text)
			return nil
		})
		if total > len(in) {
			t.Errorf("got %d bytes of text out of %d", total, len(in))
		}
	})
}
