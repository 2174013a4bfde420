package wire

// RFC 9112's message framing and field syntax as an incremental state machine, so
// that the result does not depend on how a request is split.

import "faas/internal/field"

// A scanState says what the next byte belongs to. check depends on the order.
type scanState uint8

const (
	stateStart      scanState = iota // a request, or one empty line before it
	stateStartLF                     // the LF of that empty line
	stateStartAgain                  // a request
	stateMethod
	stateTarget
	stateVersion
	statePreface    // HTTP/2's, after its method
	stateFirstField // a line of the header or trailer section, or its end
	stateField
	stateName
	stateValue
	stateLength     // the value of Content-Length
	stateCoding     // the value of Transfer-Encoding
	stateFramingEnd // white space after either
	stateLF         // the LF after a CR; what follows is in next
	stateBody       // of a known length
	stateChunkSize
	stateChunkExtension
	stateChunkData
	stateChunkCR    // the CR after a chunk's data
	stateEndSection // no byte: the end of a header or trailer section
	stateRaw        // HTTP/1 no more
)

const (
	// Digits that can never overflow an int64.
	maxLengthDigits = 18
	maxChunkDigits  = 15
	// Extensions in use are short (signatures of some 80 bytes); longer ones only
	// waste time.
	maxChunkExtension = 256

	http2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	// The part of the preface that may be passed on before the rest is known. One
	// more byte would complete a head, which net/http would give to the handler as
	// a request with the method PRI.
	http2PrefaceOpen = len("PRI * HTTP/2.0\r\n")
)

// scanner follows the requests on one connection. The zero value is at the
// start of it.
type scanner struct {
	state, next scanState

	later    bool // not at the very beginning of the connection
	http10   bool
	connect  bool // the method is CONNECT
	sized    bool // Content-Length seen
	chunked  bool // Transfer-Encoding seen
	body     bool // inside a chunked body
	trailers bool // in its trailer section

	pos    int   // bytes of the present element, where its length matters
	length int64 // of the body or chunk, still to come
	inHand int   // requests handed on and not answered yet

	// The beginning of a method or name that was split between two reads;
	// what does not fit is longer than any that matters.
	part    [24]byte
	partLen int
}

// waits reports whether requests before the present one are still to be
// answered. A request that is in hand itself can break a rule only by a chunked
// body.
func (s *scanner) waits() bool {
	if s.body {
		return s.inHand > 1
	}
	return s.inHand > 0
}

// heldBack returns the bytes that were checked but must not be handed on yet.
func (s *scanner) heldBack() string {
	if s.state != statePreface || s.pos <= http2PrefaceOpen {
		return ""
	}
	return http2Preface[http2PrefaceOpen:s.pos]
}

// check follows p, the bytes that come next. It returns how many of them may be
// handed on, which is all but those of an empty line before a request, and
// these it removes from p; or those before the byte that breaks a rule.
// After a violation it must not be called again.
func (s *scanner) check(p []byte) (n int, broken violation) {
	i := 0
	for i < len(p) && broken == "" {
		switch {
		case s.state < stateMethod:
			i, p, broken = s.start(p, i)
		case s.state < stateFirstField:
			i, broken = s.requestLine(p, i)
		case s.state < stateLF:
			i, broken = s.fieldLine(p, i)
		case s.state == stateLF:
			i, broken = s.lineEnd(p, i)
		case s.state < stateRaw:
			i, broken = s.content(p, i)
		default:
			i = len(p)
		}
	}
	return i, broken
}

// start takes the byte at i, before a request. RFC 9112, section 2.2: some old
// clients send an empty line too many after a body, and one is ignored.
func (s *scanner) start(p []byte, i int) (int, []byte, violation) {
	switch {
	case s.state == stateStart && p[i] == '\r':
		s.state = stateStartLF
	case s.state == stateStartLF && p[i] == '\n':
		s.later = true
		s.state = stateStartAgain
	case s.state == stateStartLF:
		return i, p, violationBareCR
	default:
		s.state = stateMethod
		return i, p, ""
	}
	return i, append(p[:i], p[i+1:]...), ""
}

// requestLine follows a request line, or the HTTP/2 preface, from i on.
func (s *scanner) requestLine(p []byte, i int) (int, violation) {
	switch s.state {
	case stateMethod:
		start := i
		for i < len(p) && field.IsTokenByte(p[i]) {
			i++
		}
		if i == len(p) {
			s.keep(p[start:])
			break
		}
		method := s.token(p[start:i])
		if p[i] != ' ' || len(method) == 0 {
			return i, orBareLF(p[i], violationRequestLine)
		}
		i++
		s.pos = 0
		s.state = stateTarget
		switch string(method) {
		case "CONNECT":
			s.connect = true
		case "PRI":
			if s.later {
				return i, violationPreface
			}
			s.pos = len("PRI ")
			s.state = statePreface
		}

	case statePreface:
		if p[i] != http2Preface[s.pos] {
			return i, violationPreface
		}
		i++
		s.pos++
		if s.pos == len(http2Preface) {
			s.state = stateRaw
		}

	case stateTarget:
		start := i
		for i < len(p) && field.IsTargetByte(p[i]) {
			i++
		}
		s.pos += i - start
		if i == len(p) {
			break
		}
		if p[i] != ' ' || s.pos == 0 {
			return i, orBareLF(p[i], violationRequestLine)
		}
		i++
		s.pos = 0
		s.state = stateVersion

	case stateVersion:
		const form = "HTTP/0.0"
		if s.pos == len(form) {
			if p[i] != '\r' {
				return i, orBareLF(p[i], violationRequestLine)
			}
			i++
			s.wantLF(stateFirstField)
			return i, ""
		}
		switch c := p[i]; {
		case form[s.pos] != '0' && c == form[s.pos]:
		case form[s.pos] == '0' && isDigit(c):
			// Below 1.1; net/http refuses the other major versions.
			if s.pos == len(form)-3 {
				s.http10 = c == '0'
			} else if c == '0' {
				s.http10 = true
			}
		default:
			return i, orBareLF(c, violationRequestLine)
		}
		i++
		s.pos++
	}
	return i, ""
}

// fieldLine follows a line of a header or trailer section from i on.
func (s *scanner) fieldLine(p []byte, i int) (int, violation) {
	switch s.state {
	case stateFirstField, stateField:
		switch p[i] {
		case '\r':
			i++
			s.wantLF(stateEndSection)
			return i, ""
		case ' ', '\t':
			if s.state == stateFirstField {
				return i, violationLeadingSpace
			}
			return i, violationFold
		}
		s.state = stateName
		fallthrough

	case stateName:
		start := i
		for i < len(p) && field.IsTokenByte(p[i]) {
			i++
		}
		if i == len(p) {
			s.keep(p[start:])
			break
		}
		name := s.token(p[start:i])
		if p[i] != ':' || len(name) == 0 {
			if isSpace(p[i]) {
				return i, violationColonSpace
			}
			return i, orBareLF(p[i], violationName)
		}
		if broken := s.field(name); broken != "" {
			return i, broken
		}
		i++

	case stateValue:
		for i < len(p) && field.IsValueByte(p[i]) {
			i++
		}
		if i == len(p) {
			break
		}
		if p[i] != '\r' {
			return i, orBareLF(p[i], violationValue)
		}
		i++
		s.wantLF(stateField)

	case stateLength:
		switch c := p[i]; {
		case isDigit(c) && s.pos < maxLengthDigits:
			s.length = s.length*10 + int64(c-'0')
			s.pos++
		case isSpace(c) && s.pos == 0:
		case (isSpace(c) || c == '\r') && s.pos > 0:
			s.state = stateFramingEnd
			return i, ""
		default:
			return i, orBareLF(c, violationLength)
		}
		i++

	case stateCoding:
		const coding = "chunked"
		switch c := p[i]; {
		case s.pos < len(coding) && c|0x20 == coding[s.pos]:
			s.pos++
		case isSpace(c) && s.pos == 0:
		case (isSpace(c) || c == '\r') && s.pos == len(coding):
			s.state = stateFramingEnd
			return i, ""
		default:
			return i, orBareLF(c, violationCoding)
		}
		i++

	case stateFramingEnd:
		switch c := p[i]; {
		case isSpace(c):
		case c == '\r':
			s.wantLF(stateField)
		case s.chunked:
			return i, orBareLF(c, violationCoding)
		default:
			return i, orBareLF(c, violationLength)
		}
		i++
	}
	return i, ""
}

// lineEnd takes the byte after a CR.
func (s *scanner) lineEnd(p []byte, i int) (int, violation) {
	if p[i] != '\n' {
		if s.next == stateChunkSize {
			return i, violationChunkEnd
		}
		return i, violationBareCR
	}
	s.state = s.next
	if s.state == stateEndSection {
		s.endSection()
	}
	return i + 1, ""
}

// content follows a body from i on, but for its trailers.
func (s *scanner) content(p []byte, i int) (int, violation) {
	switch s.state {
	case stateBody, stateChunkData:
		taken := min(int64(len(p)-i), s.length)
		s.length -= taken
		i += int(taken)
		switch {
		case s.length > 0:
		case s.state == stateBody:
			s.endMessage()
		default:
			s.state = stateChunkCR
		}

	case stateChunkSize:
		c := p[i]
		digit, ok := hexDigit(c)
		switch {
		case ok && s.pos < maxChunkDigits:
			s.length = s.length<<4 | int64(digit)
			s.pos++
		case c == '\r' && s.pos > 0:
			s.endChunkSize()
		case c == ';' && s.pos > 0:
			s.pos = 0
			s.state = stateChunkExtension
		default:
			return i, orBareLF(c, violationChunkSize)
		}
		i++

	case stateChunkExtension:
		switch c := p[i]; {
		case field.IsValueByte(c) && s.pos < maxChunkExtension:
			s.pos++
		case c == '\r':
			s.endChunkSize()
		default:
			return i, orBareLF(c, violationChunkExtension)
		}
		i++

	case stateChunkCR:
		if p[i] != '\r' {
			return i, violationChunkEnd
		}
		i++
		s.pos = 0
		s.wantLF(stateChunkSize)
	}
	return i, ""
}

// field checks the name of a header or trailer and chooses how its value is read.
func (s *scanner) field(name []byte) violation {
	s.state = stateValue
	switch {
	case s.trailers:
		for _, forbidden := range forbiddenTrailers {
			if equalName(name, forbidden) {
				return violationTrailer
			}
		}
		return ""
	case equalName(name, "content-length"):
		if s.sized {
			return violationTwoLengths
		}
		s.sized = true
		s.state = stateLength
	case equalName(name, "transfer-encoding"):
		if s.http10 {
			return violationCodingHTTP10
		}
		if s.chunked {
			return violationCoding
		}
		s.chunked = true
		s.state = stateCoding
	default:
		return ""
	}
	s.pos = 0
	switch {
	case s.sized && s.chunked:
		return violationLengthCoding
	case s.connect:
		return violationConnectBody
	}
	return ""
}

// endSection goes on after the empty line that ends a header or trailer section.
func (s *scanner) endSection() {
	if s.trailers {
		s.endMessage()
		return
	}
	s.inHand++
	switch {
	case s.chunked:
		s.body = true
		s.pos = 0
		s.state = stateChunkSize
	case s.length > 0:
		s.state = stateBody
	default:
		s.endMessage()
	}
}

// endChunkSize goes on after the CR of the line that begins a chunk.
func (s *scanner) endChunkSize() {
	if s.length > 0 {
		s.wantLF(stateChunkData)
		return
	}
	s.trailers = true
	s.wantLF(stateFirstField)
}

func (s *scanner) endMessage() {
	*s = scanner{later: true, inHand: s.inHand}
}

func (s *scanner) wantLF(next scanState) {
	s.state, s.next = stateLF, next
}

// keep saves the beginning of a token whose end is still to come.
func (s *scanner) keep(part []byte) {
	s.partLen += copy(s.part[s.partLen:], part)
}

// token returns the whole token that ends in last; what is cut off is longer
// than any that matters. It is good until the next call of keep.
func (s *scanner) token(last []byte) []byte {
	if s.partLen == 0 {
		return last
	}
	s.keep(last)
	whole := s.part[:s.partLen]
	s.partLen = 0
	return whole
}
