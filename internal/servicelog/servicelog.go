// Package servicelog reads the logs of a Swarm service as the engine sends them: what
// all replicas on all nodes wrote, in frames.
package servicelog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"
)

// A Line is what a replica wrote.
type Line struct {
	Task string    // ID of the replica's task, "" if the engine did not say
	Time time.Time // zero if it did not say
	Text string    // without its line feed
}

// maxRead is how much of a terminal's output makes one line at most.
const maxRead = 64 << 10

// The engine's frames (Docker's API, ContainerAttach, "Stream format"): one
// byte for the stream, three of nothing, the length as a big-endian uint32.
const (
	frameHeader = 8
	maxFrame    = 1 << 20
)

// Read calls emit with each line of stream. A frame is what a process
// wrote at once, usually one line; the engine cuts lines above 16 KiB.
func Read(stream io.Reader, tty bool, emit func(Line) error) error {
	var header [frameHeader]byte
	var frame []byte
	for {
		size := maxRead
		if !tty {
			if _, err := io.ReadFull(stream, header[:]); err != nil {
				if err == io.EOF {
					return nil
				}
				return fmt.Errorf("read a log frame: %w", err)
			}
			size = int(binary.BigEndian.Uint32(header[4:]))
			if size > maxFrame || header[0] > 3 {
				return errors.New("read a log frame: the engine sent none")
			}
		}
		if cap(frame) < size {
			frame = make([]byte, size)
		}
		frame = frame[:size]
		var err error
		n := size
		if tty {
			n, err = stream.Read(frame)
		} else {
			_, err = io.ReadFull(stream, frame)
		}
		if n > 0 && (err == nil || tty) {
			if header[0] == 3 && !tty { // an error of the engine's
				return fmt.Errorf("the engine: %s", bytes.TrimSpace(frame))
			}
			for text := range bytes.Lines(frame[:n]) {
				if err := emit(parseLine(string(bytes.TrimRight(text, "\r\n")))); err != nil {
					return err
				}
			}
		}
		if err == io.EOF && tty {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read a log frame: %w", err)
		}
	}
}

// parseLine reads "TIMESTAMP DETAILS TEXT". What is none of it is text.
func parseLine(s string) Line {
	line := Line{Text: s}
	stamp, rest, ok := strings.Cut(s, " ")
	t, err := time.Parse(time.RFC3339Nano, stamp)
	if !ok || err != nil {
		return line
	}
	line.Time, line.Text = t, rest
	details, text, _ := strings.Cut(rest, " ")
	if !strings.Contains(details, "com.docker.swarm.task.id=") {
		return line
	}
	line.Text = text
	for pair := range strings.SplitSeq(details, ",") {
		if id, ok := strings.CutPrefix(pair, "com.docker.swarm.task.id="); ok {
			if line.Task, err = url.QueryUnescape(id); err != nil {
				line.Task = id
			}
		}
	}
	return line
}
