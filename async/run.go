package main

// Running a call: the gateway gets it as it came.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// A runner sends calls to the gateway.
type runner struct {
	gateway   *url.URL
	client    *http.Client
	timeout   time.Duration
	maxBody   int64
	functions *functions
}

// newGatewayClient makes the client of everything that goes to the gateway.
func newGatewayClient(workers int) *http.Client {
	dialer := &net.Dialer{
		Timeout: 3 * time.Second,
		// A function may take hours and say nothing meanwhile; a machine that
		// is gone says nothing either.
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 3 * time.Second, Count: 3},
	}
	return &http.Client{
		Transport: &http.Transport{
			DialContext:            dialer.DialContext,
			MaxIdleConnsPerHost:    workers,
			IdleConnTimeout:        time.Minute,
			DisableCompression:     true, // bytes as they are
			MaxResponseHeaderBytes: maxHeaderLen,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// weigh is the memory that a call may take: itself, and the answer as far as
// it is kept.
func (run *runner) weigh(c *call, message int) int64 {
	return int64(message) + run.keep(c)
}

// keep is how much of the answer's body is kept.
func (run *runner) keep(c *call) int64 {
	if c.callback != "" {
		return run.maxBody
	}
	return keptAnswer
}

// attempt runs a call once.
func (run *runner) attempt(ctx context.Context, c *call, _ record) result {
	bounded, cancel := context.WithTimeout(ctx, run.timeout)
	defer cancel()
	req, err := run.request(bounded, c)
	if err != nil {
		return result{outcome: hopeless, reason: err.Error()}
	}
	start := time.Now()
	resp, err := run.client.Do(req)
	if err == nil {
		defer resp.Body.Close()
		var a *answer
		if a, err = readAnswer(resp, run.keep(c)); err == nil {
			a.duration = time.Since(start)
			return run.judge(c, a)
		}
	}
	op, _ := errors.AsType[*net.OpError](err)
	switch {
	case ctx.Err() != nil:
		return result{outcome: givenBack}
	case bounded.Err() != nil:
		return result{outcome: failed, reason: fmt.Sprintf("no answer within %s", run.timeout)}
	case op != nil && op.Op == "dial":
		return result{outcome: later, reason: "the gateway cannot be reached"}
	}
	return result{outcome: failed, reason: "the connection to the gateway broke before the answer was complete"}
}

// request makes the request of a call. The path goes out byte for byte.
func (run *runner) request(ctx context.Context, c *call) (*http.Request, error) {
	path, query, hasQuery := strings.Cut(c.target, "?")
	u := &url.URL{
		Scheme: run.gateway.Scheme, Host: run.gateway.Host,
		Opaque:   run.gateway.EscapedPath() + "/function/" + c.name + path,
		RawQuery: query, ForceQuery: hasQuery,
	}
	req := (&http.Request{Method: c.method, URL: u, Host: c.host, Header: c.header.Clone()}).WithContext(ctx)
	setBody(req, c.body)
	if req.Header["User-Agent"] == nil {
		req.Header["User-Agent"] = nil // else net/http writes its own
	}
	req.Header.Set("X-Call-Id", c.id)
	return req, nil
}

// setBody gives a request its body. GetBody lets net/http take another
// connection where one that was kept turns out to be dead before anything has
// been sent.
func setBody(req *http.Request, body []byte) {
	if len(body) == 0 {
		return
	}
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	req.Body, _ = req.GetBody()
	req.ContentLength = int64(len(body))
}

// judge tells what an answer means.
func (run *runner) judge(c *call, a *answer) result {
	rules := run.functions.find(c.function).rules
	reason := fmt.Sprintf("status %d", a.code)
	switch {
	case a.code == http.StatusTooManyRequests, a.code == http.StatusServiceUnavailable:
		return result{outcome: later, answer: a, reason: reason}
	case a.code == http.StatusNotFound && run.functions.missing(c.function):
		return result{outcome: later, answer: a, reason: "there is no such function now"}
	case rules.failure(a.code):
		return result{outcome: failed, answer: a, reason: reason}
	case a.code >= 400 && a.header.Get("X-OpenFaaS-Internal") != "":
		return result{outcome: failed, answer: a, reason: reason + ", not from the function itself"}
	}
	return result{outcome: succeeded, answer: a}
}

// readAnswer reads an answer to its end and keeps so many bytes of its body.
func readAnswer(resp *http.Response, keep int64) (*answer, error) {
	body, err := io.ReadAll(io.LimitReader(resp.Body, keep))
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	rest, err := io.Copy(io.Discard, resp.Body)
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	return &answer{code: resp.StatusCode, header: resp.Header, body: body, cut: rest > 0}, nil
}
