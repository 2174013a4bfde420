// Package alexa parses requests of the Alexa Skills Kit and verifies that Amazon
// sent them.
package alexa

// Parsing of requests.

import (
	"bytes"
	"encoding/json"
	"strings"
	"unicode/utf8"
)

// MaxBody is the maximum length of a body in bytes, more than any request of the
// Alexa Skills Kit has.
const MaxBody = 256 << 10

// maxDepth: real requests nest about 10 deep, with screens some 50.
const maxDepth = 256

// IntentRequest is the Type of requests that have an Intent.
const IntentRequest = "IntentRequest"

// A Request holds the parsed parts of a request of the Alexa Skills Kit.
type Request struct {
	Type        string // request.type
	Intent      string // request.intent.name, only of an IntentRequest
	Application string // the skill's ID
	ID          string // request.requestId
	Timestamp   string // request.timestamp as sent; Verify reads it
}

// Parse reports whether body is a request of the Alexa Skills Kit: one
// JSON object with a request.type and a skill's ID, in session.application
// (then with a session.sessionId) or, as AudioPlayer requests and skill events
// have no session, in context.System.application.
//
// It is strict where parsers differ, because the function parses the same bytes
// with its own parser. Names match exactly, and if a relevant name comes twice, or
// again in another case, the body is not an Alexa request. The same goes for two
// skill IDs that differ, bytes that are not UTF-8 and nesting past maxDepth.
func Parse(body []byte) (Request, bool) {
	none := Request{}
	if len(body) > MaxBody || !utf8.Valid(body) || !json.Valid(body) || nestsDeeper(body, maxDepth) {
		return none, false
	}
	var top, inner [4][]byte
	if !pick(body, top[:3], "request", "session", "context") {
		return none, false
	}
	if !pick(top[0], inner[:4], "type", "requestId", "timestamp", "intent") {
		return none, false
	}
	req := Request{Type: text(inner[0]), ID: text(inner[1]), Timestamp: text(inner[2])}
	if req.Type == "" {
		return none, false
	}
	if req.Type == IntentRequest {
		var name [1][]byte
		if !pick(inner[3], name[:], "name") {
			return none, false
		}
		if req.Intent = text(name[0]); req.Intent == "" {
			return none, false
		}
	}

	var fromSession, fromContext string
	if session := top[1]; session != nil {
		if !pick(session, inner[:2], "sessionId", "application") || text(inner[0]) == "" {
			return none, false
		}
		var ok bool
		if fromSession, ok = applicationID(inner[1]); !ok {
			return none, false
		}
	}
	if context := top[2]; context != nil {
		if !pick(context, inner[:1], "System") {
			return none, false
		}
		if system := inner[0]; system != nil {
			if !pick(system, inner[:1], "application") {
				return none, false
			}
			var ok bool
			if fromContext, ok = applicationID(inner[0]); !ok {
				return none, false
			}
		}
	}
	if req.Application = fromSession; fromSession == "" {
		req.Application = fromContext
	}
	if req.Application == "" || fromSession != "" && fromContext != "" && fromSession != fromContext {
		return none, false
	}
	return req, true
}

// applicationID returns the skill's ID out of an application object, or "" if
// there is none.
func applicationID(application []byte) (string, bool) {
	if application == nil {
		return "", true
	}
	var id [1][]byte
	if !pick(application, id[:], "applicationId") {
		return "", false
	}
	return text(id[0]), true
}

// pick sets values to those of the named members of a JSON object, nil for one that
// is missing or null. It reports false if object is not an object, or if a member
// is ambiguous: a second one of a wanted name, or one whose name differs only in
// case. object must be valid JSON, or nil.
func pick(object []byte, values [][]byte, names ...string) bool {
	if len(object) == 0 {
		return false
	}
	for i := range values {
		values[i] = nil
	}
	var seen [4]bool
	i := skipSpace(object, 0)
	if object[i] != '{' {
		return false
	}
	for i = skipSpace(object, i+1); object[i] != '}'; {
		end := valueEnd(object, i)
		name := object[i:end]
		if bytes.IndexByte(name, '\\') >= 0 { // spelt with escapes
			name = []byte(text(name))
		} else {
			name = name[1 : len(name)-1]
		}
		i = skipSpace(object, end)     // the colon
		i = skipSpace(object, i+1)     // the value
		end = valueEnd(object, i)      // past it
		next := skipSpace(object, end) // a comma or the end
		for n, want := range names {
			if string(name) == want {
				if seen[n] {
					return false
				}
				seen[n] = true
				if object[i] != 'n' { // null
					values[n] = object[i:end]
				}
			} else if strings.EqualFold(string(name), want) {
				return false
			}
		}
		if i = next; object[i] == ',' {
			i = skipSpace(object, i+1)
		}
	}
	return true
}

// text returns a JSON string's value, or "" for any other JSON value.
func text(value []byte) string {
	if len(value) < 2 || value[0] != '"' {
		return ""
	}
	if bytes.IndexByte(value, '\\') < 0 {
		return string(value[1 : len(value)-1])
	}
	var s string
	if json.Unmarshal(value, &s) != nil {
		return ""
	}
	return s
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\n' || b[i] == '\r') {
		i++
	}
	return i
}

// stringEnd returns the index past the string that begins at b[i]. b must be
// valid JSON.
func stringEnd(b []byte, i int) int {
	for i++; b[i] != '"'; i++ {
		if b[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// valueEnd returns the index past the value that begins at b[i]. b must be
// valid JSON.
func valueEnd(b []byte, i int) int {
	depth := 0
	for i < len(b) {
		switch b[i] {
		case '"':
			i = stringEnd(b, i)
			if depth == 0 {
				return i
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth < 0 {
				return i // a number or a word was the last of its object
			}
			if depth == 0 {
				return i + 1
			}
		case ',', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return i
			}
		}
		i++
	}
	return i
}

// nestsDeeper reports whether the objects and arrays of b, which must be valid
// JSON, nest deeper than limit.
func nestsDeeper(b []byte, limit int) bool {
	depth := 0
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			i = stringEnd(b, i) - 1
		case '{', '[':
			if depth++; depth > limit {
				return true
			}
		case '}', ']':
			depth--
		}
	}
	return false
}
