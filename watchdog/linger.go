package watchdog

// The end of a connection whose client has its answer and still sends its body.
// To close it then resets it, and a reset costs the client what it has not read
// of the answer.

import (
	"context"
	"net"
	"os"
	"sync/atomic"
	"syscall"

	"faas/internal/wire"
)

// A Listener lets clients that have their answers send on, see wire.Lingering.
type Listener struct {
	net.Listener
	lingering wire.Lingering
}

// NewListener wraps ln, which is to be of TCP, for a Handler's server. On other
// listeners a client that has its answer may send on for half a second.
func NewListener(ln net.Listener) *Listener { return &Listener{Listener: ln} }

// EndLingering closes the connections of clients that have their answers and still
// send, see wire.Lingering.End. Call it when the server has shut down, which does
// not wait for them.
func (l *Listener) EndLingering(ctx context.Context) { l.lingering.End(ctx) }

// Accept returns the next connection.
func (l *Listener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if tcp, ok := conn.(*net.TCPConn); ok {
		return &lingeringConn{TCPConn: tcp, lingering: &l.lingering}, err
	}
	return conn, err
}

// A lingeringConn lingers when net/http closes it, if a request's answer is complete and
// its body is not. Until then net/http has written the end of the answer.
type lingeringConn struct {
	*net.TCPConn
	lingers   atomic.Bool
	lingering *wire.Lingering // of the listener
	waitless  atomic.Bool     // a Read returns nothing rather than wait
}

// Read leaves alone the Read of a single byte by which net/http waits for the client
// to go away.
func (c *lingeringConn) Read(b []byte) (n int, err error) {
	if !c.waitless.Load() || len(b) == 1 {
		return c.TCPConn.Read(b)
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	raw.Read(func(fd uintptr) bool {
		n, err = syscall.Read(int(fd), b)
		return true
	})
	switch err {
	case nil: // the end comes again
		return n, nil
	case syscall.EAGAIN, syscall.EINTR:
		return 0, nil
	}
	return 0, os.NewSyscallError("read", err)
}

// Close lets the client send on the first time only, and does not wait for it.
func (c *lingeringConn) Close() error {
	if c.lingers.Swap(false) {
		return c.lingering.Close(c.TCPConn)
	}
	return c.TCPConn.Close()
}

type connKey struct{}

// withConn is the http.Server.ConnContext of a Handler's server.
func withConn(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, conn)
}
