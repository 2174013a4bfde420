package watchdog

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// A body that never ends takes nobody's place once the answer is complete, and its
// client has the end of the answer at once.
func TestBodyThatNeverEnds(t *testing.T) {
	const most = 64 << 20 // see wire.Lingering
	inHTTP, http_, _ := before(t, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		fmt.Fprint(w, "answer")
		http.NewResponseController(w).Flush()
	})
	forked, fork, _ := serve(t, testConfig(t, "echo -n answer"))
	streamed, streaming, _ := serve(t, testConfig(t, "echo -n answer", "mode=streaming"))
	for url, h := range map[string]*Handler{inHTTP: http_, forked: fork, streamed: streaming} {
		t.Run(h.cfg.Mode, func(t *testing.T) {
			c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(60 * time.Second))
			fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(resp.Body); err != nil || string(got) != "answer" || !resp.Close {
				t.Errorf("got %q, %v, closed %v, want the answer and the connection closed", got, err, resp.Close)
			}
			wantIdle(t, h)
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
