package wire

// What a Listener leaves alone.

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestPasses(t *testing.T) {
	addr, refused := startStrictServer(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("%s: %v", r.URL, err)
		}
		w.Header().Set("X-Trailer", r.Trailer.Get("X-Sum"))
		fmt.Fprintf(w, "%s %s %s", r.Method, r.RequestURI, body)
	})
	const host = " HTTP/1.1\r\nHost: a\r\n"
	for _, tt := range []struct{ name, in, want string }{
		{"pipelined", "GET /1" + host + "\r\nPOST /2" + host + "Content-Length: 3\r\n\r\nabcGET /3" + host + "\r\n",
			"GET /1 |POST /2 abc|GET /3 "},
		{"an empty line before each request", "\r\nPOST /1" + host + "Content-Length: 2\r\n\r\nhi\r\nGET /2" + host + "\r\n",
			"POST /1 hi|GET /2 "},
		{"white space around values", "POST /1" + host + "Content-Length: \t 2 \t\r\nX:\r\nY: \t\r\n\r\nhiPOST /2" + host +
			"Transfer-Encoding:chunked \r\n\r\n1\r\nx\r\n0\r\n\r\n", "POST /1 hi|POST /2 x"},
		{"chunked", "POST /1" + host + "transfer-encoding: ChunKed\r\n\r\n5\r\nhello\r\n0A;n=\"v\"\r\n, chunked \r\n000\r\n\r\nGET /2" + host + "\r\n",
			"POST /1 hello, chunked |GET /2 "},
		{"trailers", "POST /1" + host + "Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n1\r\nx\r\n0\r\nX-Sum: 7\r\nX-Other:\r\n\r\nGET /2" + host + "\r\n",
			"POST /1 x 7|GET /2 "},
		{"body that looks like a request", "POST /1" + host + "Content-Length: 18\r\n\r\nGET /x HTTP/1.1\n\n\rGET /2" + host + "\r\n",
			"POST /1 GET /x HTTP/1.1\n\n\r|GET /2 "},
		{"OPTIONS *", "OPTIONS *" + host + "\r\n", "OPTIONS * "},
		{"absolute target", "GET http://a/b?c" + host + "\r\n", "GET http://a/b?c "},
		{"UTF-8 in target and value", "GET /é" + host + "X: é\r\n\r\n", "GET /é "},
		{"HTTP/1.0", "POST /1 HTTP/1.0\r\nContent-Length: 1\r\n\r\nx", "POST /1 x"},
		{"CONNECT", "CONNECT a:1" + host + "\r\nGET /2" + host + "\r\n", "CONNECT a:1 |GET /2 "},
		{"long names and odd methods", "X-" + strings.Repeat("M", 300) + " /1" + host + strings.Repeat("N", 300) + ": v\r\n\r\nPRINT /2" + host + "\r\n",
			"X-" + strings.Repeat("M", 300) + " /1 |PRINT /2 "},
	} {
		for _, oneByOne := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/one by one=%v", tt.name, oneByOne), func(t *testing.T) {
				conn, r := dialStrict(t, addr)
				if oneByOne {
					for i := range len(tt.in) {
						send(t, conn, tt.in[i:i+1])
					}
				} else {
					send(t, conn, tt.in)
				}
				var got []string
				for range strings.Split(tt.want, "|") {
					res, body := readAnswer(t, r)
					if res.StatusCode != 200 {
						t.Fatalf("got %d %s, want 200", res.StatusCode, body)
					}
					if sum := res.Header.Get("X-Trailer"); sum != "" {
						body += " " + sum
					}
					got = append(got, body)
				}
				if got := strings.Join(got, "|"); got != tt.want {
					t.Errorf("got %q, want %q", got, tt.want)
				}
			})
		}
	}
	if len(refused) > 0 {
		t.Errorf("got a refusal: %q, want none", <-refused)
	}
}

func TestHEADKeepsConnection(t *testing.T) {
	addr, _ := startStrictServer(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "5")
	})
	conn, r := dialStrict(t, addr)
	for range 2 {
		send(t, conn, "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
		res, err := http.ReadResponse(r, &http.Request{Method: "HEAD"})
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != 200 || res.ContentLength != 5 {
			t.Errorf("got %d with length %d, want 200 with 5", res.StatusCode, res.ContentLength)
		}
	}
}

// echoUpgraded takes up any upgrade and sends back what comes.
func echoUpgraded(w http.ResponseWriter, r *http.Request) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	io.Copy(conn, rw)
}

// After 101 the bytes are no HTTP, and no business of ours.
func TestHijackedPassesRaw(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(echoUpgraded))
	defer upstream.Close()
	target, err := url.Parse(upstream.URL)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		handler http.Handler
	}{
		{"by the handler", http.HandlerFunc(echoUpgraded)},
		{"by ReverseProxy", httputil.NewSingleHostReverseProxy(target)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			addr, refused := startStrictServer(t, tt.handler.ServeHTTP)
			conn, r := dialStrict(t, addr)
			send(t, conn, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
			if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != 101 {
				t.Fatalf("got %v, error %v, want 101", res, err)
			}
			const frames = "\x81\x05\x00\n\n\r\x7fGET / HTTP/1.1\n\n"
			send(t, conn, frames)
			got := make([]byte, len(frames))
			if _, err := io.ReadFull(r, got); err != nil || string(got) != frames {
				t.Errorf("got %q, error %v, want %q", got, err, frames)
			}
			if len(refused) > 0 {
				t.Errorf("got a refusal: %q, want none", <-refused)
			}
		})
	}
}

// Until the server has hijacked the connection the bytes are HTTP: an upgrade
// that it does not take up must not open a way past the checks.
func TestUpgradeNotTakenUp(t *testing.T) {
	addr, refused := startStrictServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			t.Errorf("handler called for %s %s", r.Method, r.URL)
		}
	})
	for _, protocol := range []string{"websocket", "h2c"} {
		t.Run(protocol, func(t *testing.T) {
			conn, r := dialStrict(t, addr)
			send(t, conn, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: "+protocol+"\r\n\r\n")
			if res, _ := readAnswer(t, r); res.StatusCode != 200 {
				t.Errorf("got %d, want 200", res.StatusCode)
			}
			send(t, conn, "GET /smuggled HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n")
			wantRefusal(t, r, refused, violationColonSpace)
		})
	}
}

func TestHTTP2(t *testing.T) {
	addr, refused := startStrictServer(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		fmt.Fprintf(w, "%s %s", r.Proto, body)
	})
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	for range 3 {
		res, err := client.Post("http://"+addr, "text/plain", strings.NewReader("hello\n\r\x00"))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if want := "HTTP/2.0 hello\n\r\x00"; err != nil || string(body) != want {
			t.Errorf("got %q, error %v, want %q", body, err, want)
		}
	}
	if len(refused) > 0 {
		t.Errorf("got a refusal: %q, want none", <-refused)
	}
}

// A preface that comes in pieces is held until it is whole, and what follows
// it is not looked at.
func TestHTTP2PrefaceInPieces(t *testing.T) {
	addr, _ := startStrictServer(t, func(http.ResponseWriter, *http.Request) {})
	settings := []byte{0, 0, 0, 4, 0, 0, 0, 0, 0}
	conn, r := dialStrict(t, addr)
	for _, b := range append([]byte(http2Preface), settings...) {
		send(t, conn, string([]byte{b}))
	}
	// The server's own SETTINGS come first.
	frame := make([]byte, 9)
	if _, err := io.ReadFull(r, frame); err != nil || frame[3] != 4 {
		t.Errorf("got frame % x, error %v, want SETTINGS", frame, err)
	}
}

// What net/http bounds stays bounded by net/http.
func TestLeavesLimitsToServer(t *testing.T) {
	addr, refused := startStrictServer(t, func(http.ResponseWriter, *http.Request) {
		t.Error("handler called, want it not to be")
	})
	for _, tt := range []struct {
		name, head string
		want       int
	}{
		{"header fields", "GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 32<<10), 431},
		{"request line", "GET /" + strings.Repeat("x", 32<<10), 431},
		{"no Host", "GET / HTTP/1.1\r\n\r\n", 400},
		{"two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400},
		{"HTTP/3.0", "GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn, r := dialStrict(t, addr)
			go io.WriteString(conn, tt.head)
			res, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			if res.StatusCode != tt.want {
				t.Errorf("got %d, want %d", res.StatusCode, tt.want)
			}
		})
	}
	if len(refused) > 0 {
		t.Errorf("got a refusal: %q, want none", <-refused)
	}
}

func TestSlowHeadIsCutOff(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln := Listen(tcp, func(reason string) { t.Errorf("refused: %s", reason) })
	server := &http.Server{
		Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			t.Error("handler called, want it not to be")
		}),
		ConnState:         ln.ConnState,
		ReadHeaderTimeout: 20 * time.Millisecond,
	}
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(ln) }()
	conn, r := dialStrict(t, tcp.Addr().String())
	send(t, conn, "GET / HTTP/1.1\r\nHost: a\r\nX-Slow")
	// net/http may add a 400 of its own.
	if _, err := io.Copy(io.Discard, r); err != nil {
		t.Errorf("got %v, want the end of the connection", err)
	}
	if err := server.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	<-done
}

// A handler learns that its client has gone, as without the wrapper.
func TestClientGone(t *testing.T) {
	began, gone := make(chan struct{}), make(chan struct{})
	addr, _ := startStrictServer(t, func(w http.ResponseWriter, r *http.Request) {
		close(began)
		<-r.Context().Done()
		close(gone)
	})
	conn, _ := dialStrict(t, addr)
	send(t, conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-began
	conn.Close()
	select {
	case <-gone:
	case <-time.After(20 * time.Second):
		t.Error("the handler's context is not done, want it to be")
	}
}
