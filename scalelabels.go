package main

// The labels that say how a function scales, and what they may be.

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

const (
	labelScaleMin          = "com.openfaas.scale.min"
	labelScaleMax          = "com.openfaas.scale.max"
	labelScaleType         = "com.openfaas.scale.type"
	labelScaleTarget       = "com.openfaas.scale.target"
	labelScaleZero         = "com.openfaas.scale.zero"
	labelScaleZeroDuration = "com.openfaas.scale.zero-duration"
	labelScaleFactor       = "com.openfaas.scale.factor"
)

const (
	maxScale        = 1000 // replicas of one function: beyond it is a slip of the hand
	maxScaleTarget  = 1e6
	maxZeroDuration = 30 * 24 * time.Hour

	defaultZeroDuration = 15 * time.Minute
	defaultScaleFactor  = 20 // percent
)

// parseScaleLabels reads the labels that get finds over the defaults, which
// must be valid themselves. Each label that cannot be used gives one error,
// naming it, its value and what it may be, and its default holds.
func parseScaleLabels(get func(label string) (value string, ok bool), defaults scaleLimits) (scaleLimits, []error) {
	s := defaults
	var errs []error
	bad := func(label, value, want string) {
		errs = append(errs, fmt.Errorf("label %s: got %q, want %s", label, value, want))
	}
	// parse runs set on the label's value, if there is one. set reports
	// whether the value is good, and changes nothing if it is not.
	parse := func(label, want string, set func(value string) bool) bool {
		value, ok := get(label)
		if !ok {
			return false
		}
		if !set(strings.TrimSpace(value)) {
			bad(label, value, want)
			return false
		}
		return true
	}

	hasMin := parse(labelScaleMin, fmt.Sprintf("a whole number from 0 to %d", maxScale), func(v string) bool {
		return parseWithin(v, 0, maxScale, &s.min)
	})
	hasMax := parse(labelScaleMax, fmt.Sprintf("a whole number from 1 to %d", maxScale), func(v string) bool {
		return parseWithin(v, 1, maxScale, &s.max)
	})
	if s.min > s.max {
		switch {
		case hasMin && hasMax:
			bad(labelScaleMin, strconv.Itoa(s.min), fmt.Sprintf("at most %s, which is %d", labelScaleMax, s.max))
		case hasMin:
			bad(labelScaleMin, strconv.Itoa(s.min), fmt.Sprintf("at most the maximum, which is %d by default", s.max))
		default:
			bad(labelScaleMax, strconv.Itoa(s.max), fmt.Sprintf("at least the minimum, which is %d", s.min))
		}
		s.min, s.max = defaults.min, defaults.max
	}

	parse(labelScaleType, scaleCapacity+" or "+scaleRPS, func(v string) bool {
		if v != scaleCapacity && v != scaleRPS {
			return false
		}
		s.kind = v
		return true
	})
	parse(labelScaleTarget, "a number above 0, at most a million", func(v string) bool {
		target, err := strconv.ParseFloat(v, 64)
		if err != nil || math.IsNaN(target) || target <= 0 || target > maxScaleTarget {
			return false
		}
		s.target = target
		return true
	})
	hasZero := parse(labelScaleZero, "true or false", func(v string) bool {
		zero, err := strconv.ParseBool(v)
		if err == nil {
			s.zero = zero
		}
		return err == nil
	})
	if s.zero && s.min == s.max {
		if hasZero {
			bad(labelScaleZero, "true", "false where the minimum equals the maximum, which means no scaling; for one replica or none, a minimum of 0")
		}
		s.zero = false
	}
	parse(labelScaleZeroDuration, "a duration such as 90s or 15m, or whole seconds, above 0, at most 720h", func(v string) bool {
		d, ok := parseZeroDuration(v)
		if ok {
			s.zeroDuration = d
		}
		return ok
	})
	parse(labelScaleFactor, "a whole number from 0 to 100", func(v string) bool {
		return parseWithin(v, 0, 100, &s.factor)
	})
	return s, errs
}

// parseWithin stores a whole number from low to high.
func parseWithin(value string, low, high int, into *int) bool {
	n, err := strconv.Atoi(value)
	if err != nil || n < low || n > high {
		return false
	}
	*into = n
	return true
}

func parseZeroDuration(value string) (time.Duration, bool) {
	d, err := time.ParseDuration(value)
	if n, atoiErr := strconv.Atoi(value); atoiErr == nil {
		if n > int(maxZeroDuration/time.Second) {
			return 0, false
		}
		d, err = time.Duration(n)*time.Second, nil
	}
	return d, err == nil && d > 0 && d <= maxZeroDuration
}
