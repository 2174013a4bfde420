package e2e

// A server that dozes in its replica against one whose replica Swarm has to start.

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"faas/e2e/nodetest"
)

const (
	serversImage = "faas-e2e/servers" // Node.js and Python of this machine, and fwatchdog
	dozeRounds   = 5
	dozeAfter    = time.Second
)

// Each answers with what distinguishes one process from another.
const (
	nodeServer = `const started = process.hrtime.bigint().toString();
require('http').createServer((request, response) => {
  request.resume();
  request.on('end', () => response.end(started));
}).listen(8082);
`
	pythonServer = `import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

STARTED = str(time.monotonic_ns()).encode()

class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Length", str(len(STARTED)))
        self.end_headers()
        self.wfile.write(STARTED)

ThreadingHTTPServer(("", 8082), Handler).serve_forever()
`
)

// The time from the call to the answer of a process that has to be started, by the
// watchdog in its replica and by Swarm from no replica, in turns. The ratio is a goal of
// docs/performance.md and not judged here.
func TestDozeWake(t *testing.T) {
	l := useLab(t)
	node := nodetest.Program(t, "node")
	out, err := exec.Command(nodetest.Program(t, "python3"), "-c", "import sys, sysconfig; print(sys.executable); print(sysconfig.get_path('stdlib'))").Output()
	if err != nil {
		t.Fatalf("python3: %v", err)
	}
	python, library, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	if err := l.buildServers(t.Context(), node, python, library); err != nil {
		t.Fatal(err)
	}
	g := startGateway(t, l.node(1))
	table := newTable("From the call to the answer of a process that does not run, medians", "server", "way", "ms", "of Swarm's")
	for _, s := range []struct{ name, process string }{
		{"node", node + " /server.js"},
		{"python", python + " /server.py"},
	} {
		create := func(name string, args ...string) {
			createFunction(t, l, name, serversImage, append([]string{
				"--constraint", "node.hostname==" + l.node(1).name, "--env", "mode=http", "--env", "fprocess=" + s.process, "--env", "healthcheck_interval=0",
			}, args...)...)
			g.waitAnswer(t, name)
		}
		dozing, none := s.name+"-dozing", s.name+"-none"
		create(dozing, "--env", "doze="+dozeAfter.String())
		create(none)
		last := map[string]string{}
		call := func(name string) time.Duration {
			began := time.Now()
			a := g.post(t, "/function/"+name, nil, []byte("hello"))
			took := time.Since(began)
			if a.status != http.StatusOK {
				t.Fatalf("%s: got status %d, want 200: %s", name, a.status, firstLine(a.body))
			}
			if string(a.body) == last[name] {
				t.Fatalf("%s: the process had not ended", name)
			}
			last[name] = string(a.body)
			return took
		}
		var woken, started []time.Duration
		for range dozeRounds {
			sleepUntil(t.Context(), time.Now().Add(dozeAfter+time.Second))
			woken = append(woken, call(dozing))
			toNone(t, g, none)
			started = append(started, call(none))
		}
		table.row(s.name, "dozing replica", median(woken).Milliseconds(), fmt.Sprintf("%.2f", median(woken).Seconds()/median(started).Seconds()))
		table.row(s.name, "no replica", median(started).Milliseconds(), "")
	}
	table.print(t)
}

// buildServers makes the image on node 1, of this machine's Node.js and Python and the
// latter's library.
func (l *lab) buildServers(ctx context.Context, node, python, library string) error {
	n := l.node(1)
	const runtimes = serversImage + "-base"
	err := n.importImage(ctx, runtimes, nil, func(w *archive) error {
		if err := w.addBase(ctx); err != nil {
			return err
		}
		modules, err := filepath.Glob(filepath.Join(library, "lib-dynload", "*.so"))
		if err != nil {
			return err
		}
		if err := w.addPrograms(ctx, append(modules, node, python)...); err != nil {
			return err
		}
		if err := errors.Join(w.addFile("server.js", 0o644, []byte(nodeServer)), w.addFile("server.py", 0o644, []byte(pythonServer))); err != nil {
			return err
		}
		return w.addTree(library, strings.TrimPrefix(library, "/"), func(name string, _ bool) bool {
			switch filepath.Base(name) {
			case "site-packages", "dist-packages", "test", "tests", "idlelib", "ensurepip", "tkinter", "lib2to3", "lib-dynload":
				return false
			}
			return !strings.HasPrefix(name, "config-")
		})
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := n.dockerCommand(ctx, "build", "--network", "none", "--tag", serversImage, "-")
	cmd.Stdin = strings.NewReader("FROM " + runtimes + "\nCOPY --from=" + watchdogImage + " /fwatchdog /usr/bin/fwatchdog\n" +
		"ENTRYPOINT [\"/usr/bin/fwatchdog\"]\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w: %s", serversImage, err, out)
	}
	return nil
}
