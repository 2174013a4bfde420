package forkserver

// What a call costs, forked and plain.

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// handlers are functions as people write them: they read a body, look at it
// with a few modules, and answer in JSON.
var handlers = map[string]string{
	"python": `import datetime, hashlib, json, re, sys, urllib.request

body = sys.stdin.buffer.read()
print(json.dumps({
    "words": len(re.findall(rb"\w+", body)),
    "hash": hashlib.sha256(body).hexdigest(),
    "time": datetime.datetime.now().isoformat(),
}))
`,
	"perl": `use strict;
use warnings;
use Digest::SHA 'sha256_hex';
use JSON::PP;
use POSIX 'strftime';
use Time::HiRes 'time';

my $body = do { local $/; <STDIN> } // '';
my @words = $body =~ /\w+/g;
print JSON::PP->new->encode({words => scalar @words, hash => sha256_hex($body), time => strftime('%FT%T', gmtime)}), "\n";
`,
	"ruby": `require 'digest'
require 'json'
require 'set'
require 'time'

body = STDIN.read
puts JSON.dump(words: body.scan(/\w+/).size, hash: Digest::SHA256.hexdigest(body), time: Time.now.iso8601)
`,
}

// BenchmarkCall makes each call both ways in turn, so that both get the same
// machine, and reports the medians, the processor time, and their ratios.
func BenchmarkCall(b *testing.B) {
	for _, language := range []string{"python", "perl", "ruby"} {
		b.Run(language, func(b *testing.B) {
			argv := []string{interpreter(b, language), script(b, "handler", handlers[language])}
			s, _ := start(b, Options{Command: argv, Template: []string{language}})
			call(b, s, argv, true)
			template := s.now.Load().template
			var took, own [2][]time.Duration
			plainBefore, forkedBefore := childrenTime(), treeTime(b, template.pid)
			for b.Loop() {
				for i, viaTemplate := range []bool{false, true} {
					used, began := selfTime(), time.Now()
					call(b, s, argv, viaTemplate)
					took[i] = append(took[i], time.Since(began))
					own[i] = append(own[i], selfTime()-used)
				}
			}
			if s.now.Load().template != template {
				b.Fatal("the template was renewed in between")
			}
			n := time.Duration(len(took[0]))
			cpuPlain := (childrenTime() - plainBefore + sum(own[0])) / n
			cpuForked := (treeTime(b, template.pid) - forkedBefore + sum(own[1])) / n
			plain, forked := median(took[0]), median(took[1])
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(plain.Seconds()*1e3, "plain-p50-ms")
			b.ReportMetric(forked.Seconds()*1e3, "forked-p50-ms")
			b.ReportMetric(float64(forked)/float64(plain), "p50-ratio")
			b.ReportMetric(cpuPlain.Seconds()*1e3, "plain-cpu-ms")
			b.ReportMetric(cpuForked.Seconds()*1e3, "forked-cpu-ms")
			b.ReportMetric(float64(cpuForked)/float64(cpuPlain), "cpu-ratio")
		})
	}
}

// BenchmarkThroughput has four callers for a second each way, in turn.
func BenchmarkThroughput(b *testing.B) {
	argv := []string{interpreter(b, "python"), script(b, "handler", handlers["python"])}
	s, _ := start(b, Options{Command: argv, Template: []string{"python"}, MaxForks: 1e6})
	call(b, s, argv, true)
	var calls [2]atomic.Int64
	rounds := 0
	for b.Loop() {
		rounds++
		for i, viaTemplate := range []bool{false, true} {
			end := time.Now().Add(time.Second)
			var callers sync.WaitGroup
			for range 4 {
				callers.Go(func() {
					for time.Now().Before(end) {
						call(b, s, argv, viaTemplate)
						calls[i].Add(1)
					}
				})
			}
			callers.Wait()
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(calls[0].Load())/float64(rounds), "plain/s")
	b.ReportMetric(float64(calls[1].Load())/float64(rounds), "forked/s")
	b.ReportMetric(float64(calls[1].Load())/float64(calls[0].Load()), "times")
}

// call makes one call with a short body, as the watchdog does: STDIN is there
// in full, STDOUT and STDERR are read until the process has ended.
func call(b *testing.B, s *Server, argv []string, viaTemplate bool) {
	var ours, theirs [3]*os.File
	for i := range 3 {
		r, w, err := os.Pipe()
		if err != nil {
			b.Fatal(err)
		}
		if ours[i], theirs[i] = r, w; i == 0 {
			ours[i], theirs[i] = w, r
		}
	}
	defer func() {
		ours[1].Close()
		ours[2].Close()
	}()
	ours[0].WriteString("a short body, as most are")
	ours[0].Close()
	out := make([]byte, 4096)
	var failure error
	if viaTemplate {
		c := fork(b, s, Request{Env: append(os.Environ(), "Http_Method=POST", "Http_Path=/"), Files: theirs})
		for _, f := range theirs {
			f.Close()
		}
		n, _ := ours[1].Read(out)
		out = out[:n]
		readable(c.Pidfd, -1)
		status, err := c.Reap()
		syscall.Close(c.Pidfd)
		if failure = err; status != 0 {
			failure = fmt.Errorf("status %v", status)
		}
	} else {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Env = append(os.Environ(), "Http_Method=POST", "Http_Path=/")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs[0], theirs[1], theirs[2]
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		for _, f := range theirs {
			f.Close()
		}
		n, _ := ours[1].Read(out)
		out = out[:n]
		failure = cmd.Wait()
	}
	if failure != nil || !strings.Contains(string(out), "hash") {
		b.Fatalf("got %q and %v", out, failure)
	}
}

func selfTime() time.Duration     { return rusage(syscall.RUSAGE_SELF) }
func childrenTime() time.Duration { return rusage(syscall.RUSAGE_CHILDREN) }

func rusage(who int) time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(who, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// treeTime returns the processor time of a process and of the children that it
// has reaped, to 10 ms.
func treeTime(b *testing.B, pid int) time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	var ticks int64
	for _, f := range fields[11:15] {
		var n int64
		fmt.Sscan(f, &n)
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

func sum(d []time.Duration) (all time.Duration) {
	for _, x := range d {
		all += x
	}
	return all
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}
