package main

// How much garbage may pile up. Left alone, the collector lets the heap grow
// to twice what is live, and the runtime keeps what it once had.

import (
	"context"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"time"
)

// smallHeap is what the process may use before the collector has to work
// harder: enough for 100,000 calls that wait.
const smallHeap = 64 << 20

// boundMemory keeps the runtime below smallHeap as long as what is live fits
// into a two thirds of that, until ctx ends.
func boundMemory(ctx context.Context) error {
	live := []runtimemetrics.Sample{{Name: "/gc/heap/live:bytes"}}
	for {
		runtimemetrics.Read(live)
		debug.SetMemoryLimit(max(smallHeap, int64(live[0].Value.Uint64())/2*3))
		if err := sleep(ctx, time.Second); err != nil {
			return err
		}
	}
}
