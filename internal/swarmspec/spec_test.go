package swarmspec

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/swarm"

	"faas/internal/deployment"
	"faas/internal/jsonbody"
)

// deployments are what clients send: 40 of them, each with another field or
// another way to write it.
var deployments = []string{
	`{"service":"a","image":"i"}`,
	`{"service":"a","image":"i:1"}`,
	`{"service":"a","image":"registry.example.com:5000/team/i:1"}`,
	`{"service":"a","image":"i@sha256:0123456789012345678901234567890123456789012345678901234567890123"}`,
	`{"service":"a-b_c","image":"i","namespace":"openfaas-fn"}`,
	`{"service":"a","image":"i","envProcess":"cat"}`,
	`{"service":"a","image":"i","envProcess":"sh -c 'echo \"x=y\"'"}`,
	`{"service":"a","image":"i","envVars":{"A":"b"}}`,
	`{"service":"a","image":"i","envVars":{}}`,
	`{"service":"a","image":"i","envVars":{"A":"","B":"x=y=z","C":"two\nlines"}}`,
	`{"service":"a","image":"i","envVars":{"fprocess":"cat"}}`,
	`{"service":"a","image":"i","envVars":{"fprocess":"cat"},"envProcess":"wc"}`,
	`{"service":"a","image":"i","envVars":{"OPENFAAS_NAME":"other"}}`,
	`{"service":"a","image":"i","envVars":{"write_timeout":"2m","exec_timeout":"90"}}`,
	`{"service":"a","image":"i","constraints":["node.labels.disk == ssd"]}`,
	`{"service":"a","image":"i","constraints":["node.role!=manager","node.platform.os == linux"]}`,
	`{"service":"a","image":"i","constraints":[]}`,
	`{"service":"a","image":"i","secrets":["key"]}`,
	`{"service":"a","image":"i","secrets":["key","other.key"]}`,
	`{"service":"a","image":"i","secrets":[]}`,
	`{"service":"a","image":"i","labels":{"com.openfaas.scale.min":"2","com.openfaas.scale.max":"4"}}`,
	`{"service":"a","image":"i","labels":{}}`,
	`{"service":"a","image":"i","labels":{"empty":"","topic":"orders"}}`,
	`{"service":"a","image":"i","labels":{"faas.timeout":"5m"}}`,
	`{"service":"a","image":"i","annotations":{"topic":"cron-function","schedule":"*/5 * * * *"}}`,
	`{"service":"a","image":"i","annotations":{"json":"{\n \"a\": 1\n}"}}`,
	`{"service":"a","image":"i","annotations":{}}`,
	`{"service":"a","image":"i","annotations":{"faas.capabilities":"none"}}`,
	`{"service":"a","image":"i","annotations":{"faas.capabilities":"chown, CAP_NET_BIND_SERVICE"}}`,
	`{"service":"a","image":"i","limits":{"memory":"128Mi"}}`,
	`{"service":"a","image":"i","limits":{"memory":"5Mi","cpu":"100m"}}`,
	`{"service":"a","image":"i","limits":{"cpu":"0.5"}}`,
	`{"service":"a","image":"i","limits":{}}`,
	`{"service":"a","image":"i","requests":{"memory":"64m","cpu":"50m"}}`,
	`{"service":"a","image":"i","limits":{"memory":"1Gi"},"requests":{"memory":"128M"}}`,
	`{"service":"a","image":"i","limits":{"memory":"1.5Gi","cpu":"1.5"}}`,
	`{"service":"a","image":"i","readOnlyRootFilesystem":true}`,
	`{"service":"a","image":"i","readOnlyRootFilesystem":true,"limits":{"memory":"32Mi"},"envVars":{"B":"2","A":"1"}}`,
	`{"service":"a","image":"i","envVars":{"A":"é ü \u0001"},"labels":{"k":"ö"}}`,
	`{"service":"a","image":"i","envProcess":"cat","envVars":{"A":"b"},"constraints":["node.role == worker"],"secrets":["key"],"labels":{"l":"m"},"annotations":{"n":"o"},"limits":{"memory":"64Mi"},"requests":{"cpu":"10m"},"readOnlyRootFilesystem":true}`,
}

var testContext = Context{
	Network: "n", Namespace: "openfaas-fn", APIVersion: "1.47",
	Secrets:    map[string]string{"key": "id1", "other.key": "id2"},
	SecretName: map[string]string{"key": "key", "other.key": "other.key.v2"},
}

// What was deployed is shown as it was sent: absent stays absent, empty stays
// empty.
func TestDeploymentComesBackAsSent(t *testing.T) {
	if len(deployments) < 40 {
		t.Fatalf("got %d deployments, want 40 at least", len(deployments))
	}
	for _, sent := range deployments {
		var dep deployment.Deployment
		if err := jsonbody.Decode([]byte(sent), &dep); err != nil {
			t.Fatalf("%s: %v", sent, err)
		}
		if err := dep.Check(); err != nil {
			t.Errorf("%s: got %v, want it accepted", sent, err)
			continue
		}
		spec, err := New(dep, testContext)
		if err != nil {
			t.Errorf("%s: %v", sent, err)
			continue
		}
		// As the client of Docker's API and the wire change it.
		spec.TaskTemplate.ContainerSpec.Image = tagged(spec.TaskTemplate.ContainerSpec.Image)
		wire, err := json.Marshal(spec)
		if err != nil {
			t.Fatal(err)
		}
		spec = swarm.ServiceSpec{}
		if err := json.Unmarshal(wire, &spec); err != nil {
			t.Fatal(err)
		}
		shown, own := Deployed(&spec, testContext)
		if !own {
			t.Errorf("%s: not known as made by the API", sent)
		}
		got, err := json.Marshal(shown)
		if err != nil {
			t.Fatal(err)
		}
		if !sameJSON(t, []byte(sent), got) {
			t.Errorf("sent %s\ngot  %s", sent, got)
		}
		// And as a status: the same, under the name that a status has for it.
		status, err := json.Marshal(shown.Status())
		if err != nil {
			t.Fatal(err)
		}
		var s, d map[string]any
		json.Unmarshal(status, &s)
		json.Unmarshal([]byte(sent), &d)
		for key, want := range d {
			if key == "service" {
				key = "name"
			}
			if !reflect.DeepEqual(s[key], want) {
				t.Errorf("%s: status: %s: got %v, want %v", sent, key, s[key], want)
			}
		}
		for _, key := range []string{"envVars", "constraints", "secrets", "limits", "requests"} {
			if _, was := d[key]; !was && s[key] != nil {
				t.Errorf("%s: status: got %s %v, want it absent", sent, key, s[key])
			}
		}
		if s["labels"] == nil || s["annotations"] == nil {
			t.Errorf("%s: status without labels or annotations, which clients dereference", sent)
		}
	}
}

func sameJSON(t *testing.T, a, b []byte) bool {
	t.Helper()
	var x, y any
	if err := json.Unmarshal(a, &x); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &y); err != nil {
		t.Fatal(err)
	}
	return reflect.DeepEqual(x, y)
}

// What somebody changed with docker service update is shown, all else as sent.
func TestServiceUpdateByHandWins(t *testing.T) {
	dep := deployment.Deployment{Service: "a", Image: "i:1", EnvProcess: "cat", EnvVars: map[string]string{"A": "1"}, Labels: map[string]string{"l": "m"}, Limits: &deployment.Resources{Memory: "0.5Gi"}}
	for _, c := range []struct {
		name   string
		change func(*swarm.ServiceSpec)
		want   func(*deployment.Deployment)
	}{
		{"image", func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Image = "i:2@sha256:abc" }, func(d *deployment.Deployment) { d.Image = "i:2" }},
		{"variable", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.ContainerSpec.Env = append(s.TaskTemplate.ContainerSpec.Env, "B=2")
		}, func(d *deployment.Deployment) { d.EnvVars = map[string]string{"A": "1", "B": "2"} }},
		{"process", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.ContainerSpec.Env = []string{"A=1", "fprocess=wc"}
		}, func(d *deployment.Deployment) { d.EnvProcess = "wc" }},
		{"label", func(s *swarm.ServiceSpec) { delete(s.Labels, "l") }, func(d *deployment.Deployment) { d.Labels = nil }},
		{"limit", func(s *swarm.ServiceSpec) { s.TaskTemplate.Resources.Limits.MemoryBytes = 64 << 20 }, func(d *deployment.Deployment) { d.Limits = &deployment.Resources{Memory: "64Mi"} }},
		{"replicas", func(s *swarm.ServiceSpec) { *s.Mode.Replicated.Replicas = 7 }, func(*deployment.Deployment) {}},
	} {
		spec, err := New(dep, testContext)
		if err != nil {
			t.Fatal(err)
		}
		c.change(&spec)
		want := dep
		c.want(&want)
		if got, _ := Deployed(&spec, testContext); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, want %+v", c.name, got, want)
		}
	}
}

// An update replaces what the deployment owns and leaves all else alone.
func TestUpdateLeavesWhatIsOthers(t *testing.T) {
	old := deployment.Deployment{Service: "a", Image: "i:1", Labels: map[string]string{"gone": "1"}, Secrets: []string{"key"}, ReadOnlyRootFilesystem: true, Constraints: []string{"node.role == worker"}}
	spec, err := New(old, testContext)
	if err != nil {
		t.Fatal(err)
	}
	ctr := spec.TaskTemplate.ContainerSpec
	spec.Labels["operator"] = "x"
	ctr.Mounts = append(ctr.Mounts, mount.Mount{Type: mount.TypeVolume, Source: "v", Target: "/data"})
	ctr.Secrets = append(ctr.Secrets, &swarm.SecretReference{SecretID: "s", SecretName: "s", File: &swarm.SecretReferenceFileTarget{Name: "s"}})
	spec.TaskTemplate.Networks = append(spec.TaskTemplate.Networks, swarm.NetworkAttachmentConfig{Target: "db"})
	spec.TaskTemplate.Resources = &swarm.ResourceRequirements{Limits: &swarm.Limit{Pids: 100}}

	if err := Apply(&spec, old, deployment.Deployment{Service: "a", Image: "i:2", Labels: map[string]string{"new": "1"}}, testContext); err != nil {
		t.Fatal(err)
	}
	if _, ok := spec.Labels["gone"]; ok || spec.Labels["operator"] != "x" || spec.Labels["new"] != "1" {
		t.Errorf("got labels %v, want operator and new, not gone", spec.Labels)
	}
	if len(ctr.Mounts) != 1 || ctr.Mounts[0].Target != "/data" {
		t.Errorf("got mounts %v, want /data alone", ctr.Mounts)
	}
	if len(ctr.Secrets) != 1 || ctr.Secrets[0].SecretID != "s" {
		t.Errorf("got %d secrets, want the operator's alone", len(ctr.Secrets))
	}
	if len(spec.TaskTemplate.Networks) != 2 || spec.TaskTemplate.Resources.Limits.Pids != 100 {
		t.Errorf("got networks %v and limits %v, want them as they were", spec.TaskTemplate.Networks, spec.TaskTemplate.Resources.Limits)
	}
	if ctr.Image != "i:2" || ctr.ReadOnly || len(spec.TaskTemplate.Placement.Constraints) != 0 {
		t.Errorf("got image %s, read-only %v, constraints %v, want what the update says", ctr.Image, ctr.ReadOnly, spec.TaskTemplate.Placement.Constraints)
	}
}

// Whatever comes in as JSON comes back, or is refused.
func FuzzDeployment(f *testing.F) {
	for _, sent := range deployments {
		f.Add([]byte(sent))
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		var dep deployment.Deployment
		if jsonbody.Decode(sent, &dep) != nil || dep.Check() != nil {
			return
		}
		c := testContext
		c.Secrets, c.SecretName = map[string]string{}, map[string]string{}
		for _, name := range dep.Secrets {
			c.Secrets[name], c.SecretName[name] = "id-"+name, name
		}
		spec, err := New(dep, c)
		if err != nil {
			t.Fatalf("%s passed the check: %v", sent, err)
		}
		got, own := Deployed(&spec, c)
		if !own {
			t.Fatalf("%s: not known as made by the API", sent)
		}
		before, _ := json.Marshal(dep)
		after, _ := json.Marshal(got)
		if string(before) != string(after) {
			t.Errorf("sent %s\ngot  %s", before, after)
		}
	})
}
