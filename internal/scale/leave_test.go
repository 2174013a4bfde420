package scale

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// While somebody else scales a function the load does not; afterwards it does
// again.
func TestAutoscalerLeavesAFunctionToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newScaleWorld()
		f := w.add("f", testLimits(), 1)
		var fires atomic.Bool
		a := New(w.functions, w, Options{Now: w.now, Random: func() float64 { return 0.5 }, Leave: func(string) bool { return fires.Load() }, Log: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx) }()
		defer func() {
			cancel()
			<-done
		}()
		expect := func(want int) {
			t.Helper()
			synctest.Wait()
			w.expect(t, "f", want)
		}
		fires.Store(true)
		f.call(40)
		time.Sleep(time.Hour)
		expect(1)
		fires.Store(false)
		time.Sleep(time.Minute)
		expect(4)

		fires.Store(true)
		f.call(-40)
		time.Sleep(time.Hour)
		expect(4)
		fires.Store(false)
		time.Sleep(10 * time.Minute)
		expect(1)
	})
}
