package e2e

// The prober: a container on the functions network, and this binary as a
// process in that container's network, which calls replicas the way that the
// gateway does, without it.

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// envProbe names the service that this binary probes, instead of testing.
const envProbe = "FAAS_E2E_PROBE"

const (
	probeReady  = "ready" // what the prober prints first; then the time of the answer
	probeLookup = 30 * time.Millisecond

	swarmDNS = "127.0.0.11:53" // as every container on a network of the user's sees it
)

// probe calls a service's replicas until one answers, and prints when that
// was, in Unix nanoseconds. A look-up of a service without a replica hangs, so
// each has a short deadline and the next one follows at once.
func probe(ctx context.Context, service string, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, swarmDNS) // the files that we see are not the container's
	}}
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	fmt.Fprintln(out, probeReady)
	for ctx.Err() == nil {
		look, done := context.WithTimeout(ctx, probeLookup)
		addrs, err := resolver.LookupNetIP(look, "ip4", "tasks."+service+".")
		done()
		if err != nil || len(addrs) == 0 {
			continue
		}
		res, err := client.Post("http://"+net.JoinHostPort(addrs[0].Unmap().String(), "8080")+"/", "text/plain", strings.NewReader("hello"))
		if err != nil {
			continue
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err == nil && res.StatusCode == http.StatusOK && string(body) == "hello" {
			fmt.Fprintln(out, time.Now().UnixNano())
			return nil
		}
	}
	return ctx.Err()
}

// A prober can probe.
type prober struct {
	node *node
	pid  string // of its container, as its node counts processes
}

func startProber(t testing.TB, n *node) prober {
	t.Helper()
	const name = "prober"
	n.docker(t, "run", "--detach", "--name", name, "--network", functionsNetwork, catImage)
	t.Cleanup(func() {
		if _, err := n.tryDocker(context.Background(), "rm", "--force", name); err != nil {
			t.Error(err)
		}
	})
	return prober{n, n.docker(t, "inspect", "--format", "{{.State.Pid}}", name)}
}

// firstAnswer begins to probe a service, and returns a channel that gets the
// time of the first answer, or is closed without one.
func (p prober) firstAnswer(t testing.TB, service string) <-chan time.Time {
	t.Helper()
	l := p.node.lab
	cmd := exec.CommandContext(t.Context(), "bash", filepath.Join(l.root, "e2e", "swarmlab.sh"), "exec", strconv.Itoa(p.node.id),
		"nsenter", "--target", p.pid, "--net", "--", os.Args[0])
	cmd.Env = append(os.Environ(), "SWARMLAB_NAME="+l.name, "SWARMLAB_DIR="+l.dir, "SWARMLAB_NET="+l.net, envProbe+"="+service)
	cmd.Stderr = os.Stderr
	cmd.WaitDelay = time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != probeReady {
		cmd.Process.Kill()
		t.Fatalf("the prober does not start: %q, %v", lines.Text(), cmd.Wait())
	}
	answered := make(chan time.Time, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(answered)
		if lines.Scan() {
			if at, err := strconv.ParseInt(lines.Text(), 10, 64); err == nil {
				answered <- time.Unix(0, at)
			}
		}
		cmd.Wait()
	}()
	t.Cleanup(func() { <-done })
	return answered
}
