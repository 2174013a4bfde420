package main

// Alexa requests: what one is, read off a body that stays usable for anybody
// else. Which function answers it is in alexaindex.go, and whether Amazon
// really sent it in verify.go.

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	alexaMaxBody  = 256 << 10 // larger than any request of the Alexa Skills Kit
	alexaMaxDepth = 256       // real requests nest about 10 deep, with screens some 50

	alexaIntentRequest = "IntentRequest"
)

// An alexaRequest is what the gateway reads of a request of the Alexa Skills
// Kit. The function gets the body itself, byte for byte.
type alexaRequest struct {
	kind        string // request.type
	intent      string // request.intent.name, of an IntentRequest alone
	application string // the skill's ID
	requestID   string
	timestamp   string // as sent; verify reads it
}

// parseAlexa reports whether body is a request of the Alexa Skills Kit: one
// JSON object with a request.type and a skill's ID, in session.application
// (then with a session.sessionId) or, as AudioPlayer requests and skill events
// have no session, in context.System.application.
//
// It is strict where parsers differ, because the function behind reads the
// same bytes with a parser of its own: names match exactly, and a name that
// matters and comes twice, or again in another case, makes the body no Alexa
// request. The same goes for two skill IDs that differ, bytes that are not
// UTF-8 and nesting past alexaMaxDepth.
func parseAlexa(body []byte) (alexaRequest, bool) {
	none := alexaRequest{}
	if len(body) > alexaMaxBody || !utf8.Valid(body) || !json.Valid(body) || nestsDeeper(body, alexaMaxDepth) {
		return none, false
	}
	var top, inner [4][]byte
	if !pick(body, top[:3], "request", "session", "context") {
		return none, false
	}
	if !pick(top[0], inner[:4], "type", "requestId", "timestamp", "intent") {
		return none, false
	}
	req := alexaRequest{kind: text(inner[0]), requestID: text(inner[1]), timestamp: text(inner[2])}
	if req.kind == "" {
		return none, false
	}
	if req.kind == alexaIntentRequest {
		var name [1][]byte
		if !pick(inner[3], name[:], "name") {
			return none, false
		}
		if req.intent = text(name[0]); req.intent == "" {
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
	if req.application = fromSession; fromSession == "" {
		req.application = fromContext
	}
	if req.application == "" || fromSession != "" && fromContext != "" && fromSession != fromContext {
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

// pick sets values to those of the named members of a JSON object, nil for one
// that is missing or null. It reports false if object is none, or if a member
// could be taken for a wanted one that it is not: a second one of that name,
// or one whose name differs in case alone. object must be valid JSON, or nil.
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

// text returns the string that a JSON value is, or "" if it is another thing.
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

// peekAlexa looks for an Alexa request in the body of r. It reads no more than
// it takes to tell, alexaMaxBody+1 bytes at most, and afterwards r.Body gives
// the same bytes again and then the rest, whatever was found. body is the
// whole body where ok, for the signature; it must not be changed.
//
// err is one of reading the body. How long a slow sender may take is up to the
// read deadline of the connection.
func peekAlexa(r *http.Request) (req alexaRequest, body []byte, ok bool, err error) {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 || r.ContentLength > alexaMaxBody {
		return alexaRequest{}, nil, false, nil
	}
	// Grown as bytes arrive: a sender pays for what it makes us hold.
	body = make([]byte, 0, min(max(r.ContentLength+1, 512), 8<<10))
	object, whole := false, false
	for !whole && err == nil && len(body) <= alexaMaxBody {
		if len(body) == cap(body) {
			body = slices.Grow(body, len(body))
		}
		var n int
		n, err = r.Body.Read(body[len(body):min(cap(body), alexaMaxBody+1)])
		body = body[:len(body)+n]
		if err == io.EOF {
			whole, err = true, nil
		}
		if !object {
			first := skipSpace(body, 0)
			if first == len(body) {
				continue
			}
			if body[first] != '{' {
				break
			}
			object = true
		}
	}
	r.Body = restoredBody{io.MultiReader(bytes.NewReader(body), r.Body), r.Body}
	if err != nil {
		return alexaRequest{}, nil, false, fmt.Errorf("read the body: %w", err)
	}
	if whole && object {
		req, ok = parseAlexa(body)
	}
	if !ok {
		return alexaRequest{}, nil, false, nil
	}
	return req, body, true, nil
}

// A restoredBody reads what was read before again, and closes the original.
type restoredBody struct {
	io.Reader
	io.Closer
}
