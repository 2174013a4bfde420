package main

// A Docker API and a DNS server that answer as a test says.

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"faas/internal/scale"
)

// A fakeDocker answers as the Docker API does, with what testdata/docker holds.
type fakeDocker struct {
	t *testing.T

	mu       sync.Mutex
	answers  map[string]http.HandlerFunc // by method and path without the version
	requests []string
	updates  []serviceUpdate
}

// A serviceUpdate is what a POST to /services/ID/update said.
type serviceUpdate struct {
	version, registryAuthFrom, auth string
	replicas                        uint64
	image                           string
}

// startDocker serves a fake API until the test ends, and makes the Docker
// client of this process use it.
func startDocker(t *testing.T) *fakeDocker {
	t.Helper()
	d := &fakeDocker{t: t, answers: map[string]http.HandlerFunc{}}
	s := httptest.NewServer(d)
	t.Cleanup(s.Close)
	t.Setenv("DOCKER_HOST", "tcp://"+s.Listener.Addr().String())
	t.Setenv("DOCKER_TLS_VERIFY", "")
	t.Setenv("DOCKER_CERT_PATH", "")
	t.Setenv("DOCKER_API_VERSION", "")
	d.answer("GET /info", file(t, "info.json"))
	d.answer("GET /networks/functions", file(t, "network.json"))
	d.answer("GET /services", file(t, "services.json"))
	return d
}

// file answers with a file of testdata/docker.
func file(t *testing.T, name string) http.HandlerFunc {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "docker", name))
	if err != nil {
		t.Fatal(err)
	}
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Write(b)
	}
}

// refusal answers with an error as Docker words it.
func refusal(status int, message string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(map[string]string{"message": message})
	}
}

func (d *fakeDocker) answer(what string, h http.HandlerFunc) {
	d.mu.Lock()
	d.answers[what] = h
	d.mu.Unlock()
}

func (d *fakeDocker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Api-Version", "1.41")
	w.Header().Set("Ostype", "linux")
	path := r.URL.Path
	if strings.HasPrefix(path, "/v1.") {
		path = path[strings.Index(path[1:], "/")+1:]
	}
	if path == "/_ping" {
		io.WriteString(w, "OK")
		return
	}
	d.mu.Lock()
	d.requests = append(d.requests, r.Method+" "+path+"?"+r.URL.RawQuery)
	h := d.answers[r.Method+" "+path]
	d.mu.Unlock()
	if h == nil {
		refusal(http.StatusNotFound, "page not found")(w, r)
		return
	}
	h(w, r)
}

// updated answers a service update with fail, if there is one, and keeps it.
func (d *fakeDocker) updated(fail func(n int) string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var spec struct {
			Mode struct {
				Replicated struct{ Replicas *uint64 }
			}
			TaskTemplate struct {
				ContainerSpec struct{ Image string }
			}
		}
		if err := json.NewDecoder(r.Body).Decode(&spec); err != nil {
			d.t.Errorf("update: %v", err)
		}
		q := r.URL.Query()
		u := serviceUpdate{q.Get("version"), q.Get("registryAuthFrom"), r.Header.Get("X-Registry-Auth"), 0, spec.TaskTemplate.ContainerSpec.Image}
		if spec.Mode.Replicated.Replicas != nil {
			u.replicas = *spec.Mode.Replicated.Replicas
		}
		d.mu.Lock()
		d.updates = append(d.updates, u)
		n := len(d.updates)
		d.mu.Unlock()
		if message := fail(n); message != "" {
			refusal(http.StatusInternalServerError, message)(w, r)
			return
		}
		io.WriteString(w, `{"Warnings":null}`)
	}
}

var swarmDefaults = definition{port: 8080, timeout: time.Minute, maxInflight: 5,
	scale: scale.Limits{Kind: scale.Capacity, Target: 10, Min: 1, Max: 20, ZeroDuration: defaultZeroDuration, Factor: defaultScaleFactor}}

func connect(t *testing.T) *swarmProvider {
	t.Helper()
	p, err := newSwarm(t.Context(), "functions", swarmDefaults)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.docker.Close() })
	return p
}

// startDNS answers queries for A records by answer, until the test ends; nil
// is no answer at all.
func startDNS(t *testing.T, answer func(name string) []net.IP) *net.Resolver {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 512)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			q := b[:n]
			name, end := "", 12
			for q[end] != 0 {
				name += string(q[end+1:end+1+int(q[end])]) + "."
				end += 1 + int(q[end])
			}
			end += 5 // the root label, type, class
			ips := answer(name)
			if ips == nil {
				continue
			}
			r := append([]byte{q[0], q[1], 0x81, 0x80, 0, 1, 0, byte(len(ips)), 0, 0, 0, 0}, q[12:end]...)
			if len(ips) == 0 {
				r[3] |= 3 // NXDOMAIN
			}
			for _, ip := range ips {
				r = append(r, 0xc0, 12, 0, 1, 0, 1, 0, 0, 2, 88, 0, 4)
				r = append(r, ip.To4()...)
			}
			pc.WriteTo(r, from)
		}
	}()
	t.Cleanup(func() {
		pc.Close()
		<-done
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", pc.LocalAddr().String())
	}}
}
