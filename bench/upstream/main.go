// Command upstream is the server behind every contestant: it answers HTTP/1.1
// with as little work as a Go program can, so that little of what is measured
// is its own.
//
//	upstream ADDRESS
//
// A path that ends in 1m gets 1 MiB, any other 128 bytes. Bodies with a
// Content-Length or in chunks are read and thrown away. It trusts whoever
// connects: it is no model for a server.
package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"os"
	"strconv"
)

const (
	small = 128
	large = 1 << 20
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: upstream ADDRESS")
		os.Exit(2)
	}
	ln, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "upstream:", err)
		os.Exit(1)
	}
	answers := map[bool][]byte{false: answer(small), true: answer(large)}
	for {
		conn, err := ln.Accept()
		if err != nil {
			fmt.Fprintln(os.Stderr, "upstream:", err)
			os.Exit(1)
		}
		go serve(conn, answers)
	}
}

// answer is a whole response with n bytes in its body.
func answer(n int) []byte {
	head := "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: " + strconv.Itoa(n) + "\r\n\r\n"
	return append([]byte(head), bytes.Repeat([]byte("x"), n)...)
}

func serve(conn net.Conn, answers map[bool][]byte) {
	defer conn.Close()
	br := bufio.NewReaderSize(conn, 64<<10)
	for {
		wantsLarge, err := request(br)
		if err != nil {
			return
		}
		if _, err := conn.Write(answers[wantsLarge]); err != nil {
			return
		}
	}
}

// request reads one request and reports whether it wants the large answer.
func request(br *bufio.Reader) (wantsLarge bool, err error) {
	line, err := br.ReadSlice('\n')
	if err != nil {
		return false, err
	}
	wantsLarge = bytes.Contains(line, []byte("1m HTTP/"))
	length, chunked := int64(0), false
	for {
		line, err := br.ReadSlice('\n')
		if err != nil {
			return false, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64); err != nil {
				return false, err
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			chunked = true
		}
	}
	if chunked {
		if _, err := io.Copy(io.Discard, httputil.NewChunkedReader(br)); err != nil {
			return false, err
		}
		_, err = br.ReadSlice('\n') // no trailers
		return wantsLarge, err
	}
	for length > 0 {
		n, err := br.Discard(int(min(length, 1<<20)))
		length -= int64(n)
		if err != nil {
			return false, err
		}
	}
	return wantsLarge, nil
}
