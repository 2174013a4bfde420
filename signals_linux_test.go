package main

import (
	"net"
	"syscall"
	"testing"
	"time"
)

// Nobody can do anything about SIGKILL, or about the kernel's that ends a
// program which has taken too much memory. So the processes of functions end by
// themselves then, at least those that the gateway started itself, and a server
// among them leaves its port to the next start.
func TestSIGKILLLeavesNoProcessOfAFunction(t *testing.T) {
	program, _ := build(t)
	p := startGatewayProcess(t, program, "")
	pids := p.occupy(t)
	if status, log := p.end(t, syscall.SIGKILL); !status.Signaled() {
		t.Fatalf("got %v, want it to be killed:\n%s", p.ProcessState, log)
	}
	wantGone(t, pids[:2]) // the third is a child of the second
	// The first thread of a process counts as ended while others still end, and
	// hold its port.
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		ln, err := net.Listen("tcp", p.served)
		if err == nil {
			ln.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the port of web: %v", err)
		}
	}
}
