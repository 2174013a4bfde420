package main

// What is kept in NATS JetStream: the streams, their subjects, and the
// connection to the servers.

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Streams.
const (
	streamCalls     = "FAAS_CALLS"     // faas.call.FUNCTION.CALL-ID.UID, one message per call that is not over
	streamCallbacks = "FAAS_CALLBACKS" // faas.callback.LANE.CALL-ID.UID
	streamStates    = "FAAS_STATES"    // faas.state.QUEUE.CALL-ID.UID, the last record of each
	streamOnce      = "FAAS_ONCE"      // faas.once.FUNCTION.SUM, idempotency keys
	streamTopics    = "FAAS_TOPICS"    // faas.topic.NAME, what anybody publishes
	streamSchedules = "FAAS_SCHEDULES" // faas.schedule.FUNCTION, the last due time
	streamDead      = "FAAS_DEAD"      // faas.dead.FUNCTION.CALL-ID.UID
)

const (
	// dedupeWindow is how long an idempotency key holds, and how long
	// JetStream drops a second message of the same ID.
	dedupeWindow = 10 * time.Minute

	// stateAge is how long the outcome of a call is remembered.
	stateAge = 24 * time.Hour

	// maxKeys bounds the idempotency keys that are held at once.
	maxKeys = 200_000

	// maxScheduled bounds the functions whose last due time is kept.
	maxScheduled = 10_000

	// publishTimeout is how long a message may take to be on disk.
	publishTimeout = 5 * time.Second

	// maxExtra is what a message may hold besides a body: the request's head,
	// and in a dead letter the answer. A head gets up to a quarter longer than
	// it came, as "a:" is written "A: ".
	maxExtra = 256 << 10

	// leastServer is the first NATS server that commits several messages at
	// once.
	leastServer = "2.12.0"
)

// A store is the connection to NATS and what faas-async keeps there.
type store struct {
	nc  *nats.Conn
	js  jetstream.JetStream
	log *slog.Logger

	calls, states *committer
	streams       map[string]jetstream.Stream // there once ready
	ready         atomic.Bool
}

// connect opens the connection to NATS servers, or to the embedded one. It
// does not wait for them.
func connect(c *config, embedded *engine, log *slog.Logger) (*store, error) {
	options := []nats.Option{
		nats.Name("faas-async"),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(200 * time.Millisecond),
		nats.ReconnectJitter(200*time.Millisecond, 200*time.Millisecond),
		// Nothing waits here for a connection: what could not be sent now has
		// been refused by the time that there is one.
		nats.ReconnectBufSize(-1),
		nats.PingInterval(5 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.Timeout(3 * time.Second),
		// Nobody else may listen to these: see engine.
		nats.CustomInboxPrefix(inboxPrefix),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				log.Warn("connection to NATS lost", "error", err)
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) { log.Info("connected to NATS again", "server", nc.ConnectedServerName()) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { log.Warn("NATS", "error", err) }),
	}
	s := &store{log: log, streams: map[string]jetstream.Stream{}}
	if embedded != nil {
		options = append(options, nats.InProcessServer(embedded), nats.UserInfo(engineUser, embedded.password))
	} else {
		more, err := natsOptions(c)
		if err != nil {
			return nil, err
		}
		options = append(options, more...)
	}
	nc, err := nats.Connect(c.nats, options...)
	if err != nil {
		return nil, fmt.Errorf("connect to NATS: %w", err)
	}
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(publishTimeout))
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("connect to NATS: %w", err)
	}
	s.nc, s.js = nc, js
	s.calls = &committer{store: s, requests: make(chan *commitRequest)}
	s.states = &committer{store: s, requests: make(chan *commitRequest)}
	return s, nil
}

// natsOptions are those of servers elsewhere: who we are, and TLS.
func natsOptions(c *config) ([]nats.Option, error) {
	var options []nats.Option
	if c.natsLogin != "" {
		text, err := os.ReadFile(c.natsLogin)
		if err != nil {
			return nil, fmt.Errorf("-nats-credentials: %w", err)
		}
		user, password, ok := strings.Cut(strings.TrimSpace(string(text)), ":")
		switch {
		case strings.Contains(string(text), "-----BEGIN NATS USER JWT-----"):
			options = append(options, nats.UserCredentials(c.natsLogin))
		case ok && !strings.Contains(password, "\n"):
			options = append(options, nats.UserInfo(user, password))
		default:
			return nil, errors.New("-nats-credentials: the file has neither NATS credentials nor one line user:password")
		}
	}
	if c.natsCA != "" {
		options = append(options, nats.RootCAs(c.natsCA))
	}
	if c.natsCert != "" {
		options = append(options, nats.ClientCert(c.natsCert, c.natsKey))
	}
	if len(options) > 0 && (c.natsCA != "" || c.natsCert != "") {
		options = append(options, nats.Secure(&tls.Config{MinVersion: tls.VersionTLS12}))
	}
	return options, nil
}

// streams are the configurations of what is kept.
func streams(c *config) []jetstream.StreamConfig {
	most := int32(c.maxBody) + maxExtra
	list := []jetstream.StreamConfig{
		{Name: streamCalls, Subjects: []string{"faas.call.>"}, Retention: jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew,
			MaxBytes: c.queueBytes, MaxMsgSize: most, Duplicates: dedupeWindow, AllowAtomicPublish: true},
		{Name: streamCallbacks, Subjects: []string{"faas.callback.>"}, Retention: jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew,
			MaxBytes: c.queueBytes, MaxMsgSize: most, Duplicates: dedupeWindow},
		{Name: streamStates, Subjects: []string{"faas.state.>"}, Discard: jetstream.DiscardOld,
			MaxMsgsPerSubject: 1, MaxMsgs: int64(c.history), MaxAge: stateAge, AllowAtomicPublish: true},
		{Name: streamOnce, Subjects: []string{"faas.once.>"}, Discard: jetstream.DiscardNew,
			MaxMsgsPerSubject: 1, MaxMsgs: maxKeys, MaxAge: dedupeWindow},
		{Name: streamTopics, Subjects: []string{"faas.topic.>"}, Retention: jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew,
			MaxBytes: c.queueBytes, MaxMsgSize: int32(c.maxBody), Duplicates: dedupeWindow},
		{Name: streamSchedules, Subjects: []string{"faas.schedule.>"}, Discard: jetstream.DiscardOld,
			MaxMsgsPerSubject: 1, MaxMsgs: maxScheduled},
		{Name: streamDead, Subjects: []string{"faas.dead.>"}, Discard: jetstream.DiscardOld,
			MaxBytes: c.queueBytes, MaxMsgSize: most, MaxAge: c.deadRetention, Duplicates: dedupeWindow},
	}
	for i := range list {
		list[i].Storage = jetstream.FileStorage
		list[i].Replicas = c.streamReplicas
		list[i].Description = "faas-async"
	}
	return list
}

// prepare makes the streams, or brings them up to date.
func (s *store) prepare(ctx context.Context, c *config) error {
	if !s.nc.IsConnected() {
		return errors.New("not connected")
	}
	if have := s.nc.ConnectedServerVersion(); olderThan(have, leastServer) {
		return fmt.Errorf("the NATS server is of version %s, and %s is the first that will do", have, leastServer)
	}
	if have, want := s.nc.MaxPayload(), c.maxBody+maxExtra; have < want {
		return fmt.Errorf("the NATS server takes messages of %d bytes, and -max-body needs %d: raise its max_payload or lower -max-body", have, want)
	}
	for _, config := range streams(c) {
		stream, err := s.js.CreateOrUpdateStream(ctx, config)
		if err != nil {
			return fmt.Errorf("stream %s: %w", config.Name, err)
		}
		s.streams[config.Name] = stream
	}
	return nil
}

// open prepares the streams, as often as it takes.
func (s *store) open(ctx context.Context, c *config) error {
	last := ""
	for {
		attempt, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := s.prepare(attempt, c)
		cancel()
		if err == nil {
			s.ready.Store(true)
			return nil
		}
		if text := err.Error(); text != last {
			s.log.Warn("JetStream is not ready, trying on", "error", err)
			last = text
		}
		if err := sleep(ctx, 500*time.Millisecond); err != nil {
			return err
		}
	}
}

// publish sends one message and returns when JetStream has it on disk.
// duplicate says that it had it already.
func (s *store) publish(ctx context.Context, m *nats.Msg, options ...jetstream.PublishOpt) (seq uint64, duplicate bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	ack, err := s.js.PublishMsg(ctx, m, append(options, jetstream.WithRetryAttempts(0))...)
	if err != nil {
		return 0, false, fmt.Errorf("publish: %w", err)
	}
	return ack.Sequence, ack.Duplicate, nil
}

// last returns the newest message under subject, which may have wildcards; nil
// if there is none.
func (s *store) last(ctx context.Context, stream, subject string) (*jetstream.RawStreamMsg, error) {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	m, err := s.streams[stream].GetLastMsgForSubject(ctx, subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", stream, err)
	}
	return m, nil
}

// errNotSent says that a message never left this process.
var errNotSent = errors.New("not sent")

// unsure tells whether a message that failed to be confirmed may be there all
// the same.
func unsure(err error) bool {
	if _, ok := errors.AsType[*jetstream.APIError](err); ok {
		return false
	}
	for _, known := range []error{
		errNotSent, jetstream.ErrNoStreamResponse, nats.ErrNoResponders, nats.ErrReconnectBufExceeded,
		nats.ErrConnectionClosed, nats.ErrMaxPayload, nats.ErrInvalidConnection,
	} {
		if errors.Is(err, known) {
			return false
		}
	}
	return true
}

// noRoom tells whether a stream that takes no more than it can hold is full.
func noRoom(err error) bool {
	e, ok := errors.AsType[*jetstream.APIError](err)
	return ok && e.ErrorCode == 10077 && e.Description == "maximum bytes exceeded"
}

// inProcess tells whether a message was refused because another of its ID is
// being stored at this moment, on behalf of another faas-async.
func inProcess(err error) bool {
	e, ok := errors.AsType[*jetstream.APIError](err)
	return ok && e.ErrorCode == 10158
}

// wrongLast tells whether a message was refused because another has come under
// its subject since.
func wrongLast(err error) bool {
	e, ok := errors.AsType[*jetstream.APIError](err)
	return ok && (e.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || e.ErrorCode == 10164)
}

// olderThan compares versions such as 2.12.0.
func olderThan(have, want string) bool {
	a, b := strings.SplitN(have, ".", 3), strings.SplitN(want, ".", 3)
	for i := range min(len(a), len(b), 2) {
		x, errX := strconv.Atoi(a[i])
		y, errY := strconv.Atoi(b[i])
		if errX != nil || errY != nil {
			return false
		}
		if x != y {
			return x < y
		}
	}
	return false
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
