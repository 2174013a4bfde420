package forkserver

// The connection to a template: one request at a time, with a response to each.

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// maxPacket is the longest packet that a template may send.
	maxPacket = 4096

	// answerLimit is how long a template may take to fork, or to reap.
	answerLimit = 10 * time.Second
)

// errSilent means that the other side is gone, or silent.
var errSilent = errors.New("the template does not answer")

// A message is a packet from a template or a child of it.
type message struct {
	text string
	pid  int // of the process that sent it, as the kernel has it
}

// A link is this program's end of a connection.
type link struct {
	conn *net.UnixConn
	turn sync.Mutex  // held from a question to its answer
	dead atomic.Bool // nobody will answer any more
}

// newLink returns a link, and the other end of it.
func newLink() (*link, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "fork server"), os.NewFile(uintptr(fds[1]), "template")
	defer ours.Close()
	if err := syscall.SetsockoptInt(fds[0], syscall.SOL_SOCKET, syscall.SO_PASSCRED, 1); err != nil {
		theirs.Close()
		return nil, nil, os.NewSyscallError("setsockopt", err)
	}
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return &link{conn: conn.(*net.UnixConn)}, theirs, nil
}

// ask sends a question, with descriptors if there are any, and returns the
// answer. What is sent by the other side after an error is refused: a child
// that was not heard of by then cannot say that it is there, and must not run.
func (l *link) ask(question string, files ...int) (message, error) {
	l.turn.Lock()
	defer l.turn.Unlock()
	l.conn.SetDeadline(time.Now().Add(answerLimit))
	if l.dead.Load() {
		return message{}, errSilent
	}
	if err := l.send(question, files...); err != nil {
		return message{}, err
	}
	m, err := l.receive()
	if err == nil {
		return m, nil
	}
	l.conn.CloseRead()
	l.conn.SetReadDeadline(time.Time{}) // no longer waits: there is a packet, or the end
	if late, err := l.receive(); err == nil {
		return late, nil
	}
	return message{}, err
}

// send sends a packet, with descriptors if there are any.
func (l *link) send(text string, files ...int) error {
	var rights []byte
	if len(files) > 0 {
		rights = syscall.UnixRights(files...)
	}
	if _, _, err := l.conn.WriteMsgUnix([]byte(text), rights, nil); err != nil {
		return fmt.Errorf("%w: %w", errSilent, err)
	}
	return nil
}

// cut ends a question in progress and all that follow.
func (l *link) cut() {
	l.dead.Store(true)
	l.conn.SetReadDeadline(time.Unix(1, 0))
}

// receive returns the next packet.
func (l *link) receive() (message, error) {
	packet := make([]byte, maxPacket)
	// There is room for credentials, and none for descriptors.
	control := make([]byte, syscall.CmsgSpace(syscall.SizeofUcred))
	n, controlled, flags, _, err := l.conn.ReadMsgUnix(packet, control)
	if err != nil {
		return message{}, fmt.Errorf("%w: %w", errSilent, err)
	}
	if flags&(syscall.MSG_TRUNC|syscall.MSG_CTRUNC) != 0 {
		return message{}, errors.New("the template sent a packet that is too long, or descriptors")
	}
	parts, err := syscall.ParseSocketControlMessage(control[:controlled])
	if err != nil || len(parts) != 1 {
		return message{}, fmt.Errorf("the template sent a packet without credentials (%v)", err)
	}
	who, err := syscall.ParseUnixCredentials(&parts[0])
	if err != nil {
		return message{}, fmt.Errorf("the template sent a packet without credentials: %w", err)
	}
	return message{string(packet[:n]), int(who.Pid)}, nil
}
