package basicauth

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

// credentialFiles writes both files into a folder of their own.
func credentialFiles(t *testing.T, user, password string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{userFile: user, passwordFile: password} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// login tries to come in and returns the status that the caller gets.
func login(a *Authenticator, change func(*http.Request)) (status int, answer *httptest.ResponseRecorder) {
	r := httptest.NewRequest("GET", "http://gateway.example.com/system/functions", nil)
	r.RemoteAddr = "192.0.2.1:1234"
	change(r)
	w := httptest.NewRecorder()
	if _, err := a.Authenticate(w, r); err != nil {
		refusal, ok := errors.AsType[*Refusal](err)
		if !ok {
			return 0, w
		}
		return refusal.Status, w
	}
	return http.StatusOK, w
}

func basic(user, password string) func(*http.Request) {
	return func(r *http.Request) { r.SetBasicAuth(user, password) }
}

func TestAuthenticate(t *testing.T) {
	outcomes := map[string]int{}
	a := New(credentialFiles(t, "admin\n", " secret \n"), false, time.Now, func(o string) { outcomes[o]++ })
	for _, c := range []struct {
		name string
		send func(*http.Request)
		want int
	}{
		{"right", basic("admin", "secret"), 200},
		{"wrong password", basic("admin", "secret1"), 401},
		{"wrong user", basic("root", "secret"), 401},
		{"empty password", basic("admin", ""), 401},
		{"nothing", func(*http.Request) {}, 401},
		{"an empty token, as clients send that are not logged in", func(r *http.Request) { r.Header.Set("Authorization", "Bearer ") }, 401},
		{"no base64", func(r *http.Request) { r.Header.Set("Authorization", "Basic !") }, 401},
		{"from this machine, without", func(r *http.Request) { r.RemoteAddr, r.Host = "127.0.0.1:1", "localhost" }, 401},
	} {
		got, w := login(a, c.send)
		if got != c.want {
			t.Errorf("%s: got %d, want %d", c.name, got, c.want)
		}
		if asked := w.Header().Get("WWW-Authenticate"); (got == 401) != (asked == `Basic realm="Restricted"`) {
			t.Errorf("%s: got WWW-Authenticate %q with %d", c.name, asked, got)
		}
	}
	if outcomes[OK] != 1 || outcomes[Wrong] != 3 || outcomes[None] != 4 {
		t.Errorf("counted %v, want 1 ok, 3 wrong, 4 none", outcomes)
	}
}

// A changed file counts from the next request on; one that is empty or gone
// closes the API.
func TestCredentialsAreReadAnew(t *testing.T) {
	dir := credentialFiles(t, "admin", "old")
	a := New(dir, false, time.Now, func(string) {})
	if got, _ := login(a, basic("admin", "old")); got != 200 {
		t.Fatalf("got %d, want 200", got)
	}
	write := func(text string) {
		if err := os.WriteFile(filepath.Join(dir, passwordFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("new")
	if got, _ := login(a, basic("admin", "old")); got != 401 {
		t.Errorf("old password: got %d, want 401", got)
	}
	if got, _ := login(a, basic("admin", "new")); got != 200 {
		t.Errorf("new password: got %d, want 200", got)
	}
	write(" \n")
	if got, _ := login(a, basic("admin", "")); got != 403 {
		t.Errorf("empty file: got %d, want 403", got)
	}
	os.Remove(filepath.Join(dir, userFile))
	if got, _ := login(a, basic("admin", "new")); got != 403 {
		t.Errorf("no file: got %d, want 403", got)
	}
}

// Without credentials the API is closed on Swarm; with the local provider it is
// open to loopback, asked for by a loopback name.
func TestWithoutCredentials(t *testing.T) {
	at := func(remote, host string) func(*http.Request) {
		return func(r *http.Request) { r.RemoteAddr, r.Host = remote, host }
	}
	closed := New(t.TempDir(), false, time.Now, func(string) {})
	open := New(t.TempDir(), true, time.Now, func(string) {})
	for _, c := range []struct {
		remote, host string
		want         int
	}{
		{"127.0.0.1:1", "localhost:8080", 200},
		{"127.0.0.1:1", "127.0.0.1", 200},
		{"[::1]:1", "[::1]:8080", 200},
		{"[::ffff:127.0.0.1]:1", "LOCALHOST", 200},
		{"127.0.0.1:1", "attacker.example.com:8080", 403},
		{"127.0.0.1:1", "", 403},
		{"192.0.2.1:1", "localhost:8080", 403},
		{"@", "localhost", 403},
	} {
		if got, _ := login(open, at(c.remote, c.host)); got != c.want {
			t.Errorf("local, from %s for %q: got %d, want %d", c.remote, c.host, got, c.want)
		}
		if got, _ := login(closed, at(c.remote, c.host)); got != 403 {
			t.Errorf("Swarm, from %s for %q: got %d, want 403", c.remote, c.host, got)
		}
	}
}

// Failures slow their address down, and no other.
func TestFailuresSlowDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := New(credentialFiles(t, "admin", "secret"), false, time.Now, func(string) {})
		took := func(send func(*http.Request)) (time.Duration, int) {
			began := time.Now()
			status, _ := login(a, send)
			return time.Since(began), status
		}
		for i := range freeFailures {
			if d, status := took(basic("admin", "x")); d != 0 || status != 401 {
				t.Fatalf("failure %d: got %d after %v, want 401 at once", i+1, status, d)
			}
		}
		took(basic("admin", "x"))
		if d, status := took(basic("admin", "x")); d != pause || status != 401 {
			t.Errorf("one more: got %d after %v, want 401 after %v", status, d, pause)
		}
		if d, status := took(basic("admin", "secret")); d != pause || status != 200 {
			t.Errorf("right: got %d after %v, want 200 after %v", status, d, pause)
		}
		other := func(r *http.Request) { r.RemoteAddr = "192.0.2.2:1"; r.SetBasicAuth("admin", "secret") }
		if d, status := took(other); d != 0 || status != 200 {
			t.Errorf("another address: got %d after %v, want 200 at once", status, d)
		}
		statuses := make(chan int, 20)
		for range 20 {
			go func() {
				status, _ := login(a, basic("admin", "x"))
				statuses <- status
			}()
		}
		counts := map[int]int{}
		for range 20 {
			counts[<-statuses]++
		}
		if counts[429] == 0 || counts[401]+counts[429] != 20 {
			t.Errorf("20 at once: got %v, want some 429 and else 401", counts)
		}
		time.Sleep(forgetAfter + time.Second)
		if d, status := took(basic("admin", "secret")); d != 0 || status != 200 {
			t.Errorf("later: got %d after %v, want 200 at once", status, d)
		}
	})
}

// However many addresses fail, the table stays bounded.
func TestFailuresAreBounded(t *testing.T) {
	a := New(credentialFiles(t, "admin", "secret"), false, time.Now, func(string) {})
	for i := range 2 * maxAddresses {
		login(a, func(r *http.Request) {
			r.RemoteAddr = "10." + strconv.Itoa(i>>16) + "." + strconv.Itoa(i>>8&255) + "." + strconv.Itoa(i&255) + ":1"
			r.SetBasicAuth("admin", "x")
		})
	}
	if n := len(a.failures); n > maxAddresses {
		t.Errorf("got %d addresses, want %d at most", n, maxAddresses)
	}
}
