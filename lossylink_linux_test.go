//go:build !386 && !s390x

package main

// A link that delays packets and loses chosen ones, between two network
// namespaces of this process. It does what tc's netem does, which many kernels
// lack: each end is a TUN device, and what one sends is written to the other a
// while later.

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"faas/internal/transport"
)

const (
	nearIP = "10.77.0.1"
	farIP  = "10.77.0.2"
)

// A lossyLink delays each packet and loses those that lose reports true for.
type lossyLink struct {
	delay     time.Duration // one way
	lose      atomic.Pointer[func(linkPacket) bool]
	near, far *netNamespace
}

// A linkPacket is a TCP segment in an IPv4 packet.
type linkPacket struct {
	toFar bool
	ip    []byte
}

func (p linkPacket) tcp() []byte    { return p.ip[4*int(p.ip[0]&15):] }
func (p linkPacket) data() []byte   { tcp := p.tcp(); return tcp[4*int(tcp[12]>>4):] }
func (p linkPacket) seq() uint32    { return binary.BigEndian.Uint32(p.tcp()[4:]) }
func (p linkPacket) opens() bool    { return p.tcp()[13]&2 != 0 } // SYN
func (p linkPacket) ports() [4]byte { return [4]byte(p.tcp()[:4]) }

// newLossyLink connects two namespaces until the test ends. It loses nothing at
// first. It skips the test where it may make none, or fails it where FAAS_E2E is
// "required".
func newLossyLink(t testing.TB, delay time.Duration) *lossyLink {
	t.Helper()
	l := &lossyLink{delay: delay}
	l.near, l.far = newNetNamespace(t, nearIP), newNetNamespace(t, farIP)
	var wg sync.WaitGroup
	wg.Go(func() { l.carry(true, &wg) })
	wg.Go(func() { l.carry(false, &wg) })
	t.Cleanup(func() {
		l.near.close()
		l.far.close()
		wg.Wait()
	})
	return l
}

// carry passes packets on until the devices are closed.
func (l *lossyLink) carry(toFar bool, wg *sync.WaitGroup) {
	from, to := l.near.tun, l.far.tun
	if !toFar {
		from, to = to, from
	}
	type packet struct {
		due time.Time
		ip  []byte
	}
	line := make(chan packet, 1<<14) // full: what comes is lost, as in any queue
	wg.Go(func() {
		for p := range line {
			time.Sleep(time.Until(p.due))
			to.Write(p.ip)
		}
	})
	defer close(line)
	buf := make([]byte, 1<<16)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		const ipv4, tcp = 4, 6
		if n < 40 || buf[0]>>4 != ipv4 || buf[9] != tcp {
			continue
		}
		p := linkPacket{toFar, append([]byte(nil), buf[:n]...)}
		if lose := l.lose.Load(); lose != nil && (*lose)(p) {
			continue
		}
		select {
		case line <- packet{time.Now().Add(l.delay), p.ip}:
		default:
		}
	}
}

// A netNamespace is a network of its own with one TUN device.
type netNamespace struct {
	ns  *os.File
	tun *os.File
}

func newNetNamespace(t testing.TB, ip string) *netNamespace {
	t.Helper()
	n := &netNamespace{}
	var err error
	onThread(func() {
		if err = os.NewSyscallError("unshare", syscall.Unshare(syscall.CLONE_NEWNET)); err != nil {
			return
		}
		if n.ns, err = os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", syscall.Gettid())); err != nil {
			return
		}
		if n.tun, err = openTUN("link0"); err != nil {
			return
		}
		for _, args := range [][]string{{"link", "set", "lo", "up"}, {"addr", "add", ip + "/24", "dev", "link0"}, {"link", "set", "link0", "up", "txqueuelen", "10000"}} {
			if out, failed := exec.Command("ip", args...).CombinedOutput(); failed != nil {
				err = fmt.Errorf("ip %v: %w: %s", args, failed, out)
				return
			}
		}
	})
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) || errors.Is(err, exec.ErrNotFound) {
		if os.Getenv("FAAS_E2E") == "required" {
			t.Fatalf("a network namespace with a TUN device needs root, /dev/net/tun and ip (package iproute2): %v", err)
		}
		t.Skipf("a network namespace with a TUN device needs root, /dev/net/tun and ip (package iproute2): %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func openTUN(name string) (*os.File, error) {
	const setInterface, tun, noInfo = 0x400454ca, 0x1, 0x1000 // TUNSETIFF, IFF_TUN, IFF_NO_PI
	fd, err := syscall.Open("/dev/net/tun", syscall.O_RDWR|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "/dev/net/tun", Err: err}
	}
	var request struct {
		name  [16]byte
		flags uint16
		_     [22]byte
	}
	copy(request.name[:], name)
	request.flags = tun | noInfo
	if _, _, failed := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), setInterface, uintptr(unsafe.Pointer(&request))); failed != 0 {
		syscall.Close(fd)
		return nil, os.NewSyscallError("ioctl TUNSETIFF", failed)
	}
	return os.NewFile(uintptr(fd), "/dev/net/tun"), nil // pollable, as it does not block
}

// setns is a system call that package syscall lacks. Its number is known here
// for the usual processors.
func setns(fd uintptr) error {
	number := map[string]uintptr{"amd64": 308, "arm64": 268}[runtime.GOARCH]
	if number == 0 {
		return errors.ErrUnsupported
	}
	if _, _, failed := syscall.RawSyscall(number, fd, syscall.CLONE_NEWNET, 0); failed != 0 {
		return os.NewSyscallError("setns", failed)
	}
	return nil
}

// in runs f in the namespace. A socket stays in the one that it was made in.
func (n *netNamespace) in(f func() error) (err error) {
	onThread(func() {
		if err = setns(n.ns.Fd()); err == nil {
			err = f()
		}
	})
	return err
}

func (n *netNamespace) close() {
	n.tun.Close()
	n.ns.Close()
}

// onThread runs f on a thread that ends with it.
func onThread(f func()) {
	done := make(chan struct{})
	go func() {
		runtime.LockOSThread() // and never unlocked
		defer close(done)
		f()
	}()
	<-done
}

func (n *netNamespace) listen(t testing.TB, addr string) net.Listener {
	t.Helper()
	var ln net.Listener
	err := n.in(func() (err error) {
		lc := net.ListenConfig{Control: useCubic}
		ln, err = lc.Listen(t.Context(), "tcp", addr)
		return err
	})
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip("cannot change the network namespace here: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// dialer makes d dial in the namespace.
func (n *netNamespace) dialer(d *net.Dialer) transport.DialFunc {
	return func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
		err = n.in(func() (err error) {
			conn, err = d.DialContext(ctx, network, addr)
			return err
		})
		return conn, err
	}
}

// useCubic gives a socket the congestion control that most machines have; the
// one that tests run on may have another.
func useCubic(_, _ string, c syscall.RawConn) error {
	const tcpCongestion = 13
	var err error
	lost := c.Control(func(fd uintptr) {
		err = syscall.SetsockoptString(int(fd), syscall.IPPROTO_TCP, tcpCongestion, "cubic")
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // this kernel has none
	}
	return errors.Join(lost, os.NewSyscallError("setsockopt TCP_CONGESTION", err))
}
