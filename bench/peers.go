package main

// What several gateways cost each other while nobody calls: they ask each other four
// times a second.

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	peerGateways = 3
	peerLength   = 30 * time.Second
)

// peers compares three gateways that know of each other with one that is alone, idle,
// with 1,000 functions.
func (b *bench) peers() error {
	const title = "Gateways with peers, 1,000 functions, idle"
	if !b.only.MatchString(title) {
		return nil
	}
	fmt.Fprintf(os.Stderr, "bench: %s\n", title)
	if _, err := exec.LookPath("ss"); err != nil {
		return fmt.Errorf("%s: without ss (iproute2) no bytes can be counted", title)
	}
	upstream, err := b.upstream()
	if err != nil {
		return err
	}
	alone, err := b.gateway("gateway, alone", upstream, 999)
	if err != nil {
		return err
	}
	var listen []string
	for range peerGateways {
		addr, err := freeAddr()
		if err != nil {
			return err
		}
		listen = append(listen, addr)
	}
	all := []*contestant{alone}
	for i, addr := range listen {
		c, err := b.gateway(fmt.Sprintf("gateway %d of %d", i+1, peerGateways), upstream, 999, "-peers", strings.Join(listen, ","), "-peer-listen", addr)
		if err != nil {
			return err
		}
		all = append(all, c)
	}
	time.Sleep(5 * time.Second) // until all have heard each other, and what the start needed is done
	before, bytesBefore, err := peerUsage(all, listen)
	if err != nil {
		return fmt.Errorf("%s: %w", title, err)
	}
	time.Sleep(peerLength)
	after, bytesAfter, err := peerUsage(all, listen)
	if err != nil {
		return fmt.Errorf("%s: %w", title, err)
	}
	percent := make([]float64, len(all))
	for i := range all {
		percent[i] = 100 * (after[i] - before[i]) / peerLength.Seconds()
	}
	// Each byte passes at two gateways.
	kB := 2 * (bytesAfter - bytesBefore) / peerGateways / peerLength.Seconds() / 1000
	t := table{title: title, columns: []string{"", "% of a processor", "more than alone", "kB per second, in and out"}}
	t.rows = append(t.rows, []string{alone.name, figure(percent[0]), "–", "–"})
	worst := 0.0
	for i := 1; i < len(all); i++ {
		more := percent[i] - percent[0]
		worst = max(worst, more)
		t.rows = append(t.rows, []string{all[i].name, figure(percent[i]), figure(more), figure(kB)})
	}
	b.report.tables = append(b.report.tables, t)
	b.report.targets = append(b.report.targets,
		target{what: "exchange of 3 idle gateways with 1,000 functions, % of a processor each", got: worst, low: worst, high: worst, limit: 0.5, bound: atMost},
		target{what: "the same, kB per second each", got: kB, low: kB, high: kB, limit: 20, bound: atMost})
	return nil
}

var socketBytes = regexp.MustCompile(`\bbytes_(?:sent|received):(\d+)`)

// peerUsage reads the processor seconds of each contestant, and the bytes that have
// passed over the connections to the gateways' listeners.
func peerUsage(all []*contestant, listen []string) (cpu []float64, bytes float64, err error) {
	for _, c := range all {
		d, err := cpuTime(c.cmd.Process.Pid)
		if err != nil {
			return nil, 0, err
		}
		cpu = append(cpu, d.Seconds())
	}
	conns := 0
	for _, addr := range listen {
		out, err := exec.Command("ss", "-tinHO", "state", "established", "sport", "=", ":"+port(addr)).Output()
		if err != nil {
			return nil, 0, fmt.Errorf("ss: %w", err)
		}
		for line := range strings.Lines(string(out)) {
			conns++
			for _, m := range socketBytes.FindAllStringSubmatch(line, -1) {
				n, _ := strconv.ParseFloat(m[1], 64)
				bytes += n
			}
		}
	}
	if conns < peerGateways*(peerGateways-1) {
		return nil, 0, errors.New("the gateways do not know each other")
	}
	return cpu, bytes, nil
}
