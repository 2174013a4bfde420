// Command load sends HTTP/1.1 requests as fast as they are answered, over
// connections that stay open. It stands in for wrk where that is missing, and
// measures rounds that are too short for it.
//
//	load [-c CONNECTIONS] [-d DURATION] [-body BYTES] URL
//
// It prints one line of JSON: requests, errors, seconds, and the latencies
// p50_us and p99_us.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

type result struct {
	Requests int     `json:"requests"`
	Errors   int     `json:"errors"` // not 2xx, or no answer
	Seconds  float64 `json:"seconds"`
	P50      float64 `json:"p50_us"`
	P99      float64 `json:"p99_us"`
}

func main() {
	connections := flag.Int("c", 16, "connections")
	duration := flag.Duration("d", time.Second, "how long")
	body := flag.Int("body", 0, "bytes of a body to POST; 0 is GET")
	flag.Parse()
	target, err := url.Parse(flag.Arg(0))
	if err != nil || flag.NArg() != 1 || target.Host == "" {
		fmt.Fprintln(os.Stderr, "usage: load [-c CONNECTIONS] [-d DURATION] [-body BYTES] http://HOST:PORT/PATH")
		os.Exit(2)
	}
	json.NewEncoder(os.Stdout).Encode(run(target, *connections, *duration, *body))
}

func run(target *url.URL, connections int, duration time.Duration, body int) result {
	request := []byte("GET " + target.RequestURI() + " HTTP/1.1\r\nHost: " + target.Host + "\r\n\r\n")
	if body > 0 {
		head := "POST " + target.RequestURI() + " HTTP/1.1\r\nHost: " + target.Host +
			"\r\nContent-Type: application/octet-stream\r\nContent-Length: " + strconv.Itoa(body) + "\r\n\r\n"
		request = append([]byte(head), strings.Repeat("x", body)...)
	}
	var wg sync.WaitGroup
	latencies := make([][]time.Duration, connections)
	errors := make([]int, connections)
	began := time.Now()
	end := began.Add(duration)
	for i := range connections {
		wg.Go(func() { latencies[i], errors[i] = client(target.Host, request, end) })
	}
	wg.Wait()
	took := time.Since(began)
	all := slices.Concat(latencies...)
	slices.Sort(all)
	r := result{Requests: len(all), Seconds: took.Seconds()}
	for _, n := range errors {
		r.Errors += n
	}
	if len(all) > 0 {
		r.P50 = float64(all[len(all)/2].Nanoseconds()) / 1e3
		r.P99 = float64(all[len(all)*99/100].Nanoseconds()) / 1e3
	}
	return r
}

// client sends request until end, one at a time. A connection that breaks is
// counted as an error and replaced.
func client(addr string, request []byte, end time.Time) (latencies []time.Duration, errors int) {
	for time.Now().Before(end) {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			errors++
			time.Sleep(10 * time.Millisecond)
			continue
		}
		br := bufio.NewReader(conn)
		for began := time.Now(); began.Before(end); began = time.Now() {
			ok, err := exchange(conn, br, request)
			if !ok {
				errors++
			} else {
				latencies = append(latencies, time.Since(began))
			}
			if err != nil {
				break
			}
		}
		conn.Close()
	}
	return latencies, errors
}

// exchange reports whether the answer was a 2xx, and the error that broke the
// connection.
func exchange(conn net.Conn, br *bufio.Reader, request []byte) (ok bool, err error) {
	if _, err := conn.Write(request); err != nil {
		return false, err
	}
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		return false, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	if err == nil && resp.Close {
		err = io.EOF
	}
	return resp.StatusCode/100 == 2, err
}
