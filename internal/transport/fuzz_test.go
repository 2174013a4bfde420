package transport

// Fuzzing of the response parser, with http.ReadResponse as the model.

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"testing"
)

// A scriptedConn answers with given bytes, whatever it is asked.
type scriptedConn struct {
	net.Conn // nil: nothing else is called
	answer   *bytes.Reader
}

func (c *scriptedConn) Read(p []byte) (int, error)  { return c.answer.Read(p) }
func (c *scriptedConn) Write(p []byte) (int, error) { return len(p), nil }
func (c *scriptedConn) Close() error                { return nil }

// readModel reads what http.Transport would, the final response of several.
func readModel(data []byte, method string) (*http.Response, []byte, error) {
	br := bufio.NewReaderSize(bytes.NewReader(data), 1<<20)
	for {
		resp, err := http.ReadResponse(br, &http.Request{Method: method})
		if err != nil {
			return nil, nil, err
		}
		if resp.StatusCode < 200 && resp.StatusCode != http.StatusSwitchingProtocols {
			continue
		}
		body, err := io.ReadAll(resp.Body)
		return resp, body, err
	}
}

// FuzzTransportResponse: what we take for a response, http.ReadResponse takes
// for the same one. We may refuse more.
func FuzzTransportResponse(f *testing.F) {
	const ok = "HTTP/1.1 200 OK\r\n"
	for _, seed := range []string{
		ok + "Content-Length: 5\r\n\r\nhello",
		ok + "content-length: 5\ncontent-length: 5\n\nhello",
		ok + "Transfer-Encoding: chunked\r\nTrailer: A, b\r\n\r\n5\r\nhello\r\n0\r\nA: 1\r\nB: 2\r\nC: 3\r\n\r\n",
		ok + "Transfer-Encoding: chunked\r\n\r\n0\r\nA: 1\n\n",
		ok + "Transfer-Encoding: Chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
		ok + "Connection: x, close\r\nX: \t a b \t\r\nPragma: no-cache\r\n\r\nuntil the end",
		"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204\r\nContent-Length: 3\r\n\r\n",
		"HTTP/1.1 304  Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\n\r\n",
		ok + " folded: 1\r\n\r\n",
		ok + "A: 1\r\r\n\r\n",
	} {
		f.Add([]byte(seed), false)
		f.Add([]byte(seed), true)
	}
	f.Fuzz(func(t *testing.T, data []byte, head bool) {
		method := http.MethodGet
		if head {
			method = http.MethodHead
		}
		rt := New(func(context.Context, string, string) (net.Conn, error) {
			return &scriptedConn{answer: bytes.NewReader(data)}, nil
		}, Limits{Head: 1 << 20})
		req, err := http.NewRequest(method, "http://replica/", nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := rt.RoundTrip(req)
		if err != nil || isSwitch(got) {
			return
		}
		body, err := io.ReadAll(got.Body)
		got.Body.Close()
		if err != nil {
			return
		}
		if open, _ := rt.stats(); open != 0 {
			t.Errorf("got %d open connections, want 0", open)
		}
		want, wantBody, err := readModel(data, method)
		if err != nil {
			t.Fatalf("got %d, %q, want error %v", got.StatusCode, body, err)
		}
		if want.Header.Get("Pragma") == "no-cache" && got.Header["Cache-Control"] == nil {
			delete(want.Header, "Cache-Control") // the model adds it
		}
		if got.StatusCode != want.StatusCode || got.Status != want.Status || got.Proto != want.Proto ||
			got.ContentLength != want.ContentLength || !slices.Equal(got.TransferEncoding, want.TransferEncoding) {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if !bytes.Equal(body, wantBody) {
			t.Errorf("got body %q, want %q", body, wantBody)
		}
		if !maps.EqualFunc(got.Header, want.Header, slices.Equal) {
			t.Errorf("got headers %q, want %q", got.Header, want.Header)
		}
		if !maps.EqualFunc(got.Trailer, want.Trailer, slices.Equal) {
			t.Errorf("got trailers %q, want %q", got.Trailer, want.Trailer)
		}
		if want.Close && !got.Close {
			t.Error("got a response to be followed by another, want a close")
		}
	})
}

// FuzzTransportRequest: whatever a request holds, the replica reads exactly
// one, with the same method, target and headers, or nothing is sent.
func FuzzTransportRequest(f *testing.F) {
	f.Add("GET", "/a?b=c", "host", "X-Name", "value")
	f.Add("POST", "/a b", "host", "Content-Length", "7")
	f.Add("GET", "/\r\nX: y", "a\r\nb", "X\r\nY", "a\r\n\r\nGET / HTTP/1.1")
	f.Add("PUT", "//x/%2f", "[::1]:80", "transfer-encoding", "chunked")
	f.Fuzz(func(t *testing.T, method, target, host, name, value string) {
		req, err := http.NewRequest("GET", "http://replica/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Method, req.Host, req.Header[name] = method, host, []string{value}
		req.URL.Opaque = target
		sent, err := appendHead(nil, req, 0)
		if err != nil {
			return
		}
		br := bufio.NewReader(bytes.NewReader(sent))
		got, err := http.ReadRequest(br)
		if err != nil {
			// Stricter servers may refuse it, none may read it otherwise.
			if bytes.Count(sent, []byte("\r\n\r\n")) != 1 {
				t.Errorf("got %q, want one head", sent)
			}
			return
		}
		if method != "" && got.Method != method {
			t.Errorf("got method %q, want %q", got.Method, method)
		}
		if br.Buffered() != 0 || len(got.TransferEncoding) != 0 || got.ContentLength > 0 {
			t.Errorf("got more than a head without a body from %q", sent)
		}
		for k, v := range got.Header {
			if k != http.CanonicalHeaderKey(name) && k != "Content-Length" {
				t.Errorf("got header %q: %q, which was not in the request", k, v)
			}
		}
	})
}
