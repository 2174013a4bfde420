package watchdog

// What the tests share: handlers that are served, and the test binary as a
// function's process.

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// childVariable makes the test binary a function's process; its value says
// which one.
const childVariable = "WATCHDOG_TEST_CHILD"

func TestMain(m *testing.M) {
	if name := os.Getenv(childVariable); name != "" {
		runChild(name)
	}
	os.Exit(m.Run())
}

// runChild is what the test binary does as a function's process.
func runChild(name string) {
	switch name {
	case "server": // mode http: answers on ADDRESS, ends with SIGTERM
		mux := http.NewServeMux()
		mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Saw", r.Method+" "+r.RequestURI+" "+r.Host)
			w.Header().Set("X-Saw-Timeout", r.Header.Get("X-Timeout"))
			w.Header().Set("X-Pid", fmt.Sprint(os.Getpid()))
			w.WriteHeader(http.StatusTeapot)
			io.Copy(w, r.Body)
		})
		mux.HandleFunc("/deaf", func(w http.ResponseWriter, _ *http.Request) {
			signal.Ignore(syscall.SIGTERM)
			w.Header().Set("X-Pid", fmt.Sprint(os.Getpid()))
		})
		mux.HandleFunc("/exit", func(http.ResponseWriter, *http.Request) { os.Exit(3) })
		mux.HandleFunc("/hang", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
			n, err := io.Copy(io.Discard, r.Body)
			time.Sleep(400 * time.Millisecond)
			fmt.Fprint(w, n, err)
		})
		mux.HandleFunc("/pause", func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "one")
			http.NewResponseController(w).Flush()
			time.Sleep(400 * time.Millisecond) // the end of the answer is yet to be sent
		})
		ln, err := net.Listen("tcp", os.Getenv("ADDRESS"))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		go http.Serve(ln, mux)
		<-ctx.Done()
		os.Exit(0)
	case "regroup": // leaves its group for its parent's
		group, err := syscall.Getpgid(os.Getppid())
		if err == nil {
			err = syscall.Setpgid(0, group)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		if os.Getenv("DEAF") != "" {
			signal.Ignore(syscall.SIGTERM)
		}
		time.Sleep(10 * time.Second)
		os.WriteFile(os.Getenv("OUTLIVED"), nil, 0o600)
		os.Exit(0)
	default:
		fmt.Fprintf(os.Stderr, "no child %q\n", name)
		os.Exit(2)
	}
}

// A logBuffer gathers what is logged.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func newTestLog(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

// testConfig returns the defaults for a command, changed by settings, each
// name=value.
func testConfig(t testing.TB, command string, settings ...string) Config {
	t.Helper()
	env := map[string]string{"fprocess": command, "suppress_lock": "true"}
	for _, s := range settings {
		name, value, _ := strings.Cut(s, "=")
		env[name] = value
	}
	cfg, err := ParseConfig(func(name string) string { return env[name] })
	if err != nil {
		t.Fatalf("settings: %v", err)
	}
	return cfg
}

// serve serves a function until the test ends, and returns its address, its
// handler and its log.
func serve(t testing.TB, cfg Config) (string, *Handler, *logBuffer) {
	t.Helper()
	log := &logBuffer{}
	h, err := New(cfg, newTestLog(log))
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	srv := httptest.NewUnstartedServer(nil)
	srv.Config = h.NewServer()
	srv.Config.ReadHeaderTimeout = time.Minute // a test's read_timeout is for bodies
	srv.Listener = NewListener(srv.Listener)
	srv.Config.ErrorLog = slog.NewLogLogger(slog.NewTextHandler(log, nil), slog.LevelWarn)
	srv.Start()
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- h.Run(ctx) }()
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return srv.URL, h, log
}

// do sends a request and returns the response and its whole body.
func do(t testing.TB, method, url string, body io.Reader, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range header {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: read body: %v", method, url, err)
	}
	return resp, string(b)
}

// want504 sends what may be half a request, and wants the limit's answer.
func want504(t *testing.T, url, request string) {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("got no answer: %v", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusGatewayTimeout {
		t.Errorf("got status %d, want 504", resp.StatusCode)
	}
}

// A witness sees the end of every process that has it open: they write into a
// pipe by name, which reads EOF when the last of them is gone.
type witness struct {
	path string
	file *os.File
}

func newWitness(t testing.TB) *witness {
	t.Helper()
	path := filepath.Join(t.TempDir(), "witness")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return &witness{path, f}
}

// wantSeen waits until a process has written a line.
func (w *witness) wantSeen(t testing.TB) {
	t.Helper()
	w.file.SetReadDeadline(time.Now().Add(30 * time.Second))
	b := make([]byte, 1)
	for b[0] != '\n' {
		// Before there is a writer the pipe reads EOF.
		if _, err := w.file.Read(b); err != nil && err != io.EOF {
			t.Fatalf("no process wrote to the witness: %v", err)
		}
	}
}

// wantGone waits until no process has the witness open.
func (w *witness) wantGone(t testing.TB) {
	t.Helper()
	w.file.SetReadDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.Copy(io.Discard, w.file); err != nil {
		t.Fatalf("a process is left: %v", err)
	}
}
