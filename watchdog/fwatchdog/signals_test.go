package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// A witness is a pipe by name that sees the end of every process that has it
// open for writing.
type witness struct {
	path string
	file *os.File
}

func newWitness(t *testing.T) *witness {
	t.Helper()
	path := filepath.Join(t.TempDir(), "witness")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return &witness{path, f}
}

// wantSeen waits until a process has written a line.
func (w *witness) wantSeen(t *testing.T) {
	t.Helper()
	w.file.SetReadDeadline(time.Now().Add(30 * time.Second))
	for b := make([]byte, 1); b[0] != '\n'; {
		// Before there is a writer the pipe reads EOF.
		if _, err := w.file.Read(b); err != nil && err != io.EOF {
			t.Fatalf("no process wrote to the witness: %v", err)
		}
	}
}

// wantGone waits until no process has the witness open.
func (w *witness) wantGone(t *testing.T) {
	t.Helper()
	w.file.SetReadDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.Copy(io.Discard, w.file); err != nil {
		t.Fatalf("a process is left: %v", err)
	}
}

// Each of these signals lets the program finish what is in flight, and leaves
// no process behind.
func TestSignalsDrain(t *testing.T) {
	// A signal that this process ignores, as under nohup, the program would too;
	// one that it handles is reset.
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	binary := build(t)
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT} {
		t.Run(s.String(), func(t *testing.T) {
			in, open := gate(t)
			w := newWitness(t)
			server := start(t, binary, "fprocess=sh -c 'echo up >"+w.path+"; read x <"+in+"; echo done'", "healthcheck_interval=0s")
			answered := make(chan string, 1)
			go func() {
				_, body, err := get(server.url)
				answered <- fmt.Sprint(body, err)
			}()
			w.wantSeen(t)
			if err := server.cmd.Process.Signal(s); err != nil {
				t.Fatal(err)
			}
			for end, err := time.Now().Add(30*time.Second), error(nil); err == nil; { // until nobody listens
				if _, _, err = get(server.url + "/_/health"); time.Now().After(end) {
					t.Fatal("it serves on")
				}
			}
			open()
			if got := <-answered; got != "done\n<nil>" {
				t.Errorf("in flight: got %q, want done", got)
			}
			server.wantExit(t, 0)
		})
	}
}

// Under nohup the program stays when the terminal goes.
func TestNohup(t *testing.T) {
	binary := build(t)
	wrapper := filepath.Join(t.TempDir(), "nohup")
	if err := os.WriteFile(wrapper, []byte("#!/bin/sh\ntrap '' HUP\nexec "+binary+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	server := start(t, wrapper, "fprocess=cat", "healthcheck_interval=0s")
	if err := server.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if status, _, err := get(server.url + "/_/health"); status != http.StatusOK {
			t.Fatalf("got health %d, %v after SIGHUP, want 200", status, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	server.signal(t)
	server.wantExit(t, 0)
}

// The process of a program that is killed ends with it; what that has started
// ends with the next start. A server among them does not keep its port.
func TestKilled(t *testing.T) {
	binary := build(t)

	t.Run("child", func(t *testing.T) {
		for _, mode := range []string{"http", "fork"} {
			w := newWitness(t)
			server := start(t, binary, "fprocess=sh -c 'exec 9>"+w.path+"; echo up >&9; exec sleep 600'", "mode="+mode, "upstream_url=http://127.0.0.1:1")
			if mode == "fork" {
				go get(server.url)
			}
			w.wantSeen(t)
			server.cmd.Process.Kill()
			w.wantGone(t)
		}
	})

	t.Run("server of a grandchild", func(t *testing.T) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_, port, _ := net.SplitHostPort(ln.Addr().String())
		ln.Close()
		// The server is a fwatchdog of its own, and not the shell's last
		// command, so that it is no child of the first one.
		run := func(answer string) *server {
			inner := fmt.Sprintf("port=%s mode=fork suppress_lock=true fprocess=\"echo %s\" %s 2>/dev/null; true", port, answer, binary)
			return start(t, binary, "fprocess=sh -c '"+inner+"'", "mode=http", "upstream_url=http://127.0.0.1:"+port)
		}
		first := run("first")
		if _, body, err := get(first.url); body != "first\n" {
			t.Fatalf("got %q, %v, want first", body, err)
		}
		first.cmd.Process.Kill()
		<-first.copied // whoever starts now, here or in another test, finds what is left
		second := run("second")
		if _, body, err := get(second.url); body != "second\n" {
			t.Errorf("got %q, %v, want the answer of the second server", body, err)
		}
	})
}
