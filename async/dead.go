package main

// Dead letters: calls and callbacks that were given up. They keep the request,
// the last answer and the reason, to be looked at, run again or dropped.

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// NATS headers of a dead letter, besides those of its call.
const (
	headerQueue    = "Faas-Queue"
	headerReason   = "Faas-Reason"
	headerAttempts = "Faas-Attempts"
	headerStatus   = "Faas-Status"
	headerRequest  = "Faas-Request-Length" // of the data; the answer follows
)

func deadSubject(function, id, uid, queue string) string {
	return "faas.dead." + token(function) + "." + idToken(id) + "." + uid + "-" + queue
}

// bury stores a dead letter. It may be told the same twice.
func (s *store) bury(ctx context.Context, queue string, c *call, r record, a *answer) error {
	m := c.message(deadSubject(c.function, c.id, c.uid, queue))
	m.Header.Set(headerQueue, queue)
	m.Header.Set(headerReason, r.Reason)
	m.Header.Set(headerAttempts, strconv.Itoa(r.Attempt))
	m.Header.Set(headerStatus, strconv.Itoa(r.Code))
	m.Header.Set(headerRequest, strconv.Itoa(len(m.Data)))
	if a != nil {
		body := a.body[:min(len(a.body), keptAnswer)]
		var b bytes.Buffer
		fmt.Fprintf(&b, "HTTP/1.1 %03d %s\r\n", a.code, http.StatusText(a.code))
		h := endToEnd(a.header)
		h.Set("Content-Length", strconv.Itoa(len(body)))
		h.Write(&b)
		b.WriteString("\r\n")
		b.Write(body)
		m.Data = append(m.Data, b.Bytes()...)
	}
	_, _, err := s.publish(ctx, m, jetstream.WithMsgID("dead."+queue+"."+c.id+"."+c.uid+"."+strconv.FormatInt(c.accepted.UnixNano(), 36)))
	return err
}

// A deadLetter is one as it is shown.
type deadLetter struct {
	ID       uint64       `json:"id"`
	Kind     string       `json:"kind"` // call or callback
	Function string       `json:"function"`
	CallID   string       `json:"callId"`
	Callback string       `json:"callbackUrl,omitempty"`
	Reason   string       `json:"reason"`
	Attempts int          `json:"attempts"`
	Status   int          `json:"status,omitempty"` // of the last answer
	Accepted time.Time    `json:"accepted"`
	Died     time.Time    `json:"died"`
	Request  *httpMessage `json:"request,omitempty"`
	Answer   *httpMessage `json:"answer,omitempty"`
}

// An httpMessage is a request or an answer. Body is there for text, Base64
// for all else.
type httpMessage struct {
	Method string      `json:"method,omitempty"`
	Path   string      `json:"path,omitempty"`
	Header http.Header `json:"header"`
	Body   string      `json:"body,omitempty"`
	Base64 []byte      `json:"base64,omitempty"`
}

func newHTTPMessage(h http.Header, body []byte) *httpMessage {
	m := &httpMessage{Header: h}
	if utf8.Valid(body) {
		m.Body = string(body)
	} else {
		m.Base64 = body
	}
	return m
}

func newDeadLetter(seq uint64, h nats.Header, died time.Time) deadLetter {
	d := deadLetter{
		ID: seq, Kind: h.Get(headerQueue), Function: h.Get(headerFunction), CallID: h.Get(headerID),
		Callback: h.Get(headerCallback), Reason: h.Get(headerReason), Died: died,
	}
	d.Attempts, _ = strconv.Atoi(h.Get(headerAttempts))
	d.Status, _ = strconv.Atoi(h.Get(headerStatus))
	if n, err := strconv.ParseInt(h.Get(headerAccepted), 10, 64); err == nil {
		d.Accepted = time.Unix(0, n)
	}
	return d
}

// errNoLetter says that there is no dead letter of this ID.
var errNoLetter = errors.New("there is no such dead letter")

// letter reads one dead letter with its call.
func (s *store) letter(ctx context.Context, id uint64) (deadLetter, *call, error) {
	m, err := s.streams[streamDead].GetMsg(ctx, id)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return deadLetter{}, nil, errNoLetter
	}
	if err != nil {
		return deadLetter{}, nil, fmt.Errorf("dead letter %d: %w", id, err)
	}
	d := newDeadLetter(m.Sequence, m.Header, m.Time)
	n, err := strconv.Atoi(m.Header.Get(headerRequest))
	if err != nil || n < 0 || n > len(m.Data) {
		return deadLetter{}, nil, fmt.Errorf("dead letter %d cannot be read", id)
	}
	c, err := parseCall(m.Header, m.Data[:n])
	if err != nil {
		return deadLetter{}, nil, fmt.Errorf("dead letter %d: %w", id, err)
	}
	d.Request = newHTTPMessage(c.header, c.body)
	d.Request.Method, d.Request.Path = c.method, c.target
	if n < len(m.Data) {
		resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(m.Data[n:])), nil)
		if err != nil {
			return deadLetter{}, nil, fmt.Errorf("dead letter %d: %w", id, err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return deadLetter{}, nil, fmt.Errorf("dead letter %d: %w", id, err)
		}
		d.Answer = newHTTPMessage(resp.Header, body)
	}
	return d, c, nil
}

// letters lists dead letters from the one with ID from on, oldest first,
// without requests and answers.
func (s *store) letters(ctx context.Context, function string, from uint64, limit int) ([]deadLetter, error) {
	filter := "faas.dead.>"
	if function != "" {
		filter = "faas.dead." + token(function) + ".>"
	}
	list := []deadLetter{}
	c, err := s.streams[streamDead].OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{filter}, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: max(from, 1),
		HeadersOnly: true, InactiveThreshold: 10 * time.Second,
	})
	if err != nil {
		return nil, fmt.Errorf("list dead letters: %w", err)
	}
	info, err := c.Info(ctx)
	if err != nil {
		return nil, fmt.Errorf("list dead letters: %w", err)
	}
	limit = min(limit, int(info.NumPending))
	if limit == 0 {
		return list, nil
	}
	batch, err := c.Fetch(limit, jetstream.FetchMaxWait(publishTimeout))
	if err != nil {
		return nil, fmt.Errorf("list dead letters: %w", err)
	}
	for m := range batch.Messages() {
		meta, err := m.Metadata()
		if err != nil {
			return nil, fmt.Errorf("list dead letters: %w", err)
		}
		list = append(list, newDeadLetter(meta.Sequence.Stream, m.Headers(), meta.Timestamp))
	}
	return list, batch.Error()
}

// dropLetter removes a dead letter.
func (s *store) dropLetter(ctx context.Context, id uint64) error {
	err := s.streams[streamDead].DeleteMsg(ctx, id)
	if err == nil {
		return nil
	}
	if there, errThere := s.exists(ctx, streamDead, id); errThere == nil && !there {
		return errNoLetter
	}
	return fmt.Errorf("drop dead letter %d: %w", id, err)
}
