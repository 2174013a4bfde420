package main

// When a call is tried again: by the function's labels, and by what the answer
// says.

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// retryRules say how often and when a call is tried again.
type retryRules struct {
	attempts         int   // in all
	codes            []int // statuses that are failures
	minWait, maxWait time.Duration
}

const (
	labelAttempts = "com.openfaas.retry.attempts"
	labelCodes    = "com.openfaas.retry.codes"
	labelMinWait  = "com.openfaas.retry.min_wait"
	labelMaxWait  = "com.openfaas.retry.max_wait"

	maxAttempts  = 1000
	maxRetryWait = 24 * time.Hour

	// A call that is put off waits for so long at first, and up to so long.
	putOffMin, putOffMax = time.Second, time.Minute
)

func defaultRetryRules() retryRules {
	return retryRules{attempts: 10, codes: []int{429, 502, 500, 504, 408}, minWait: 10 * time.Second, maxWait: 2 * time.Minute}
}

// parseRetryRules reads the labels that get finds. What is bad goes to
// problem, and its default holds.
func parseRetryRules(get func(string) (string, bool), problem func(string, error)) retryRules {
	r := defaultRetryRules()
	if s, ok := get(labelAttempts); ok {
		if n, err := strconv.Atoi(s); err != nil || n < 1 || n > maxAttempts {
			problem(labelAttempts, fmt.Errorf("%q is not a number from 1 to %d", s, maxAttempts))
		} else {
			r.attempts = n
		}
	}
	if s, ok := get(labelCodes); ok {
		var codes []int
		for _, v := range splitList(s) {
			n, err := strconv.Atoi(v)
			if err != nil || n < 100 || n > 599 {
				problem(labelCodes, fmt.Errorf("%q is not a list of statuses such as 500,502", s))
				codes = r.codes
				break
			}
			codes = append(codes, n)
		}
		r.codes = codes
	}
	least, most := r.minWait, r.maxWait
	for label, v := range map[string]*time.Duration{labelMinWait: &least, labelMaxWait: &most} {
		if s, ok := get(label); ok {
			d, err := time.ParseDuration(s)
			if err != nil || d <= 0 || d > maxRetryWait {
				problem(label, fmt.Errorf("%q is not a duration above 0 and up to 24h, such as 10s", s))
				continue
			}
			*v = d
		}
	}
	if _, given := get(labelMaxWait); !given {
		most = max(most, least)
	}
	if _, given := get(labelMinWait); !given {
		least = min(least, most)
	}
	if least > most {
		problem(labelMinWait, fmt.Errorf("%s is more than the longest wait, %s", least, most))
		return r
	}
	r.minWait, r.maxWait = least, most
	return r
}

func (r *retryRules) failure(code int) bool { return slices.Contains(r.codes, code) }

// wait is the time from attempt n, counted from 1, to the next: doubled each
// time, up to half as much again by chance, and never outside the limits.
func (r *retryRules) wait(n int) time.Duration {
	return backOff(n, r.minWait, r.maxWait)
}

func backOff(n int, least, most time.Duration) time.Duration {
	d := most
	if n-1 < 40 && least<<(n-1) < most && least<<(n-1) > 0 {
		d = least << (n - 1)
	}
	if top := d + d/2; top <= most {
		return d + rand.N(d/2+1)
	}
	return max(least, most-rand.N(most/4+1))
}

// putOff is the wait of a call that has been put off n times before, and is
// told by an answer's headers to come back later.
func putOff(n int, h http.Header, now time.Time) time.Duration {
	d := backOff(n+1, putOffMin, putOffMax)
	if asked, ok := retryAfter(h, now); ok {
		// Not all at the same time.
		d = max(putOffMin, asked) + rand.N(max(putOffMin, asked)/4+1)
	}
	return min(d, time.Hour)
}

// retryAfter reads the header Retry-After: seconds, or a date.
func retryAfter(h http.Header, now time.Time) (time.Duration, bool) {
	s := h.Get("Retry-After")
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return time.Duration(n) * time.Second, true
	}
	if t, err := http.ParseTime(s); err == nil {
		return max(0, t.Sub(now)), true
	}
	return 0, false
}
