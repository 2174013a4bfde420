package main

// Idempotency keys: the same key is the same call.

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// once stores a call under an idempotency key; or, if there is one under that
// key, makes c that one.
//
// The key is stored first, with the IDs that the call will have. Whoever finds
// it without the word that the call is stored, stores it under the same IDs:
// that several do so is JetStream's to find out, or the worker's.
func (a *acceptor) once(ctx context.Context, c *call, key string) error {
	sum := sumOf(key)
	subject := fmt.Sprintf("faas.once.%s.%x", token(c.function), sum[:16])
	note := func(stored string) *nats.Msg {
		m := nats.NewMsg(subject)
		c.writeHeader(m.Header)
		m.Data = []byte(stored)
		return m
	}
	m := note("")
	m.Header.Set(jetstream.ExpectedLastSubjSeqHeader, "0")
	rev, _, err := a.store.publish(ctx, m)
	if wrongLast(err) {
		was, err := a.store.last(ctx, streamOnce, subject)
		if err != nil {
			return err
		}
		if was == nil {
			return errors.New("the idempotency key has just run out")
		}
		nanos, err := strconv.ParseInt(was.Header.Get(headerAccepted), 10, 64)
		if err != nil {
			return fmt.Errorf("idempotency key: %w", err)
		}
		c.id, c.uid, c.accepted = was.Header.Get(headerID), was.Header.Get(headerUID), time.Unix(0, nanos)
		if string(was.Data) == "stored" {
			return nil
		}
		rev = was.Sequence
	} else if err != nil {
		return err
	}
	if _, err := a.enqueue(ctx, c, "once."+c.id+"."+c.uid); err != nil {
		return err
	}
	m = note("stored")
	m.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(rev, 10))
	if _, _, err := a.store.publish(ctx, m); err != nil && !wrongLast(err) {
		a.log.Warn("idempotency key not noted as used", "error", err)
	}
	return nil
}
