package watchdog

// STDERR of a process, line by line into the log.

import (
	"bytes"
	"io"
	"log/slog"
)

const maxLine = 64 << 10

// logLines logs what r has, a record per line. A line longer than maxLine
// makes several records, each but the last with the attribute cut.
func logLines(log *slog.Logger, r io.Reader, callID string) {
	var (
		buf  = make([]byte, 0, 1<<10)
		done = false
	)
	record := func(line []byte, cut bool) {
		attrs := make([]any, 0, 6)
		if callID != "" {
			attrs = append(attrs, "call_id", callID)
		}
		attrs = append(attrs, "line", string(line))
		if cut {
			attrs = append(attrs, "cut", true)
		}
		log.Info("stderr", attrs...)
	}
	for !done {
		if len(buf) == cap(buf) {
			grown := make([]byte, len(buf), min(4*cap(buf), maxLine+1)) // one more shows whether the line ends
			copy(grown, buf)
			buf = grown
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		done = err != nil
		rest := buf
		for {
			i := bytes.IndexByte(rest, '\n')
			if i < 0 {
				break
			}
			record(bytes.TrimSuffix(rest[:i], []byte{'\r'}), false)
			rest = rest[i+1:]
		}
		if len(rest) > maxLine {
			record(rest[:maxLine], true)
			rest = rest[maxLine:]
		}
		buf = append(buf[:0], rest...)
	}
	if len(buf) > 0 {
		record(buf, false)
	}
}
