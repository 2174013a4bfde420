package main

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func TestTopicLabels(t *testing.T) {
	for label, want := range map[string]string{
		"": "", "a": "a", " a , b.c ": "a b.c", "cron-function": "", "a,cron-function,b": "a b",
		"a b": "!", "*": "!", "a.>": "!", ".a": "!", "a..b": "!", "a,b*": "a!",
	} {
		f := newFunction("f", map[string]string{"topic": label}, map[string]string{"schedule": "@daily"})
		got := strings.Join(f.topics, " ")
		if len(f.problems) > 0 {
			got += "!"
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", label, got, want)
		}
	}
}

// Any NATS client can publish; each function that lists the topic runs once.
func TestTopics(t *testing.T) {
	g, a, b, other := newStandIn(t), &keep{}, &keep{}, &keep{}
	g.function("a", map[string]string{"topic": "orders.new,x"}, a.ServeHTTP)
	g.function("b", map[string]string{"topic": "orders.new"}, b.ServeHTTP)
	g.function("other", map[string]string{"topic": "orders"}, other.ServeHTTP)
	s := startBoth(t, g)
	nc, err := nats.Connect("nats://" + s.engine.topicsAddress())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	// Without waiting for anything, and with JetStream's word that it is kept.
	if err := nc.Publish("faas.topic.orders.new", []byte("1")); err != nil {
		t.Fatal(err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	m := &nats.Msg{Subject: "faas.topic.orders.new", Data: []byte("2"), Header: nats.Header{"Content-Type": {"application/json"}, "X-Secret": {"1"}}}
	if _, err := js.PublishMsg(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	// A type that HTTP cannot carry is left out; the message counts.
	m = &nats.Msg{Subject: "faas.topic.orders.new", Data: []byte("3"), Header: nats.Header{"Content-Type": {"a\x01b"}}}
	if _, err := js.PublishMsg(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "faas.topic.nobody", nil); err != nil {
		t.Fatal(err)
	}
	within(t, soon, "run", func() bool { return len(a.all()) == 3 && len(b.all()) == 3 })
	within(t, soon, "nothing left", func() bool {
		info, err := s.store.streams[streamTopics].Info(t.Context())
		return err == nil && info.State.Msgs == 0
	})
	for _, k := range []*keep{a, b} {
		var bodies []string
		for _, c := range k.all() {
			bodies = append(bodies, c.body+" "+c.header.Get("Content-Type"))
			if c.method != "POST" || c.header.Get("X-Topic") != "orders.new" || c.header.Get("X-Connector") == "" || c.header.Get("X-Secret") != "" {
				t.Errorf("got %+v", c)
			}
		}
		slices.Sort(bodies)
		if want := []string{"1 ", "2 application/json", "3 "}; !slices.Equal(bodies, want) {
			t.Errorf("got %q, want %q", bodies, want)
		}
	}
	if n := len(other.all()); n != 0 {
		t.Errorf("a function of another topic ran %d times", n)
	}
}

// A message that is delivered twice makes no second call.
func TestTopicDeliveredTwice(t *testing.T) {
	g, got := newStandIn(t), &keep{}
	g.function("fn", map[string]string{"topic": "x"}, got.ServeHTTP)
	s := startBoth(t, g)
	tp := &topics{store: s.store, functions: s.functions, enqueue: s.acceptor.enqueue, metrics: newMetrics()}
	m := &topicMessage{subject: "faas.topic.x", meta: &jetstream.MsgMetadata{Sequence: jetstream.SequencePair{Stream: 5}, Timestamp: time.Unix(9, 9)}}
	tp.spread(t.Context(), m)
	tp.spread(t.Context(), m)
	s.awaitStatus(t, callIDOf("topic", "5", "9000000009", "fn"), stateDone)
	s.awaitStatus(t, s.call(t, "fn", "after"), stateDone)
	if n := len(got.all()); n != 2 {
		t.Errorf("got %d runs, want one for the message and one for the call", n)
	}
}

// Who is not faas-async may publish to topics and nothing else.
func TestTopicClientsMayNoMore(t *testing.T) {
	g, got := newStandIn(t), &keep{}
	g.function("fn", nil, got.ServeHTTP)
	s := startBoth(t, g)
	refused := make(chan error, 10)
	nc, err := nats.Connect("nats://"+s.engine.topicsAddress(), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err }))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	c := &call{id: "i", uid: "u", function: "fn", name: "fn", method: "POST", target: "/", accepted: time.Now()}
	for _, do := range []func() error{
		func() error { return nc.PublishMsg(c.message("faas.call.fn.i.u")) },
		func() error { return nc.Publish("$JS.API.STREAM.DELETE."+streamCalls, nil) },
		func() error { return nc.Publish("$JS.API.STREAM.INFO."+streamCalls, nil) },
		func() error { _, err := nc.SubscribeSync("faas.call.>"); return err },
		func() error { _, err := nc.SubscribeSync(inboxPrefix + ".>"); return err },
		func() error { _, err := nc.SubscribeSync(">"); return err },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-refused:
			if !strings.Contains(strings.ToLower(err.Error()), "permissions violation") {
				t.Errorf("got %v, want a permissions violation", err)
			}
		case <-time.After(soon):
			t.Error("not refused")
		}
	}
	if n := len(got.all()); n != 0 {
		t.Errorf("got %d runs, want none", n)
	}
	if _, err := nats.Connect("nats://"+s.engine.topicsAddress(), nats.UserInfo(engineUser, "")); err == nil {
		t.Error("the name alone is a login")
	}
}

// A topicMessage is a message of a topic, for spread.
type topicMessage struct {
	jetstream.Msg
	subject string
	meta    *jetstream.MsgMetadata
}

func (m *topicMessage) Subject() string                           { return m.subject }
func (m *topicMessage) Metadata() (*jetstream.MsgMetadata, error) { return m.meta, nil }
func (m *topicMessage) Headers() nats.Header                      { return nil }
func (m *topicMessage) Data() []byte                              { return []byte("x") }
func (m *topicMessage) DoubleAck(context.Context) error           { return nil }
