package main

// The disk of the embedded server: how much is free, and starting the server
// anew when the disk has failed it.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	diskEvery   = 250 * time.Millisecond
	healthEvery = time.Second
)

// taken is told what is about to be written, so that a disk does not fill up
// between two looks. A batch is written twice.
func (e *engine) taken(bytes int) { e.free.Add(-2 * int64(bytes)) }

// full tells whether the rest of the disk is for what has been accepted.
func (e *engine) full() bool { return e.free.Load() < e.config.minFree }

func (e *engine) look() error {
	var s syscall.Statfs_t
	if err := syscall.Statfs(e.config.data, &s); err != nil {
		return err
	}
	free := int64(s.Bavail) * int64(s.Bsize)
	e.free.Store(free)
	e.metrics.diskFree.Set(float64(free))
	return nil
}

// run watches the disk until ctx ends. A stream that once failed to write
// takes nothing any more, even when there is space again. So the server starts
// anew then: it finds everything that it had confirmed.
func (e *engine) run(ctx context.Context) error {
	wasFull, checked := false, time.Now()
	for {
		if err := e.look(); err != nil {
			e.log.Error("the disk does not say how much is free", "error", err)
		}
		full := e.full()
		if full != wasFull {
			if wasFull = full; full {
				e.log.Error("the disk is getting full: no calls are accepted", "free", e.free.Load(), "min_free", e.config.minFree)
			} else {
				e.log.Info("there is space on the disk again", "free", e.free.Load())
			}
		}
		if !full && time.Since(checked) >= healthEvery {
			checked = time.Now()
			if err := e.health(); err != nil {
				e.log.Error("starting the embedded NATS server anew", "reason", err)
				if err := e.renew(); err != nil {
					e.log.Error("it does not start, trying again", "error", err)
				}
			}
		}
		if err := sleep(ctx, diskEvery); err != nil {
			return err
		}
	}
}

// health asks the server whether all its streams are there and can be written.
func (e *engine) health() error {
	e.mu.Lock()
	s := e.server
	e.mu.Unlock()
	if s == nil {
		return errors.New("it does not run")
	}
	w := healthWriter{}
	s.HandleHealthz(&w, &http.Request{URL: &url.URL{}})
	var health server.HealthStatus
	if err := json.Unmarshal(w.body, &health); err != nil {
		return fmt.Errorf("its health is unknown: %w", err)
	}
	if health.Error != "" {
		return errors.New(health.Error)
	}
	return nil
}

// A healthWriter takes what HandleHealthz writes.
type healthWriter struct {
	header http.Header
	body   []byte
}

func (w *healthWriter) Header() http.Header {
	if w.header == nil {
		w.header = http.Header{}
	}
	return w.header
}
func (w *healthWriter) WriteHeader(int) {}
func (w *healthWriter) Write(b []byte) (int, error) {
	w.body = append(w.body, b...)
	return len(b), nil
}

// renew starts the server anew.
func (e *engine) renew() error {
	e.metrics.restarts.Inc()
	e.stop()
	return e.start()
}
