// Package jsonbody reads JSON that somebody has sent, and says where it is wrong.
package jsonbody

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Decode reads one JSON object into v. Members that v does not know are
// ignored, as clients of other versions send them. The error says in which
// line and column the object is wrong.
func Decode(body []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	err := d.Decode(v)
	if err == nil {
		if _, err := d.Token(); err != io.EOF {
			return fmt.Errorf("JSON: more than one value: the first ends at %s", position(body, d.InputOffset()))
		}
		return nil
	}
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Errorf("JSON, %s: %s", position(body, syntax.Offset), syntax)
	}
	if kind, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("JSON, %s: %s: got %s, want %s", position(body, kind.Offset), orWord(kind.Field, "the value"), kind.Value, jsonKind(kind))
	}
	if err == io.EOF {
		return errors.New("JSON: the body is empty")
	}
	return fmt.Errorf("JSON, %s: the body ends too early", position(body, int64(len(body))))
}

// position names an offset into text.
func position(text []byte, offset int64) string {
	before := text[:min(max(offset, 0), int64(len(text)))]
	line := bytes.Count(before, []byte("\n")) + 1
	column := len(before) - (bytes.LastIndexByte(before, '\n') + 1)
	return fmt.Sprintf("line %d, column %d", line, max(column, 1))
}

func jsonKind(e *json.UnmarshalTypeError) string {
	switch e.Type.Kind().String() {
	case "string":
		return "a string"
	case "bool":
		return "true or false"
	case "slice":
		return "an array"
	case "map", "struct", "ptr":
		return "an object"
	}
	return "a number"
}

func orWord(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
