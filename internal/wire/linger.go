package wire

// The end of a connection whose caller has its answer and still sends its body.
// To close it then resets it, and a reset costs the caller what it has not read
// of the answer.

import (
	"context"
	"net"
	"sync"
	"time"
)

const (
	lingerGap   = 5 * time.Second        // in which the client sends nothing
	lingerTime  = 30 * time.Second       // that it may go on sending
	lingerBytes = 64 << 20               // that it may send
	lingerConns = 512                    // of one listener at a time
	lingerEnd   = 500 * time.Millisecond // that it may go on when the server ends
)

// Lingering is the connections of one listener that are to be closed, but linger
// first. The server that they come from knows them no more, and its Shutdown does
// not wait for them. The zero value is ready.
type Lingering struct {
	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	end    time.Time // no connection lingers longer; zero: the server has not ended
	closed sync.WaitGroup
}

// Close tells conn's peer that no more comes, and then takes and throws away what
// it sends: until it closes its side or sends nothing for 5 s, for 30 s in all, and
// up to 64 MiB. Then conn is closed. Close does not wait for that. It closes conn
// at once where 512 linger already, or after End.
func (l *Lingering) Close(conn net.Conn) error {
	if half, ok := conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() != nil || !l.add(conn) {
		return conn.Close()
	}
	go func() {
		defer l.closed.Done()
		l.discard(conn)
		l.mu.Lock()
		delete(l.conns, conn)
		l.mu.Unlock()
		conn.Close()
	}()
	return nil
}

// End closes what still lingers in half a second, or at once when ctx is done, and
// returns when it has. It is for when all requests have been answered.
func (l *Lingering) End(ctx context.Context) {
	l.mu.Lock()
	l.end = time.Now().Add(lingerEnd)
	for conn := range l.conns {
		conn.SetReadDeadline(l.end)
	}
	l.mu.Unlock()
	defer context.AfterFunc(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		for conn := range l.conns {
			conn.Close()
		}
	})()
	l.closed.Wait()
}

// add reports whether conn may linger.
func (l *Lingering) add(conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.conns) >= lingerConns || !l.end.IsZero() {
		return false
	}
	if l.conns == nil {
		l.conns = map[net.Conn]struct{}{}
	}
	l.conns[conn] = struct{}{}
	l.closed.Add(1)
	return true
}

func (l *Lingering) discard(conn net.Conn) {
	until := time.Now().Add(lingerTime)
	buf := make([]byte, 4<<10)
	for left := lingerBytes; left > 0; {
		l.setDeadline(conn, until)
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		left -= n
	}
}

// setDeadline sets when a read of conn, which may linger until then, ends.
func (l *Lingering) setDeadline(conn net.Conn, until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if gap := time.Now().Add(lingerGap); gap.Before(until) {
		until = gap
	}
	if !l.end.IsZero() && l.end.Before(until) {
		until = l.end
	}
	conn.SetReadDeadline(until)
}

// LetSend has the connection of the request whose context is ctx linger when the
// server closes it: the answer is complete, or will be then, and the body is not. It
// does nothing for a request that did not come through a Listener with ConnContext.
func LetSend(ctx context.Context) {
	if c, ok := ctx.Value(connKey{}).(*checkedConn); ok {
		c.lingers.Store(true)
	}
}
