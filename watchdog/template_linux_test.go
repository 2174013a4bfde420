package watchdog

// A function whose processes are forks of a template: through the handler, as
// its callers see it.

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// pythonFunction says in its first line who its parent is, and then does what
// the query says.
const pythonFunction = `import os, signal, subprocess, sys, time
print(os.getppid(), os.environ.get("Http_X_Call_Id"), *sys.argv[1:])
what = os.environ.get("Http_Query", os.environ.get("QUERY_STRING", ""))
if what == "ok":
    sys.stdout.write(sys.stdin.read())
elif what == "fail":
    sys.exit(3)
elif what == "raise":
    raise ValueError("no good")
elif what == "killed":
    os.kill(os.getpid(), signal.SIGTERM)
elif what == "slow":
    subprocess.Popen(["sleep", "60"], close_fds=False)
    time.sleep(60)
elif what == "escape":
    if os.fork() == 0:
        os.setsid()
    time.sleep(60)
elif what == "stream":
    print("one", flush=True)
    sys.stdin.read()
    print("two")
`

// templateConfig returns the settings of a function that is a Python script.
func templateConfig(t *testing.T, script string, settings ...string) Config {
	t.Helper()
	need(t, "python3", "python3")
	name := filepath.Join(t.TempDir(), "handler.py")
	if err := os.WriteFile(name, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	return testConfig(t, "python3 "+name+" argument", append([]string{"forkserver=python"}, settings...)...)
}

// awaitTemplate calls the function until its process is a fork of a template.
func awaitTemplate(t *testing.T, url string) (template int) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		_, body := do(t, "GET", url, nil)
		first, _, _ := strings.Cut(body, " ")
		if pid, err := strconv.Atoi(first); err != nil {
			t.Fatalf("got %q, want the parent's pid first", body)
		} else if pid != os.Getpid() {
			return pid
		}
	}
	t.Fatal("no process is a fork of a template")
	return 0
}

// Each request gets a process with its own input, variables and outcome, which
// is what a process that is started has.
func TestTemplateOutcomes(t *testing.T) {
	forked := templateConfig(t, pythonFunction)
	plain := forked
	plain.ForkServer = nil
	url, _, log := serve(t, forked)
	plainURL, _, plainLog := serve(t, plain)
	template := strconv.Itoa(awaitTemplate(t, url))
	for i, query := range []string{"ok", "fail", "raise", "killed", "nothing", "large"} {
		body := "hello"
		if query == "large" {
			query, body = "ok", strings.Repeat("x", 3<<20)
		}
		id := fmt.Sprint("X-Call-Id: call-", i)
		resp, got := do(t, "POST", url+"/?"+query, strings.NewReader(body), id)
		wantResp, want := do(t, "POST", plainURL+"/?"+query, strings.NewReader(body), id)
		parent, got, _ := strings.Cut(got, " ")
		_, want, _ = strings.Cut(want, " ")
		if parent != template || got != want {
			t.Errorf("%s: got %.100q and parent %s, want %.100q and %s", query, got, parent, want, template)
		}
		for _, name := range []string{"X-Exit-Code", "Content-Type"} {
			if got, want := resp.Header.Get(name), wantResp.Header.Get(name); got != want {
				t.Errorf("%s: got %s %q, want %q", query, name, got, want)
			}
		}
		if resp.StatusCode != wantResp.StatusCode {
			t.Errorf("%s: got status %d, want %d", query, resp.StatusCode, wantResp.StatusCode)
		}
	}
	for _, l := range []*logBuffer{log, plainLog} {
		if got := l.String(); strings.Count(got, "ValueError: no good") != 1 {
			t.Errorf("the log lacks what the script wrote to STDERR: %s", got)
		}
	}
}

// A call that takes too long ends with all that it started, in its group or
// not, and the template goes on.
func TestTemplateLimit(t *testing.T) {
	w := newWitness(t)
	url, h, _ := serve(t, templateConfig(t, "import os\nwitness = os.open("+strconv.Quote(w.path)+", os.O_WRONLY)\nos.set_inheritable(witness, True)\nos.write(witness, b'\\n')\n"+pythonFunction))
	defer reapOrphans(t, h)()
	template := awaitTemplate(t, url)
	w.wantSeen(t)
	for _, what := range []string{"slow", "escape"} {
		resp, _ := do(t, "POST", url+"/?"+what, strings.NewReader(""), "X-Timeout: 300ms")
		if resp.StatusCode != http.StatusGatewayTimeout {
			t.Errorf("%s: got status %d, want 504", what, resp.StatusCode)
		}
	}
	w.wantGone(t)
	if again := awaitTemplate(t, url); again != template {
		t.Errorf("got template %d, want %d still", again, template)
	}
}

func TestTemplateModes(t *testing.T) {
	t.Run("cgi", func(t *testing.T) {
		url, _, _ := serve(t, templateConfig(t, `import os, sys
print("Status: 201\nX-Parent: %d\n\n%s %s" % (os.getppid(), os.environ["REQUEST_METHOD"], sys.stdin.read()), end="")
`, "mode=cgi"))
		for end := time.Now().Add(30 * time.Second); ; {
			resp, body := do(t, "POST", url, strings.NewReader("hello"))
			if resp.StatusCode != 201 || body != "POST hello" {
				t.Fatalf("got status %d, %q, want 201 and the body", resp.StatusCode, body)
			}
			if resp.Header.Get("X-Parent") != strconv.Itoa(os.Getpid()) {
				break
			}
			if time.Now().After(end) {
				t.Fatal("no process is a fork of a template")
			}
		}
	})
	t.Run("streaming", func(t *testing.T) {
		url, _, _ := serve(t, templateConfig(t, pythonFunction, "mode=streaming"))
		awaitTemplate(t, url)
		if resp, body := do(t, "POST", url+"/?stream", strings.NewReader("x")); resp.StatusCode != 200 || !strings.HasSuffix(body, "one\ntwo\n") {
			t.Errorf("got status %d, %q, want 200 and both lines", resp.StatusCode, body)
		}
	})
}

// A template that dies costs no call: those under way end by themselves, the
// next are started until there is another one.
func TestTemplateDies(t *testing.T) {
	url, h, _ := serve(t, templateConfig(t, pythonFunction))
	defer reapOrphans(t, h)()
	for range 3 {
		template := awaitTemplate(t, url)
		syscall.Kill(template, syscall.SIGKILL)
		for range 5 {
			if resp, body := do(t, "POST", url+"/?ok", strings.NewReader("hello")); resp.StatusCode != 200 || !strings.HasSuffix(body, "\nhello") {
				t.Errorf("got status %d, %q, want 200", resp.StatusCode, body)
			}
		}
		if again := awaitTemplate(t, url); again == template {
			t.Errorf("got template %d again", again)
		}
	}
}

// A template dozes, too; calls meanwhile are started.
func TestTemplateDozes(t *testing.T) {
	url, _, _ := serve(t, templateConfig(t, pythonFunction, "doze=500ms"))
	for range 2 {
		awaitEnd(t, awaitTemplate(t, url))
		if resp, body := do(t, "POST", url+"/?ok", strings.NewReader("hello")); resp.StatusCode != 200 || !strings.HasSuffix(body, "\nhello") {
			t.Errorf("got status %d, %q, want 200", resp.StatusCode, body)
		}
	}
}

// What cannot be forked is started, and the log says why, once.
func TestTemplateCannotBe(t *testing.T) {
	for name, tt := range map[string]struct {
		module string
		status int
		want   string // in the log
	}{
		"thread": {"import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n", 200, "import module"},
		"broken": {"import nothing_of_this_name\n", 500, "nothing_of_this_name"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := templateConfig(t, "import module\n"+pythonFunction)
			if err := os.WriteFile(filepath.Join(filepath.Dir(cfg.Command[1]), "module.py"), []byte(tt.module), 0o600); err != nil {
				t.Fatal(err)
			}
			url, _, log := serve(t, cfg)
			const warning = `level=WARN msg="no fork server`
			for end := time.Now().Add(30 * time.Second); !strings.Contains(log.String(), warning); {
				if resp, _ := do(t, "POST", url+"/?ok", strings.NewReader("hello")); resp.StatusCode != tt.status {
					t.Fatalf("got status %d, want %d", resp.StatusCode, tt.status)
				}
				if time.Now().After(end) {
					t.Fatalf("the log does not say that there is no fork server: %s", log)
				}
			}
			if got := log.String(); strings.Count(got, warning) != 1 || !strings.Contains(got, tt.want) {
				t.Errorf("want one warning with %q: %s", tt.want, got)
			}
		})
	}
}

// As TestSoak, with forks of a template.
func TestTemplateSoak(t *testing.T) { soak(t, templateConfig(t, pythonFunction)) }
