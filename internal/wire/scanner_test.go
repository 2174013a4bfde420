package wire

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// splitConn is a connection whose input comes in pieces of the given sizes,
// again and again; it records what is written to it.
type splitConn struct {
	net.Conn
	in     []byte
	sizes  []byte
	turn   int
	answer bytes.Buffer
}

func (c *splitConn) Read(p []byte) (int, error) {
	if len(c.in) == 0 {
		return 0, io.EOF
	}
	size := len(c.in)
	if len(c.sizes) > 0 {
		size = int(c.sizes[c.turn%len(c.sizes)]) + 1
		c.turn++
	}
	n := copy(p, c.in[:min(size, len(c.in))])
	c.in = c.in[n:]
	return n, nil
}

func (c *splitConn) Write(p []byte) (int, error) { return c.answer.Write(p) }
func (c *splitConn) SetDeadline(time.Time) error { return nil }
func (c *splitConn) LocalAddr() net.Addr         { return nil }
func (c *splitConn) RemoteAddr() net.Addr        { return nil }

// passWire reads everything that a strict connection hands on, with every
// request answered as soon as it is complete.
func passWire(in, sizes []byte) (passed []byte, broken violation, answer string) {
	split := &splitConn{in: in, sizes: sizes}
	conn := &checkedConn{Conn: split, refused: func(string) {}}
	buf := make([]byte, 64)
	for {
		n, err := conn.Read(buf)
		passed = append(passed, buf[:n]...)
		if err != nil {
			return passed, conn.broken, split.answer.String()
		}
		if n == 0 && !conn.scan.waits() {
			panic("nothing read, no error and nothing to wait for")
		}
		conn.scan.inHand = 0
		if conn.scan.body || conn.scan.state == stateBody {
			conn.scan.inHand = 1
		}
	}
}

// reference is the same rules written down plainly, over the whole input.
type reference struct {
	messages [][]byte // complete ones, without an empty line before
	heads    int      // complete ones
	refused  bool     // a complete line or a byte of a body breaks a rule
	raw      bool     // HTTP/2
}

var (
	refRequestLine = regexp.MustCompile("^([-!#$%&'*+.^_`|~0-9A-Za-z]+) [^\\x00-\\x20\\x7f]+ HTTP/([0-9]\\.[0-9])$")
	refField       = regexp.MustCompile("^([-!#$%&'*+.^_`|~0-9A-Za-z]+):[ \\t]*([^\\x00-\\x08\\x0a-\\x1f\\x7f]*?)[ \\t]*$")
	refLength      = regexp.MustCompile("^[0-9]{1,18}$")
	refChunk       = regexp.MustCompile(`^([0-9A-Fa-f]{1,15})(;[^\x00-\x08\x0a-\x1f\x7f]{0,256})?$`)
	refTrailer     = regexp.MustCompile("^(?i:" + strings.Join(forbiddenTrailers[:], "|") + ")$")
)

func referWire(data []byte) (ref reference) {
	// line takes the next line off data. It reports false if there is none
	// or if it ends wrongly.
	line := func() (string, bool) {
		text, rest, found := bytes.Cut(data, []byte("\n"))
		if !found {
			return "", false
		}
		content, crlf := bytes.CutSuffix(text, []byte("\r"))
		if !crlf || bytes.Contains(content, []byte("\r")) {
			ref.refused = true
			return "", false
		}
		data = rest
		return string(content), true
	}
	// section takes the lines of a header or trailer section.
	section := func(field func(name, value string) bool) bool {
		for {
			text, ok := line()
			if !ok || text == "" {
				return ok
			}
			match := refField.FindStringSubmatch(text)
			if match == nil || !field(strings.ToLower(match[1]), match[2]) {
				ref.refused = true
				return false
			}
		}
	}
	for {
		if len(ref.messages) == 0 && bytes.HasPrefix(data, []byte(http2Preface)) {
			ref.raw = true
			return ref
		}
		after, empty := bytes.CutPrefix(data, []byte("\r\n"))
		data = after
		start := data
		first, ok := line()
		if !ok {
			return ref
		}
		match := refRequestLine.FindStringSubmatch(first)
		if match == nil || match[1] == "PRI" && (empty || len(ref.messages) > 0 || match[0] != "PRI * HTTP/2.0") {
			ref.refused = true
			return ref
		}
		var lengths, codings []string
		if !section(func(name, value string) bool {
			switch name {
			case "content-length":
				lengths = append(lengths, value)
			case "transfer-encoding":
				codings = append(codings, value)
			}
			framed := len(lengths) + len(codings)
			return framed == 0 || framed == 1 && match[1] != "CONNECT" &&
				(len(lengths) == 0 || refLength.MatchString(lengths[0])) &&
				(len(codings) == 0 || strings.EqualFold(codings[0], "chunked") &&
					match[2][0] != '0' && match[2][2:] != "0")
		}) {
			return ref
		}
		if match[1] == "PRI" {
			// Anything but the preface, or its beginning.
			ref.refused = !strings.HasPrefix(http2Preface, string(start))
			return ref
		}
		ref.heads++
		if len(lengths) == 1 {
			n, _ := strconv.ParseInt(lengths[0], 10, 64)
			if int64(len(data)) < n {
				return ref
			}
			data = data[n:]
		}
		for len(codings) == 1 {
			text, ok := line()
			if !ok {
				return ref
			}
			match := refChunk.FindStringSubmatch(text)
			if match == nil {
				ref.refused = true
				return ref
			}
			n, _ := strconv.ParseInt(match[1], 16, 64)
			if n == 0 {
				if !section(func(name, _ string) bool { return !refTrailer.MatchString(name) }) {
					return ref
				}
				break
			}
			if int64(len(data)) < n {
				return ref
			}
			data = data[n:]
			if end := data[:min(2, len(data))]; string(end) != "\r\n"[:len(end)] {
				ref.refused = true
				return ref
			} else if len(end) < 2 {
				return ref
			}
			data = data[2:]
		}
		ref.messages = append(ref.messages, start[:len(start)-len(data)])
	}
}

// FuzzConn checks that a strict connection agrees with the reference,
// that the outcome does not depend on how the input is split, and that net/http
// sees the same requests in what is handed on.
func FuzzConn(f *testing.F) {
	for _, shape := range headShapes {
		f.Add([]byte(shape.head), []byte{0})
		f.Add([]byte("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"+shape.head), []byte{3, 20})
	}
	for _, shape := range bodyShapes {
		f.Add([]byte("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"+shape.body), []byte{7})
	}
	f.Add([]byte(http2Preface+"\x00\n"), []byte{16, 2})
	f.Add([]byte("\r\n"+http2Preface+"\x00\n"), []byte{1})
	f.Add([]byte("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nA: b\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), []byte{0})
	f.Fuzz(func(t *testing.T, in, sizes []byte) {
		checkWire(t, in, sizes)
	})
}

func checkWire(t *testing.T, in, sizes []byte) {
	ref := referWire(bytes.Clone(in))
	passed, broken, answer := passWire(bytes.Clone(in), sizes)

	if ref.refused && broken == "" {
		t.Fatalf("got no refusal, want one; handed on %q", passed)
	}
	if ref.raw && broken != "" {
		t.Fatalf("got refusal %q after a preface, want none", broken)
	}
	if (broken != "") != strings.HasPrefix(answer, "HTTP/1.1 400 Bad Request\r\n") {
		t.Fatalf("got refusal %q, answer %q", broken, answer)
	}
	if _, whole, _ := passWire(bytes.Clone(in), nil); whole != broken {
		t.Fatalf("got refusal %q in pieces, %q in one", broken, whole)
	}

	all := bytes.Join(ref.messages, nil)
	if !bytes.HasPrefix(passed, all) {
		t.Fatalf("handed on %q, want %q first", passed, all)
	}

	// A refusal in the middle of a line is right if nothing that could follow
	// makes a request of it.
	if broken != "" && !ref.refused {
		var scan scanner
		end := 0
		for end < len(in) {
			_, v := scan.check([]byte{in[end]})
			if end++; v != "" {
				break
			}
		}
		for _, rest := range []string{"", "\n", "\r\n", "\r\n\r\n", " HTTP/1.1\r\n\r\n", " / HTTP/1.1\r\n\r\n",
			"/ HTTP/1.1\r\n\r\n", ":\r\n\r\n", "1\r\n\r\n", "d\r\n\r\n", "hunked\r\n\r\n",
			"1.1\r\n\r\n", "\n\r\n", "x\r\n0\r\n\r\n", "x: y\r\n\r\n", "* HTTP/2.0\r\n\r\nSM\r\n\r\n"} {
			after := referWire(append(bytes.Clone(in[:end]), rest...))
			if after.heads > ref.heads || len(after.messages) > len(ref.messages) || after.raw {
				t.Fatalf("got refusal %q of %q, want none: it may go on with %q", broken, in[:end], rest)
			}
		}
	}

	if ref.raw {
		return
	}
	source := bytes.NewReader(passed)
	r := bufio.NewReader(source)
	consumed := 0
	for i := 0; ; i++ {
		req, err := http.ReadRequest(r)
		if err != nil {
			return // net/http may know more rules
		}
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return
		}
		if i == len(ref.messages) {
			t.Fatalf("net/http sees a request more in %q, want %d", passed, len(ref.messages))
		}
		consumed += len(ref.messages[i])
		if got := len(passed) - source.Len() - r.Buffered(); got != consumed {
			t.Fatalf("net/http ends request %d at byte %d of %q, want %d", i, got, passed, consumed)
		}
	}
}

// Every shape in every split in two, which fuzzing alone would only sample.
func TestSplits(t *testing.T) {
	const good = "\r\nPOST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nA: b\r\n\r\n"
	inputs := []string{good + good, http2Preface + "\x00\n"}
	for _, shape := range headShapes {
		inputs = append(inputs, shape.head)
	}
	for _, shape := range bodyShapes {
		inputs = append(inputs, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"+shape.body)
	}
	for _, in := range inputs {
		for at := range min(len(in), 256) {
			checkWire(t, []byte(in), []byte{byte(at), 255})
		}
	}
}

func TestScanDoesNotAllocate(t *testing.T) {
	in := []byte(typicalHead)
	var scan scanner
	if n := testing.AllocsPerRun(100, func() { scan.check(in) }); n != 0 {
		t.Errorf("got %v allocations for a request, want 0", n)
	}
}

const typicalHead = "POST /function/figlet?font=standard HTTP/1.1\r\n" +
	"Host: functions.example.com\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n" +
	"Accept: text/html,application/json;q=0.9,*/*;q=0.8\r\n" +
	"Accept-Encoding: gzip, deflate, br\r\n" +
	"Content-Type: application/json\r\n" +
	"Cookie: session=0123456789abcdef\r\n" +
	"X-Call-Id: 9b2c\r\n" +
	"Content-Length: 5\r\n" +
	"\r\n" +
	"hello"

func BenchmarkHead(b *testing.B) {
	in := []byte(typicalHead)
	var scan scanner
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		if _, v := scan.check(in); v != "" {
			b.Fatal(v)
		}
	}
}

func BenchmarkChunks(b *testing.B) {
	var scan scanner
	scan.check([]byte("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"))
	in := []byte("1000\r\n" + strings.Repeat("x", 0x1000) + "\r\n")
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		if _, v := scan.check(in); v != "" {
			b.Fatal(v)
		}
	}
}

func BenchmarkBody(b *testing.B) {
	var scan scanner
	in := make([]byte, 4096)
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		if scan.state != stateBody {
			scan.check([]byte("POST / HTTP/1.1\r\nContent-Length: 409600000\r\n\r\n"))
		}
		if _, v := scan.check(in); v != "" {
			b.Fatal(v)
		}
	}
}
