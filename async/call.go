package main

// A call: a request that somebody made and that runs later. In the queue it is
// one NATS message, whose data is the request as HTTP/1.1 writes it.

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	maxNameLen   = 63
	maxCallIDLen = 128
)

// A call is immutable once it is in the queue.
type call struct {
	id       string // X-Call-Id; several calls may have the same
	uid      string // tells calls of the same ID apart; a token
	function string
	callback string // X-Callback-Url; empty: none
	accepted time.Time

	method string
	target string // from the / behind the function's name on, with the query; / at least
	name   string // the function as the caller wrote it, with or without the namespace
	host   string
	header http.Header
	body   []byte
}

// NATS headers of a call.
const (
	headerID       = "Faas-Call-Id"
	headerUID      = "Faas-Uid"
	headerFunction = "Faas-Function"
	headerName     = "Faas-Name"
	headerAccepted = "Faas-Accepted" // Unix nanoseconds
	headerCallback = "Faas-Callback"
)

// message writes c for the queue, under subject.
func (c *call) message(subject string) *nats.Msg {
	m := nats.NewMsg(subject)
	c.writeHeader(m.Header)
	m.Data = c.writeRequest()
	return m
}

func (c *call) writeHeader(h nats.Header) {
	h.Set(headerID, c.id)
	h.Set(headerUID, c.uid)
	h.Set(headerFunction, c.function)
	h.Set(headerName, c.name)
	h.Set(headerAccepted, strconv.FormatInt(c.accepted.UnixNano(), 10))
	if c.callback != "" {
		h.Set(headerCallback, c.callback)
	}
}

func (c *call) writeRequest() []byte {
	var b bytes.Buffer
	b.Grow(len(c.body) + 512)
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", c.method, c.target, c.host)
	c.header.Write(&b)
	b.WriteString("\r\n")
	b.Write(c.body)
	return b.Bytes()
}

// parseCall reads what message wrote.
func parseCall(h nats.Header, data []byte) (*call, error) {
	c := &call{
		id: h.Get(headerID), uid: h.Get(headerUID), function: h.Get(headerFunction),
		name: h.Get(headerName), callback: h.Get(headerCallback),
	}
	nanos, err := strconv.ParseInt(h.Get(headerAccepted), 10, 64)
	if err != nil || c.id == "" || c.uid == "" || !validName(c.function) {
		return nil, fmt.Errorf("message is no call: its headers are incomplete")
	}
	c.accepted = time.Unix(0, nanos)
	end := bytes.Index(data, []byte("\r\n\r\n"))
	if end < 0 {
		return nil, fmt.Errorf("message is no call: its request has no end")
	}
	req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(data[:end+4])))
	if err != nil {
		return nil, fmt.Errorf("message is no call: %w", err)
	}
	c.method, c.target, c.host, c.header, c.body = req.Method, req.RequestURI, req.Host, req.Header, data[end+4:]
	return c, nil
}

// hopHeaders are about one connection and are never passed on.
var hopHeaders = []string{
	"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
	"Te", "Trailer", "Transfer-Encoding", "Upgrade", "Expect", "Content-Length",
}

// queueHeaders are about the way into the queue and do not go with a call.
var queueHeaders = []string{"X-Callback-Url", "X-Timeout", "X-Start-Time", "X-Call-Id"}

// endToEnd returns the headers that are for the other end.
func endToEnd(h http.Header) http.Header {
	kept := h.Clone()
	for _, list := range h["Connection"] {
		for _, name := range splitList(list) {
			kept.Del(name)
		}
	}
	for _, name := range hopHeaders {
		kept.Del(name)
	}
	return kept
}

// validName tells whether a function can have this name.
func validName(name string) bool {
	if name == "" || len(name) > maxNameLen || !isAlnum(name[0]) {
		return false
	}
	for _, c := range []byte(name) {
		if !isAlnum(c) && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// validCallID tells whether a caller's own call ID is kept.
func validCallID(id string) bool { return len(id) <= maxCallIDLen && isVisible(id) }

func isVisible(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return s != ""
}

func isAlnum(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// token writes s as one token of a NATS subject: letters, digits, - and _ as
// they are, other bytes as =XX.
func token(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if isAlnum(c) || c == '-' || c == '_' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "=%02X", c)
		}
	}
	return b.String()
}

// idToken writes a call's ID as one token. Those that are UUIDs, as nearly all
// are, get a third shorter: JetStream has the subjects in memory.
func idToken(id string) string {
	if b, err := hex.DecodeString(strings.ReplaceAll(id, "-", "")); err == nil && len(b) == 16 && fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]) == id {
		return "=U" + base64.RawURLEncoding.EncodeToString(b) // which token never writes
	}
	return token(id)
}

// untoken is the inverse of token.
func untoken(s string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '=' {
			b.WriteByte(s[i])
			continue
		}
		if i+3 > len(s) {
			return "", fmt.Errorf("%q ends within an escape", s)
		}
		c, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
		if err != nil {
			return "", fmt.Errorf("%q has a bad escape", s)
		}
		b.WriteByte(byte(c))
		i += 2
	}
	return b.String(), nil
}

// newUID makes the part of a call's subject that no other call of the same ID
// has.
func newUID() string { return rand.Text()[:12] }

// newCallID makes a random UUID.
func newCallID() string {
	var b [16]byte
	rand.Read(b[:])
	return uuid(b)
}

// callIDOf makes a UUID that is the same for the same parts, wherever it is
// made.
func callIDOf(parts ...string) string {
	sum := sumOf(parts...)
	return uuid([16]byte(sum[:16]))
}

// sumOf hashes parts so that no two lists of them have the same sum.
func sumOf(parts ...string) [32]byte {
	h := sha256.New()
	for _, p := range parts {
		binary.Write(h, binary.BigEndian, uint64(len(p)))
		h.Write([]byte(p))
	}
	return [32]byte(h.Sum(nil))
}

func uuid(b [16]byte) string {
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
