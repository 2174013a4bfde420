package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// smallDisk mounts a tmpfs of so many bytes.
func smallDisk(t *testing.T, size int) string {
	t.Helper()
	if os.Getuid() != 0 {
		unable(t, "only root can mount a small disk")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		unable(t, fmt.Sprintf("no small disk here: %v", err))
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// A disk that fills up, by the calls themselves and then by somebody else to
// the last byte: 503, and all that was accepted runs once there is space.
func TestFullDisk(t *testing.T) {
	disk := smallDisk(t, 64<<20)
	rec := startRecorder(t, 0)
	gateway, gatewayAddress := startGateway(t, map[string]string{"rec": rec.address})
	async, address := startAsync(t, "http://"+gatewayAddress, "-data", filepath.Join(disk, "data"), "-min-free", "16MiB")
	c := newClient(t, address)
	var ids []string
	fill := func(function string, most int) (code int) {
		t.Helper()
		body := make([]byte, 256<<10)
		for range most {
			r := ask(t, "POST", c.urls[0]+"/async-function/"+function, string(body))
			if code = r.code; code != http.StatusAccepted {
				if r.header.Get("Retry-After") == "" {
					t.Errorf("got %d without Retry-After", code)
				}
				return code
			}
			ids = append(ids, r.header.Get("X-Call-Id"))
		}
		return code
	}
	over := func(what string) {
		t.Helper()
		within(t, 2*soon, what, func() bool {
			for _, id := range ids {
				if st, ok := c.status(id); !ok || st.Status != stateDone {
					return false
				}
			}
			return true
		})
		for _, id := range ids {
			if rec.of(id) == 0 {
				t.Errorf("call %s never ran", id)
			}
		}
	}

	// By calls: nothing takes them, as there is no gateway.
	gateway.kill()
	if code := fill("rec", 1000); code != http.StatusServiceUnavailable || len(ids) < 20 {
		t.Fatalf("got %d after %d calls, want 503 when the disk is full", code, len(ids))
	}
	t.Logf("%d calls accepted until the disk was full", len(ids))

	// By somebody else, to the last byte; then everything that is written
	// fails.
	foreign := filepath.Join(disk, "foreign")
	f, err := os.Create(foreign)
	if err != nil {
		t.Fatal(err)
	}
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	f.Close()
	within(t, soon, "the disk was looked at", func() bool {
		return strings.Contains(ask(t, "GET", c.urls[0]+"/metrics", "").body, "\nasync_disk_free_bytes 0\n")
	})
	gateway.start()
	healthy(t, gatewayAddress)
	for range 20 {
		if r := ask(t, "POST", c.urls[0]+"/async-function/rec", "x"); r.code != http.StatusServiceUnavailable {
			t.Fatalf("got %d with a full disk, want 503", r.code)
		}
	}
	within(t, soon, "something was tried with the full disk", func() bool {
		return strings.Contains(async.log.String(), "critical write error")
	})

	if err := os.Remove(foreign); err != nil {
		t.Fatal(err)
	}
	over("all that was accepted is done")
	if code := fill("rec", 3); code != http.StatusAccepted {
		t.Fatalf("got %d with space, want 202", code)
	}
	over("what came later, too")

	// And once more after a kill.
	async.restart()
	healthy(t, address)
	if code := fill("rec", 3); code != http.StatusAccepted {
		t.Fatalf("got %d, want 202", code)
	}
	over("all is done after a restart")
}
