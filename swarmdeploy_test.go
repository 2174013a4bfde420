package main

// What the control plane sends to the Docker API.

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/swarm"

	"faas/internal/deployment"
	"faas/internal/registryauth"
	"faas/internal/swarmspec"
)

// ownService is a service that the API made, as Docker describes it.
func ownService(t *testing.T, dep deployment.Deployment, version uint64, change func(*swarm.ServiceSpec)) swarm.Service {
	t.Helper()
	spec, err := swarmspec.New(dep, swarmspec.Context{Network: "z9w5glb0w64bdx1fqh1cp4xo2", Namespace: "openfaas-fn", APIVersion: "1.41",
		Secrets: map[string]string{"key": "old"}, SecretName: map[string]string{"key": "key"}})
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&spec)
	}
	s := swarm.Service{ID: "id-" + dep.Service, Spec: spec}
	s.Version.Index = version
	return s
}

func answerJSON(v func() any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(v())
	}
}

// A new function has no power over its node, and the login of its registry.
func TestDeployCreatesAService(t *testing.T) {
	docker := startDocker(t)
	p := connect(t)
	login := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(login, []byte(`{"auths":{"registry.example.com":{"auth":"dTpw"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	p.namespace, p.credentials = "openfaas-fn", registryauth.File(login)
	var got swarm.ServiceSpec
	var auth string
	docker.answer("POST /services/create", func(w http.ResponseWriter, r *http.Request) {
		auth = r.Header.Get("X-Registry-Auth")
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
			t.Error(err)
		}
		io.WriteString(w, `{"ID":"x"}`)
	})
	if err := p.deploy(t.Context(), deployment.Deployment{Service: "f", Image: "registry.example.com/i:1", ReadOnlyRootFilesystem: true}); err != nil {
		t.Fatal(err)
	}
	if auth == "" {
		t.Error("got no login for the registry, want that of its host")
	}
	ctr := got.TaskTemplate.ContainerSpec
	if ctr.Image != "registry.example.com/i:1" || !ctr.ReadOnly || len(ctr.Mounts) != 1 || ctr.Mounts[0].Type != "tmpfs" || ctr.Mounts[0].Target != "/tmp" {
		t.Errorf("got image %s, read-only %v, mounts %v, want the image, and a tmpfs on /tmp alone", ctr.Image, ctr.ReadOnly, ctr.Mounts)
	}
	if !slices.Equal(ctr.CapabilityDrop, []string{"ALL"}) || slices.Contains(ctr.CapabilityAdd, "CAP_NET_RAW") || slices.Contains(ctr.CapabilityAdd, "CAP_SYS_ADMIN") || len(ctr.CapabilityAdd) != 12 {
		t.Errorf("got capabilities %v without %v, want twelve of Docker's own", ctr.CapabilityAdd, ctr.CapabilityDrop)
	}
	if networks := got.TaskTemplate.Networks; len(networks) != 1 || networks[0].Target != p.id {
		t.Errorf("got networks %v, want the functions' alone", networks)
	}
	if got.EndpointSpec != nil || got.UpdateConfig.Order != "start-first" || got.UpdateConfig.FailureAction != "rollback" || got.TaskTemplate.RestartPolicy.MaxAttempts != nil {
		t.Errorf("got %+v, want no port, start-first with rollback, and restarts for ever", got)
	}
}

// Another's change in between is not undone: the service is read again.
func TestUpdateIsACompareAndSwap(t *testing.T) {
	docker := startDocker(t)
	p := connect(t)
	p.namespace = "openfaas-fn"
	reads := 0
	docker.answer("GET /services/f", answerJSON(func() any {
		reads++
		return ownService(t, deployment.Deployment{Service: "f", Image: "i:1"}, uint64(10+reads), func(s *swarm.ServiceSpec) {
			n := uint64(reads) // somebody scales
			s.Mode.Replicated.Replicas = &n
		})
	}))
	docker.answer("POST /services/id-f/update", docker.updated(func(n int) string {
		if n < 3 {
			return "rpc error: code = Unknown desc = update out of sequence"
		}
		return ""
	}))
	if err := p.update(t.Context(), deployment.Deployment{Service: "f", Image: "i:2"}); err != nil {
		t.Fatal(err)
	}
	last := docker.updates[len(docker.updates)-1]
	if last.version != "13" || last.image != "i:2" || last.replicas != 3 || last.registryAuthFrom != "spec" {
		t.Errorf("got %+v, want the third version with the new image and the replicas of then", last)
	}
	docker.answer("GET /services/f", answerJSON(func() any {
		return ownService(t, deployment.Deployment{Service: "f", Image: "i:1"}, 1, func(s *swarm.ServiceSpec) { delete(s.Labels, deployment.LabelDeployment) })
	}))
	before := len(docker.updates)
	for name, err := range map[string]error{
		"update": p.update(t.Context(), deployment.Deployment{Service: "f", Image: "i:2"}), "remove": p.remove(t.Context(), definition{service: "f"}),
	} {
		if !errors.Is(err, errForeign) {
			t.Errorf("%s of another's: got %v, want %v", name, err, errForeign)
		}
	}
	if len(docker.updates) != before {
		t.Error("another's service was changed")
	}
}

// The new secret is there before any service moves, and the old one goes last.
func TestUpdateSecretMovesServices(t *testing.T) {
	docker := startDocker(t)
	p := connect(t)
	old := map[string]any{"ID": "old", "CreatedAt": "2026-01-01T00:00:00Z", "Spec": map[string]any{"Name": "key", "Labels": map[string]string{labelOwner: ownerAPI, labelSecret: "key"}}}
	docker.answer("GET /secrets", answerJSON(func() any { return []any{old} }))
	user := ownService(t, deployment.Deployment{Service: "f", Image: "i", Secrets: []string{"key"}}, 7, nil)
	other := ownService(t, deployment.Deployment{Service: "g", Image: "i"}, 8, nil)
	docker.answer("GET /services", answerJSON(func() any { return []swarm.Service{user, other} }))
	docker.answer("GET /services/id-f", answerJSON(func() any { return user }))
	var steps []string
	docker.answer("POST /secrets/create", func(w http.ResponseWriter, r *http.Request) {
		var s swarm.SecretSpec
		if err := json.NewDecoder(r.Body).Decode(&s); err != nil {
			t.Error(err)
		}
		steps = append(steps, fmt.Sprintf("create %s %q", s.Labels[labelSecret], s.Data))
		if s.Name == "key" || !strings.HasPrefix(s.Name, "key.") {
			t.Errorf("got name %s, want one of its own that begins with key", s.Name)
		}
		w.WriteHeader(http.StatusCreated)
		io.WriteString(w, `{"ID":"new"}`)
	})
	docker.answer("POST /services/id-f/update", func(w http.ResponseWriter, r *http.Request) {
		var s swarm.ServiceSpec
		if err := json.NewDecoder(r.Body).Decode(&s); err != nil {
			t.Error(err)
		}
		var refs []string
		for _, ref := range s.TaskTemplate.ContainerSpec.Secrets {
			refs = append(refs, ref.SecretID+":"+ref.File.Name)
		}
		steps = append(steps, "update "+strings.Join(refs, " "))
		io.WriteString(w, `{}`)
	})
	docker.answer("DELETE /secrets/old", func(w http.ResponseWriter, _ *http.Request) {
		steps = append(steps, "remove old")
		w.WriteHeader(http.StatusNoContent)
	})
	if err := p.updateSecret(t.Context(), "key", []byte("v2")); err != nil {
		t.Fatal(err)
	}
	want := []string{`create key "v2"`, "update new:/var/openfaas/secrets/key new:/run/secrets/key", "remove old"}
	if !slices.Equal(steps, want) {
		t.Errorf("got %q, want %q", steps, want)
	}
	if err := p.removeSecret(t.Context(), "key"); !errors.Is(err, errInUse) || !strings.Contains(err.Error(), "f") {
		t.Errorf("remove: got %v, want that f uses it", err)
	}
}
