package main

// What is compared.

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	gatewayName = "gateway"
	bareName    = "ReverseProxy"

	small = "/function/bench/"   // answered with 128 bytes
	large = "/function/bench/1m" // answered with 1 MiB
)

// gateways compares the gateway with other proxies.
func (b *bench) gateways() error {
	upstream, err := b.upstream()
	if err != nil {
		return err
	}
	bare, err := b.bare(bareName, upstream)
	if err != nil {
		return err
	}
	gateway, err := b.gateway(gatewayName, upstream, 0)
	if err != nil {
		return err
	}
	// The gateway without its own RoundTripper, and for the sceptic the baseline
	// with the gateway's rarer collections.
	std, err := b.gateway("gateway, -transport std", upstream, 0, "-transport", "std")
	if err != nil {
		return err
	}
	tuned, err := b.bare("ReverseProxy, GOGC=800", upstream, "GOGC=800")
	if err != nil {
		return err
	}
	others, err := b.others(upstream)
	if err != nil {
		return err
	}
	all := append([]*contestant{bare, gateway, std, tuned}, others...)

	for _, connections := range []int{16, 64} {
		title := fmt.Sprintf("Small answer, %d connections", connections)
		c, err := b.compare(title, load{connections: connections, path: small}, all...)
		if err != nil {
			return err
		}
		b.report.target("gateway CPU per request / ReverseProxy, "+strconv.Itoa(connections)+" connections", c, gatewayName, bareName, cpu, atMost, 0.85)
		b.report.target("gateway CPU per request / Caddy, "+strconv.Itoa(connections)+" connections", c, gatewayName, "Caddy", cpu, atMost, 0.5)
		if connections == 64 {
			b.report.target("gateway p99 / ReverseProxy, 64 connections", c, gatewayName, bareName, p99, atMost, 1)
		}
	}
	for _, way := range []struct {
		title string
		load  load
	}{
		{"1 MiB down, 16 connections", load{connections: 16, path: large}},
		{"1 MiB up, 16 connections", load{connections: 16, path: small, body: 1 << 20}},
	} {
		c, err := b.compare(way.title, way.load, all...)
		if err != nil {
			return err
		}
		b.report.target("gateway throughput / ReverseProxy, "+way.title, c, gatewayName, bareName, rate, atLeast, 1)
	}
	return nil
}

// registered compares a gateway with one function and one with 1,000.
func (b *bench) registered() error {
	upstream, err := b.upstream()
	if err != nil {
		return err
	}
	one, err := b.gateway("gateway, 1 function", upstream, 0)
	if err != nil {
		return err
	}
	many, err := b.gateway("gateway, 1,000 functions", upstream, 999)
	if err != nil {
		return err
	}
	c, err := b.compare("1,000 functions registered, 16 connections", load{connections: 16, path: small}, one, many)
	if err != nil {
		return err
	}
	b.report.target("gateway CPU per request, 1,000 functions / 1", c, many.name, one.name, cpu, atMost, 1.03)
	return nil
}

// watchdogs compares ways to answer a request with a process.
func (b *bench) watchdogs() error {
	var all []*contestant
	if b.has("spawn") {
		all = append(all, &contestant{name: "bare spawn loop", rate: b.spawnRate})
	}
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	execrun, err := b.start("exec.CommandContext", addr, nil, "", b.program("execrun"), addr, "cat")
	if err != nil {
		return err
	}
	fork, err := b.watchdog("fwatchdog fork", "", "fprocess=cat")
	if err != nil {
		return err
	}
	prefork, err := b.watchdog("fwatchdog prefork=8", "", "fprocess=cat", "prefork=8", "cgi_headers=false")
	if err != nil {
		return err
	}
	all = append(all, execrun, fork, prefork)
	if b.has("cgi") {
		cgi, err := b.watchdog("fwatchdog cgi", "", "fprocess="+b.program("cgi"), "mode=cgi")
		if err != nil {
			return err
		}
		all = append(all, cgi)
	}
	c, err := b.compare("A process per request, 4 connections", load{connections: 4, path: "/", body: 6}, all...)
	if err != nil {
		return err
	}
	b.report.target("fwatchdog fork, requests per second / bare spawn loop", c, fork.name, "bare spawn loop", rate, atLeast, 0.8)

	upstream, err := b.upstream()
	if err != nil {
		return err
	}
	bare, err := b.bare(bareName, upstream)
	if err != nil {
		return err
	}
	http, err := b.watchdogHTTP("fwatchdog http")
	if err != nil {
		return err
	}
	c, err = b.compare("A server that stays up, 16 connections", load{connections: 16, path: small}, bare, http)
	if err != nil {
		return err
	}
	b.report.target("fwatchdog http, CPU per request / ReverseProxy, GET", c, http.name, bareName, cpu, atMost, 0.9)
	c, err = b.compare("A server that stays up, 16 connections, POST of 1,000 bytes", load{connections: 16, path: small, body: 1000}, bare, http)
	if err != nil {
		return err
	}
	b.report.target("fwatchdog http, CPU per request / ReverseProxy, POST", c, http.name, bareName, cpu, atMost, 0.9)
	return nil
}

// watchdogHTTP starts fwatchdog with bench/upstream as the server that stays up.
func (b *bench) watchdogHTTP(name string) (*contestant, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	return b.watchdog(name, "", "mode=http", "upstream_url=http://"+addr, "fprocess="+b.program("upstream")+" "+addr)
}

// spawnRate is a round of the bare spawn loop.
func (b *bench) spawnRate() (float64, error) {
	out, err := b.command(nil, b.program("spawn"), "4", strconv.FormatFloat(b.length.Seconds(), 'f', -1, 64), "cat").Output()
	if err != nil {
		return 0, fmt.Errorf("spawn: %w", err)
	}
	return strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
}

// python compares the Python sample with a process per request, started then,
// started ahead, and forked from a template.
func (b *bench) python() error {
	// The interpreter itself, since a wrapper in PATH may take longer than it.
	out, err := exec.Command("python3", "-c", "import sys; print(sys.executable)").Output()
	if errors.Is(err, exec.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("python3: %w", err)
	}
	command := "fprocess=" + strings.TrimSpace(string(out)) + " handler.py"
	sample := filepath.Join("sample-functions", "sentiment")
	fork, err := b.watchdog("fwatchdog fork", sample, command)
	if err != nil {
		return err
	}
	prefork, err := b.watchdog("fwatchdog prefork=2", sample, command, "cgi_headers=false", "prefork=2")
	if err != nil {
		return err
	}
	forked, err := b.watchdog("fwatchdog forkserver=python", sample, command, "forkserver=python")
	if err != nil {
		return err
	}
	if err := b.awaitTemplate(forked); err != nil {
		return err
	}
	fork.children, prefork.children, forked.children = true, true, true
	for _, callers := range []struct {
		title string
		n     int
	}{{"A Python function, one caller", 1}, {"A Python function, 4 callers", 4}} {
		c, err := b.compare(callers.title, load{connections: callers.n, path: "/", body: 40}, fork, prefork, forked)
		if err != nil {
			return err
		}
		if callers.n == 1 {
			b.report.target("Python, one caller, p50, forkserver / fork", c, forked.name, fork.name, p50, atMost, 0.10)
		} else {
			b.report.target("Python, 4 callers, requests per second, forkserver / fork", c, forked.name, fork.name, rate, atLeast, 10)
		}
		b.report.target(fmt.Sprintf("Python, CPU per request, forkserver / fork, %d callers", callers.n), c, forked.name, fork.name, cpu, atMost, 0.10)
	}
	return nil
}

// awaitTemplate waits until a watchdog's fork server is ready, and has the CPU
// time of its template counted, whose children are not the watchdog's.
func (b *bench) awaitTemplate(c *contestant) error {
	for end := time.Now().Add(startTimeout); time.Now().Before(end) && b.ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		if pids, err := c.newestTemplate(); err != nil || len(pids) > 0 {
			c.more, c.template = pids, true
			return err
		}
	}
	return fmt.Errorf("%s: its fork server is not ready after %v", c.name, startTimeout)
}

// wholePath compares a watchdog alone with the gateway before it.
func (b *bench) wholePath() error {
	for _, mode := range []struct {
		title       string
		connections int
		body        int
		start       func(name string) (*contestant, error)
	}{
		{"Whole path, fork, 4 connections", 4, 6, func(name string) (*contestant, error) { return b.watchdog(name, "", "fprocess=cat") }},
		{"Whole path, http, 16 connections", 16, 0, b.watchdogHTTP},
	} {
		alone, err := mode.start("watchdog alone")
		if err != nil {
			return err
		}
		both, err := b.gateway("gateway and watchdog", alone.addr, 0)
		if err != nil {
			return err
		}
		both.more = []int{alone.cmd.Process.Pid}
		both.mallocs = nil // of the gateway alone
		if _, err := b.compare(mode.title, load{connections: mode.connections, path: small, body: mode.body}, alone, both); err != nil {
			return err
		}
	}
	return nil
}
