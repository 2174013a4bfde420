package main

// What a caller still sends when its answer is complete.

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A body that never ends takes nobody's place once the answer is complete, and its
// caller has the end of the answer at once.
func TestABodyThatNeverEnds(t *testing.T) {
	p := newMemoryProvider()
	p.set("hasty", nil, startReplica(t, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		fmt.Fprint(w, "answer")
		http.NewResponseController(w).Flush() // before the body is in
	}))
	for _, transport := range []string{"direct", "std"} {
		t.Run(transport, func(t *testing.T) {
			base := startGateway(t, p, "-transport", transport)
			c, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(60 * time.Second))
			fmt.Fprintf(c, "POST /function/hasty HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(resp.Body); err != nil || string(got) != "answer" || !resp.Close {
				t.Errorf("got %q, %v, closed %v, want the answer and the connection closed", got, err, resp.Close)
			}
			waitForMetric(t, base, `gateway_function_invocation_inflight{function_name="hasty"} 0`)
			const most = 64 << 20 // see wire.Lingering
			chunk := fmt.Appendf(nil, "100000\r\n%s\r\n", make([]byte, 1<<20))
			sent := 0
			for ; err == nil && sent < 2*most; sent += 1 << 20 {
				_, err = c.Write(chunk)
			}
			if err == nil || sent < most {
				t.Errorf("got %d bytes sent, %v, want to be cut off after %d", sent, err, most)
			}
		})
	}
}

// A caller that has its answer and still sends is not in flight: the end of the
// gateway does not wait for it, and does not say that it cuts anybody off.
func TestTheEndDoesNotWaitForWhoHasAnAnswer(t *testing.T) {
	replica := startReplica(t, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		fmt.Fprint(w, "answer")
		http.NewResponseController(w).Flush()
	})
	p := startProgram(t, "-drain=0", "-shutdown-timeout=2s", "-function=hasty=http://"+replica)
	c := dialRaw(t, "http://"+p.addr)
	c.send("POST /function/hasty HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
	if resp, body := c.receive("POST"); body != "answer" || !resp.Close {
		t.Errorf("got %q, closed %v, want the answer and the connection closed", body, resp.Close)
	}
	go func() {
		for err := error(nil); err == nil; _, err = io.WriteString(c, "1\r\nx\r\n") {
			time.Sleep(50 * time.Millisecond)
		}
	}()
	p.signals <- syscall.SIGTERM
	p.wait(t, 0)
	if p.log.count("cut off") > 0 {
		t.Error("the log says that requests in flight were cut off")
	}
}
