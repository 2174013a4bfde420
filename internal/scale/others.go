package scale

// What the autoscaler asks about other gateways in front of the same functions.

import "time"

// Others are the gateways that carry a part of the load. A Function's Totals are the
// sum of all. Methods are called from several goroutines and must not block.
type Others interface {
	// Sample is called at each tick, before the functions' Totals. It may have them
	// be of an earlier moment, see Totals.At.
	Sample(now time.Duration)

	// Acting reports whether this gateway is the one that acts on load. Any may wake
	// a function that has no replica.
	Acting() bool

	// Complete reports whether the sum is one of all gateways, so that a low one
	// means that there is little load.
	Complete() bool

	// Set returns the number of replicas that another gateway has set within the
	// time given, if one has.
	Set(name string, within time.Duration) (replicas int, ok bool)

	// Joined reports whether Totals include a gateway that uses the function and that
	// they have only included for the time given.
	Joined(name string, within time.Duration) bool
}

// alone is a gateway without others.
type alone struct{}

func (alone) Sample(time.Duration)                  {}
func (alone) Acting() bool                          { return true }
func (alone) Complete() bool                        { return true }
func (alone) Joined(string, time.Duration) bool     { return false }
func (alone) Set(string, time.Duration) (int, bool) { return 0, false }
