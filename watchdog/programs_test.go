package watchdog

// Programs that others wrote, as they are used.

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"faas/internal/conformance"
)

// need skips the test where a program is missing.
func need(t *testing.T, program, debian string) {
	t.Helper()
	if _, err := exec.LookPath(program); err == nil {
		return
	}
	missing := program + " is missing (Debian's package " + debian + ")"
	if os.Getenv("FAAS_E2E") == "required" {
		t.Fatal(missing)
	}
	t.Skip(missing)
}

// script writes a program and returns its path.
func script(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// freeAddress returns an address of this machine that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// serveProgram serves a server that others wrote; ADDRESS and PORT in its
// command are where it has to listen.
func serveProgram(t *testing.T, command string, settings ...string) string {
	t.Helper()
	address := freeAddress(t)
	_, port, _ := net.SplitHostPort(address)
	command = strings.NewReplacer("ADDRESS", address, "PORT", port).Replace(command)
	url, _, _ := serve(t, testConfig(t, command, append(settings, "mode=http", "upstream_url=http://"+address)...))
	return url
}

const nodeEcho = `
const http = require('http');
http.createServer((req, res) => { req.pipe(res); }).listen(+process.argv[2], '127.0.0.1');
`

// A Node.js server that answers while it reads, every byte compared.
func TestNodeEcho(t *testing.T) {
	need(t, "node", "nodejs")
	conformance.RunEcho(t, func(t *testing.T, _ string, limit time.Duration) string {
		return serveProgram(t, "node "+script(t, "echo.js", nodeEcho)+" PORT", "exec_timeout="+limit.String())
	}, "")
}

// forged are headers that CGI, or PHP, makes the same of as of the gateway's.
var forged = []string{
	"X_Forwarded_For: 6.6.6.6", "X-Forwarded_For: 6.6.6.6", "X.Forwarded.For: 6.6.6.6", "X_Forwarded_Host: evil", "X_Call_Id: evil",
	"X_Start_Time: evil", "X_Timeout: evil", "X_Forwarded_Prefix: /evil", "X_Route_Id: evil", "X_Own_Thing: evil", "X.Own.Thing: evil",
	"Content_Length: evil", "Content_Type: evil/evil", "Transfer_Encoding: evil",
}

var genuine = []string{"X-Forwarded-For: 1.2.3.4", "X-Call-Id: call-1", "X-Own-Thing: mine"}

// Nobody can forge a header by spelling it with other punctuation, whatever
// program it reaches. Of a header that is nobody else's the same spelling wins
// each time.
func TestForgedHeaders(t *testing.T) {
	wsgi := `
import sys
from wsgiref.simple_server import make_server
def app(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [''.join('%s=%s\n' % (k, v) for k, v in environ.items() if isinstance(v, str)).encode()]
make_server('127.0.0.1', int(sys.argv[1]), app).serve_forever()
`
	php := `<?php foreach ($_SERVER as $k => $v) if (is_string($v)) echo "$k=$v\n";`
	for _, tt := range []struct {
		name, program, debian string
		start                 func(t *testing.T) string
	}{
		{"env in mode fork", "env", "coreutils", func(t *testing.T) string {
			url, _, _ := serve(t, testConfig(t, "env"))
			return url
		}},
		{"env in mode cgi", "env", "coreutils", func(t *testing.T) string {
			url, _, _ := serve(t, testConfig(t, `sh -c 'echo "X: y"; echo; env'`, "mode=cgi"))
			return url
		}},
		{"wsgiref in mode http", "python3", "python3", func(t *testing.T) string {
			return serveProgram(t, "python3 "+script(t, "app.py", wsgi)+" PORT")
		}},
		{"php -S in mode http", "php", "php-cli", func(t *testing.T) string {
			return serveProgram(t, "php -S ADDRESS "+script(t, "index.php", php))
		}},
		{"php-cgi in mode cgi", "php-cgi", "php-cgi", func(t *testing.T) string {
			url, _, _ := serve(t, phpCGI(t, php))
			return url
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			need(t, tt.program, tt.debian)
			url := tt.start(t)
			for range 5 { // maps have a new order each time
				_, got := do(t, "POST", url, strings.NewReader("hello"), append(append([]string{"X_Thing: two", "X.Thing: three"}, forged...), genuine...)...)
				for _, other := range []string{"evil", "6.6.6.6", "three"} {
					if strings.Contains(got, other) {
						t.Errorf("got %s, want nothing that is forged", got)
					}
				}
				for _, want := range []string{"http_x_forwarded_for=1.2.3.4\n", "http_x_call_id=call-1\n", "http_x_own_thing=mine\n", "http_x_thing=two\n"} {
					if strings.Count(strings.ToLower(got), want) != 1 {
						t.Errorf("got %s, want %s", got, want)
					}
				}
			}
		})
	}
}

// phpCGI returns the settings of a PHP script in mode cgi.
func phpCGI(t *testing.T, text string) Config {
	t.Helper()
	cfg := testConfig(t, "php-cgi", "mode=cgi")
	cfg.Env = []string{"PATH=" + os.Getenv("PATH"), "REDIRECT_STATUS=200", "SCRIPT_FILENAME=" + script(t, "index.php", text)}
	return cfg
}

// A form whose length the client does not say reaches a CGI program.
func TestCGIChunkedForm(t *testing.T) {
	perl := `#!/usr/bin/perl
use CGI;
my $q = CGI->new;
print $q->header('text/plain'), $q->param('name'), ' ', length($q->param('text')), ' ', $ENV{CONTENT_LENGTH};
`
	for _, tt := range []struct {
		name, program, debian string
		config                func(t *testing.T) Config
	}{
		{"CGI.pm", "perl", "perl, libcgi-pm-perl", func(t *testing.T) Config {
			if err := exec.Command("perl", "-MCGI", "-e", "1").Run(); err != nil {
				need(t, "CGI.pm", "libcgi-pm-perl")
			}
			return testConfig(t, script(t, "form.pl", perl), "mode=cgi")
		}},
		{"php-cgi", "php-cgi", "php-cgi", func(t *testing.T) Config {
			return phpCGI(t, `<?php header('Content-Type: text/plain'); echo $_POST['name'], ' ', strlen($_POST['text']), ' ', $_SERVER['CONTENT_LENGTH'];`)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			need(t, tt.program, tt.debian)
			url, _, _ := serve(t, tt.config(t))
			for _, size := range []int{1, pipeBody, 100_000, 3_000_000} {
				form := "name=anna&text=" + strings.Repeat("x", size)
				resp, got := do(t, "POST", url, io.MultiReader(strings.NewReader(form)), "Content-Type: application/x-www-form-urlencoded")
				if want := fmt.Sprintf("anna %d %d", size, len(form)); resp.StatusCode != 200 || got != want {
					t.Errorf("got status %d, %q, want %q", resp.StatusCode, clip(got), want)
				}
			}
		})
	}
}

// A script knows the URL that the client called it by.
func TestCGIOwnURL(t *testing.T) {
	need(t, "perl", "perl, libcgi-pm-perl")
	if err := exec.Command("perl", "-MCGI", "-e", "1").Run(); err != nil {
		need(t, "CGI.pm", "libcgi-pm-perl")
	}
	url, _, _ := serve(t, testConfig(t, script(t, "self.pl", `#!/usr/bin/perl
use CGI;
my $q = CGI->new;
print $q->header('text/plain'), join(' ', $q->self_url, $q->url(-absolute => 1), $q->path_info);
`), "mode=cgi"))
	for _, tt := range []struct{ prefix, want string }{
		{"/function/shop", "https://example.com/function/shop/cart?item=1 /function/shop /cart"},
		{"", "https://example.com/cart?item=1  /cart"},
		{"//evil", "https://example.com/cart?item=1  /cart"},
	} {
		_, got := do(t, "GET", url+"/cart?item=1", nil, "X-Forwarded-Host: example.com", "X-Forwarded-Proto: https", "X-Forwarded-Prefix: "+tt.prefix)
		if got != tt.want {
			t.Errorf("prefix %q: got %q, want %q", tt.prefix, got, tt.want)
		}
	}
}

// An answer that a server gives without reading all of a body, and closes the
// connection upon, arrives.
func TestEarlyRefusal(t *testing.T) {
	need(t, "python3", "python3")
	url := serveProgram(t, "python3 "+script(t, "refuse.py", `
import sys
from http.server import HTTPServer, BaseHTTPRequestHandler
class Refuse(BaseHTTPRequestHandler):
    def do_POST(self):
        self.send_response(413)
        self.end_headers()
        self.wfile.write(b'too much')
    def log_message(self, *args): pass
HTTPServer(('127.0.0.1', int(sys.argv[1])), Refuse).serve_forever()
`)+" PORT")
	body := bytes.Repeat([]byte("x"), 4<<20)
	for range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		req, _ := http.NewRequestWithContext(ctx, "POST", url, bytes.NewReader(body))
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		cancel()
		if resp.StatusCode != 413 || string(got) != "too much" || err != nil {
			t.Errorf("got status %d, %q, %v, want 413", resp.StatusCode, got, err)
		}
	}
}
