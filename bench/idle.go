package main

// Idle connections: what a connection costs that has been used and stays.

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

const idleConnections = 10000

// idleConnections holds many connections to each proxy in turn.
func (b *bench) idleConnections() error {
	const title = "10,000 idle connections"
	if !b.only.MatchString(title) {
		return nil
	}
	fmt.Fprintf(os.Stderr, "bench: %s\n", title)
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
	others, err := b.others(upstream)
	if err != nil {
		return err
	}
	t := table{title: title, columns: []string{"", "RSS before, MiB", "RSS with them, MiB", "KiB per connection", "ratio of RSS"}}
	baseline := 0.0
	for i, c := range append([]*contestant{bare, gateway}, others...) {
		before := c.memory("VmRSS")
		held, err := b.hold(c)
		if err != nil {
			return fmt.Errorf("%s: %w", title, err)
		}
		if i == 0 {
			baseline = held
		}
		t.rows = append(t.rows, []string{c.name, figure(before), figure(held), figure((held - before) * 1024 / idleConnections), fmt.Sprintf("%.2f", held/baseline)})
		if c == gateway {
			b.report.targets = append(b.report.targets, target{
				what: "gateway, 10,000 idle connections, RSS in MiB", got: held, low: held, high: held, limit: 300, bound: atMost,
			})
		}
	}
	b.report.tables = append(b.report.tables, t)
	return nil
}

// hold opens the connections, sends a request over each, and returns the
// resident memory of c while they stay open.
func (b *bench) hold(c *contestant) (mib float64, err error) {
	conns := make([]net.Conn, idleConnections)
	errs := make(chan error, idleConnections)
	defer func() {
		for _, conn := range conns {
			if conn != nil {
				conn.Close()
			}
		}
	}()
	next := make(chan int)
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for i := range next {
				var err error
				if conns[i], err = used(c.addr); err != nil {
					errs <- err
				}
			}
		})
	}
	for i := range conns {
		next <- i
	}
	close(next)
	wg.Wait()
	close(errs)
	if err := <-errs; err != nil {
		return 0, fmt.Errorf("%s: %w", c.name, err)
	}
	time.Sleep(2 * time.Second) // what was only needed for the requests may go
	return c.memory("VmRSS"), nil
}

// used returns a connection over which one request was answered.
func used(addr string) (net.Conn, error) {
	conn, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		return nil, err
	}
	if _, err := io.WriteString(conn, "GET "+small+" HTTP/1.1\r\nHost: bench\r\n\r\n"); err != nil {
		return conn, err
	}
	resp, err := http.ReadResponse(bufio.NewReaderSize(conn, 512), nil)
	if err != nil {
		return conn, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return conn, fmt.Errorf("status %s", resp.Status)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return conn, err
}
