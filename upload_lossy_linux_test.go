//go:build !386 && !s390x

package main

// Uploads over a link that loses packets, and what the system makes of it.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"faas/internal/transport"
)

// startFarReplica serves on the far side of the link: it reads each body and
// answers with its length.
func startFarReplica(t testing.TB, l *lossyLink) (addr string) {
	t.Helper()
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n)
	})}
	ln := l.far.listen(t, farIP+":8080")
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Serve(ln)
	}()
	t.Cleanup(func() {
		s.Close()
		<-done
	})
	return ln.Addr().String()
}

// startNearGateway serves the function f0, whose replica is on the far side. If the
// system's waits are not limited, it is as on one that does not know the limit.
func startNearGateway(t testing.TB, l *lossyLink, limitWaits bool) (url string) {
	t.Helper()
	dialer := newDialer()
	limit := dialer.Control
	dialer.Control = func(network, addr string, c syscall.RawConn) error {
		if limitWaits && limit != nil {
			limit(network, addr, c)
		}
		return useCubic(network, addr, c)
	}
	r := manyFunctions(t, 1)
	r.function("f0").balancer.update([]string{startFarReplica(t, l)})
	rt := newTransport("direct", l.near.dialer(dialer)).(*transport.Transport)
	s := httptest.NewServer(newHandler(t, r, rt.RoundTrip))
	t.Cleanup(s.Close)
	t.Cleanup(rt.CloseIdleConnections)
	return s.URL + "/function/f0"
}

// postSize posts a body of so many bytes and returns the status.
func postSize(ctx context.Context, c *http.Client, url string, size int) (int, error) {
	req, err := http.NewRequestWithContext(ctx, "POST", url, bytes.NewReader(make([]byte, size)))
	if err != nil {
		return 0, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode == 200 && string(text) != fmt.Sprint(size) {
		err = fmt.Errorf("got %q, want %d", text, size)
	}
	return resp.StatusCode, err
}

// loseAcks loses what the far side sends until the near side has sent a segment
// n times again.
func (l *lossyLink) loseAcks(n int) {
	type segment struct {
		ports [4]byte
		seq   uint32
	}
	var mu sync.Mutex
	sent := map[segment]int{}
	heard := false
	lose := func(p linkPacket) bool {
		mu.Lock()
		defer mu.Unlock()
		if p.toFar && len(p.data()) > 1 { // a keep-alive probe may have one byte
			s := segment{p.ports(), p.seq()}
			heard = heard || sent[s] == n
			sent[s]++
		}
		return !p.toFar && !p.opens() && !heard
	}
	l.lose.Store(&lose)
}

// Where acknowledgements are lost, the system takes its own waits for the time
// that the network takes: it waits for four times as long after each of these
// uploads, 14 s in the third, and a replica that it hardly asks never seems silent.
// No upload may pay for an earlier one, whether or not the system knows a limit for
// its waits.
func TestAnUploadDoesNotWaitForLossesOfEarlierOnes(t *testing.T) {
	for _, limited := range []bool{true, false} {
		t.Run(fmt.Sprintf("limit=%v", limited), func(t *testing.T) {
			t.Parallel()
			for try := 0; ; try++ {
				still := standstill()
				err := uploadsAfterLosses(t, limited)
				if still() > 500*time.Millisecond && err != nil && try < 5 {
					continue // the link stood still with this process, and the system's timers did not
				}
				if err != nil {
					t.Fatal(err)
				}
				return
			}
		})
	}
}

func uploadsAfterLosses(t *testing.T, limited bool) error {
	l := newLossyLink(t, 10*time.Millisecond)
	url := startNearGateway(t, l, limited)
	const size = 17 << 10 // more than what is sent whole, and so small that all of it is on its way at once
	for i := range 5 {
		if i >= 2 {
			l.loseAcks(2)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
		code, err := postSize(ctx, http.DefaultClient, url, size)
		cancel()
		if code != 200 || err != nil {
			return fmt.Errorf("upload %d: got %d, %v, want 200", i, code, err)
		}
	}
	return nil
}

// standstill measures for how long this process stands still at most, until longest is
// called, once.
func standstill() (longest func() time.Duration) {
	stop, most := make(chan struct{}), make(chan time.Duration)
	go func() {
		var m time.Duration
		for last := time.Now(); ; {
			select {
			case <-time.After(5 * time.Millisecond):
				m, last = max(m, time.Since(last)), time.Now()
			case <-stop:
				most <- max(m, time.Since(last))
				return
			}
		}
	}()
	return func() time.Duration {
		close(stop)
		return <-most
	}
}

// A replica that falls silent is given up even where the system waits for so long
// that it hardly asks.
func TestTransportGivesUpASilentReplicaThatTheSystemWaitsFor(t *testing.T) {
	const unacked = 600 * time.Millisecond
	l := newLossyLink(t, 350*time.Millisecond) // so the system waits for 1 s, 2 s, 4 s
	addr := startFarReplica(t, l)
	lose := func(p linkPacket) bool { return !p.opens() && len(p.data()) > 0 }
	l.lose.Store(&lose)
	rt := transport.New(l.near.dialer(&net.Dialer{}), transport.Limits{IdlePerAddr: 8, Idle: 8, Head: 1 << 20, Unacked: unacked})
	t.Cleanup(rt.CloseIdleConnections)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "POST", "http://"+addr+"/", io.NopCloser(bytes.NewReader(make([]byte, 64<<10))))
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = 64 << 10
	_, err = rt.RoundTrip(req)
	if attempt, ok := errors.AsType[*transport.Error](err); !ok || attempt.Stage != transport.StageSent || !errors.Is(err, syscall.ETIMEDOUT) {
		t.Errorf("got %v, want ETIMEDOUT after the request was sent", err)
	}
}

// BenchmarkUploadsOverALossyLink sends bodies of 64 KiB through the gateway to a
// replica behind 50 ms each way and random losses, 24 at a time; see
// docs/reliability.md.
func BenchmarkUploadsOverALossyLink(b *testing.B) {
	for _, limited := range []bool{true, false} {
		b.Run(fmt.Sprintf("loss=5%%/limit=%v", limited), func(b *testing.B) {
			benchmarkLossyUploads(b, limited, func(linkPacket) bool { return rand.IntN(100) < 5 })
		})
		b.Run(fmt.Sprintf("outages/limit=%v", limited), func(b *testing.B) {
			out := [2]func() bool{outages(1), outages(2)}
			benchmarkLossyUploads(b, limited, func(p linkPacket) bool {
				way := 0
				if p.toFar {
					way = 1
				}
				return out[way]() || rand.IntN(100) < 1
			})
		})
	}
}

// outages returns whether a direction is dead: after 9.5 s on average for 0.5 s on
// average, four times that at most, at the same times for the same seed.
func outages(seed uint64) func() bool {
	r := rand.New(rand.NewPCG(seed, 7))
	mean := map[bool]float64{false: float64(9500 * time.Millisecond), true: float64(500 * time.Millisecond)}
	dead, until := true, time.Now()
	return func() bool { // called by one goroutine
		for now := time.Now(); now.After(until); {
			dead = !dead
			until = until.Add(time.Duration(min(4, r.ExpFloat64()) * mean[dead]))
		}
		return dead
	}
}

func benchmarkLossyUploads(b *testing.B, limited bool, lose func(linkPacket) bool) {
	const callers = 24
	l := newLossyLink(b, 50*time.Millisecond)
	url := startNearGateway(b, l, limited)
	l.lose.Store(&lose)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: callers}, Timeout: 2 * time.Minute}
	defer client.CloseIdleConnections()
	var mu sync.Mutex
	var took []time.Duration
	failed := 0
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	b.ResetTimer()
	for range callers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				began := time.Now()
				code, err := postSize(b.Context(), client, url, 64<<10)
				if err != nil {
					b.Error(err)
					return
				}
				mu.Lock()
				took = append(took, time.Since(began))
				if code != 200 {
					failed++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	if len(took) == 0 {
		return
	}
	slices.Sort(took)
	for _, q := range []float64{0.5, 0.99, 0.999, 1} {
		b.ReportMetric(took[min(int(q*float64(len(took))), len(took)-1)].Seconds(), fmt.Sprintf("s/p%g", 100*q))
	}
	b.ReportMetric(float64(failed), "failed")
}
