package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// How fast calls are accepted, beside a queue in memory, as OpenFaaS has it,
// and beside what the disk confirms at all. 64 callers, 1 KiB bodies; the disk
// has one.
func BenchmarkAccept(b *testing.B) {
	body := make([]byte, 1024)
	b.Run("faas-async", func(b *testing.B) {
		// A gateway that says nothing: as many calls as may run do, to no end,
		// and the disk is for those that come.
		g := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		}))
		defer g.Close()
		c, err := parseConfig([]string{"-listen", "127.0.0.1:0", "-gateway", g.URL, "-data", b.TempDir(), "-nats-listen", "none", "-auth-dir", b.TempDir(), "-shutdown-timeout", "0s"}, func(string) string { return "" }, io.Discard)
		if err != nil {
			b.Fatal(err)
		}
		signals, up, ended := make(chan os.Signal, 1), make(chan *service, 1), make(chan error, 1)
		go func() {
			ended <- serve(context.Background(), &c, slog.New(slog.DiscardHandler), signals, func(s *service) { up <- s })
		}()
		s := <-up
		within(b, soon, "ready", func() bool { return s.store.ready.Load() })
		postMany(b, "http://"+s.address.String()+"/async-function/fn", body)
		signals <- os.Interrupt
		<-ended
	})
	b.Run("in memory", func(b *testing.B) {
		s, err := server.NewServer(&server.Options{JetStream: true, StoreDir: b.TempDir(), DontListen: true, NoSigs: true})
		if err != nil {
			b.Fatal(err)
		}
		s.Start()
		defer s.Shutdown()
		nc, err := nats.Connect("", nats.InProcessServer(s))
		if err != nil {
			b.Fatal(err)
		}
		defer nc.Close()
		js, err := jetstream.New(nc)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := js.CreateStream(b.Context(), jetstream.StreamConfig{Name: "Q", Subjects: []string{"q"}, Storage: jetstream.MemoryStorage}); err != nil {
			b.Fatal(err)
		}
		h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			if _, err := js.Publish(r.Context(), "q", body); err != nil {
				w.WriteHeader(http.StatusInternalServerError)
				return
			}
			w.WriteHeader(http.StatusAccepted)
		}))
		defer h.Close()
		postMany(b, h.URL, body)
	})
	b.Run("fsync", func(b *testing.B) {
		f, err := os.Create(filepath.Join(b.TempDir(), "f"))
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		took := make([]time.Duration, 0, b.N)
		for b.Loop() {
			start := time.Now()
			if _, err := f.Write(body); err != nil {
				b.Fatal(err)
			}
			if err := f.Sync(); err != nil {
				b.Fatal(err)
			}
			took = append(took, time.Since(start))
		}
		report(b, took)
	})
}

// postMany posts b.N times from 64 callers.
func postMany(b *testing.B, url string, body []byte) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	var mu sync.Mutex
	var took []time.Duration
	var wg sync.WaitGroup
	next := make(chan struct{})
	for range 64 {
		wg.Go(func() {
			var mine []time.Duration
			for range next {
				start := time.Now()
				resp, err := client.Post(url, "", bytes.NewReader(body))
				if err != nil {
					b.Error(err)
					continue
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode != http.StatusAccepted {
					b.Errorf("got %s", resp.Status)
				}
				mine = append(mine, time.Since(start))
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, mine...)
		})
	}
	for b.Loop() {
		next <- struct{}{}
	}
	close(next)
	wg.Wait()
	report(b, took)
}

func report(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(float64(len(took))/b.Elapsed().Seconds(), "calls/s")
	for name, q := range map[string]float64{"p50-ms": .5, "p99-ms": .99} {
		b.ReportMetric(float64(took[min(int(q*float64(len(took))), len(took)-1)].Microseconds())/1000, name)
	}
	b.ReportMetric(0, "ns/op")
}
