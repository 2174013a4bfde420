package main

// The embedded NATS server, for installations without a cluster. It writes to
// disk before it confirms.

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	engineUser  = "faas-async"
	inboxPrefix = "_FAAS_INBOX"
	maxClients  = 1000 // of NATS, for topics
)

// An engine is the embedded server.
type engine struct {
	config   *config
	password string // of faas-async itself
	metrics  *metrics
	log      *slog.Logger
	lock     *os.File

	free atomic.Int64 // bytes on the disk, as last seen, less what was taken since

	mu     sync.Mutex
	server *server.Server
}

// startEngine starts the server on its folder. Should another process have
// that, it waits for its end.
func startEngine(ctx context.Context, c *config, m *metrics, log *slog.Logger) (*engine, error) {
	e := &engine{config: c, password: rand.Text(), metrics: m, log: log}
	if err := os.MkdirAll(c.data, 0o700); err != nil {
		return nil, fmt.Errorf("-data: %w", err)
	}
	if err := e.takeLock(ctx); err != nil {
		return nil, fmt.Errorf("-data: %w", err)
	}
	if err := e.look(); err != nil {
		e.lock.Close()
		return nil, fmt.Errorf("-data: %w", err)
	}
	if err := e.start(); err != nil {
		e.lock.Close()
		return nil, err
	}
	return e, nil
}

// takeLock keeps two processes from writing the same files. The lock ends with
// the process, however that ends.
func (e *engine) takeLock(ctx context.Context) error {
	f, err := os.OpenFile(filepath.Join(e.config.data, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	for said := false; ; said = true {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			e.lock = f
			return nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			f.Close()
			return err
		}
		if !said {
			e.log.Info("another faas-async has this folder, waiting for its end", "data", e.config.data)
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			f.Close()
			return err
		}
	}
}

func (e *engine) options() (*server.Options, error) {
	o := &server.Options{
		ServerName: "faas-async",
		JetStream:  true,
		StoreDir:   e.config.data,
		// Nothing is confirmed before it is on disk.
		SyncAlways: true,
		// The streams have limits of their own, and the disk has -min-free.
		JetStreamMaxStore: 1 << 50,
		MaxPayload:        int32(e.config.maxBody) + maxExtra,
		MaxPending:        256 << 20,
		MaxConn:           maxClients,
		NoSigs:            true,
		DontListen:        true,
		Users: []*server.User{
			{Username: engineUser, Password: e.password},
			// Everybody else may publish to topics, and hear whether that
			// worked.
			{Username: "topics", Password: rand.Text(), Permissions: &server.Permissions{
				Publish:   &server.SubjectPermission{Allow: []string{"faas.topic.>"}},
				Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}},
			}},
		},
		NoAuthUser: "topics",
	}
	if e.config.natsListen != "" {
		host, port, err := net.SplitHostPort(e.config.natsListen)
		if err != nil {
			return nil, fmt.Errorf("-nats-listen: %w", err)
		}
		if o.Port, err = strconv.Atoi(port); err != nil {
			return nil, fmt.Errorf("-nats-listen: %w", err)
		}
		if o.Port == 0 {
			o.Port = server.RANDOM_PORT
		}
		if host == "" {
			host = "0.0.0.0"
		}
		o.Host, o.DontListen = host, false
	}
	return o, nil
}

func (e *engine) start() error {
	o, err := e.options()
	if err != nil {
		return err
	}
	if !o.DontListen && o.Port > 0 {
		// The server itself would only write a line to its log.
		ln, err := net.Listen("tcp", net.JoinHostPort(o.Host, strconv.Itoa(o.Port)))
		if err != nil {
			return fmt.Errorf("-nats-listen: %w", err)
		}
		ln.Close()
	}
	s, err := server.NewServer(o)
	if err != nil {
		return fmt.Errorf("embedded NATS server: %w", err)
	}
	s.SetLoggerV2(engineLog{e.log}, false, false, false)
	s.Start()
	if !s.ReadyForConnections(30*time.Second) || !s.JetStreamEnabled() {
		s.Shutdown()
		return errors.New("embedded NATS server: it did not start, see the log")
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.server = s
	return nil
}

// InProcessConn connects to whichever server there is now.
func (e *engine) InProcessConn() (net.Conn, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.server == nil {
		return nil, errors.New("the embedded NATS server is being started")
	}
	return e.server.InProcessConn()
}

// topicsAddress is where NATS clients can publish; empty if nowhere.
func (e *engine) topicsAddress() string {
	if e.config.natsListen == "" {
		return ""
	}
	return e.server.Addr().String()
}

func (e *engine) stop() {
	e.mu.Lock()
	s := e.server
	e.server = nil
	e.mu.Unlock()
	if s != nil {
		s.Shutdown()
		s.WaitForShutdown()
	}
}

// close stops the server for good.
func (e *engine) close() {
	e.stop()
	e.lock.Close()
}

// engineLog writes the server's own lines.
type engineLog struct{ log *slog.Logger }

func (l engineLog) Noticef(format string, v ...any) {
	l.log.Debug("nats: " + fmt.Sprintf(format, v...))
}
func (l engineLog) Fatalf(format string, v ...any) { l.log.Error("nats: " + fmt.Sprintf(format, v...)) }
func (l engineLog) Errorf(format string, v ...any) { l.log.Error("nats: " + fmt.Sprintf(format, v...)) }
func (l engineLog) Debugf(string, ...any)          {}
func (l engineLog) Tracef(string, ...any)          {}

// Warnf leaves out what is meant to be as it is: a password that is made anew
// with each process, and messages as large as -max-body.
func (l engineLog) Warnf(format string, v ...any) {
	if !strings.HasPrefix(format, "Plaintext passwords") && !strings.HasPrefix(format, "Maximum payloads") {
		l.log.Warn("nats: " + fmt.Sprintf(format, v...))
	}
}
