package swarmspec

// A Swarm service as the deployment that it shows: what was sent, and what
// somebody has changed since then.

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/swarm"

	"faas/internal/deployment"
	"faas/internal/naming"
)

// Read reads a deployment off a service, whoever made it.
func Read(spec *swarm.ServiceSpec, namespace string) deployment.Deployment {
	d := deployment.Deployment{Service: spec.Name}
	if name := spec.Labels[deployment.LabelName]; naming.IsFunction(name) {
		d.Service = name
	}
	for key, value := range spec.Labels {
		if annotation, ok := strings.CutPrefix(key, deployment.AnnotationLabel); ok {
			set(&d.Annotations, annotation, value)
		} else if key != deployment.LabelDeployment && key != deployment.LabelName {
			set(&d.Labels, key, value)
		}
	}
	task := &spec.TaskTemplate
	if p := task.Placement; p != nil && len(p.Constraints) > 0 {
		d.Constraints = slices.Clone(p.Constraints)
	}
	if r := task.Resources; r != nil {
		if r.Limits != nil {
			d.Limits = quantities(r.Limits.MemoryBytes, r.Limits.NanoCPUs)
		}
		if r.Reservations != nil {
			d.Requests = quantities(r.Reservations.MemoryBytes, r.Reservations.NanoCPUs)
		}
	}
	ctr := task.ContainerSpec
	if ctr == nil {
		return d
	}
	d.Image, _, _ = strings.Cut(ctr.Image, "@") // docker adds the digest
	d.ReadOnlyRootFilesystem = ctr.ReadOnly
	for _, v := range ctr.Env {
		name, value, _ := strings.Cut(v, "=")
		switch {
		case name == "fprocess":
			d.EnvProcess = value
		case v == "OPENFAAS_NAME="+d.Service, v == "OPENFAAS_NAMESPACE="+namespace:
		default:
			set(&d.EnvVars, name, value)
		}
	}
	for _, s := range ctr.Secrets {
		if s.File == nil {
			continue
		}
		name := strings.TrimPrefix(strings.TrimPrefix(s.File.Name, secretsFolder), dockerSecrets)
		if !slices.Contains(d.Secrets, name) {
			d.Secrets = append(d.Secrets, name)
		}
	}
	return d
}

func set(m *map[string]string, key, value string) {
	if *m == nil {
		*m = map[string]string{}
	}
	(*m)[key] = value
}

// quantities writes numbers as a deployment has them; nil for none.
func quantities(memory, nanoCPUs int64) *deployment.Resources {
	var r deployment.Resources
	switch {
	case memory > 0 && memory%(1<<20) == 0:
		r.Memory = fmt.Sprintf("%dMi", memory>>20)
	case memory > 0:
		r.Memory = fmt.Sprint(memory)
	}
	if nanoCPUs > 0 {
		r.CPU = fmt.Sprintf("%dm", (nanoCPUs+1e6-1)/1e6)
	}
	if r == (deployment.Resources{}) {
		return nil
	}
	return &r
}

// Deployed returns the deployment that a service shows, and whether the API
// made it. What was sent is shown as it was sent, except where somebody has
// changed the service since then: then the service is right.
func Deployed(spec *swarm.ServiceSpec, c Context) (shown deployment.Deployment, own bool) {
	now := Read(spec, c.Namespace)
	sent, ok := spec.Labels[deployment.LabelDeployment]
	if !ok {
		return now, false
	}
	var d deployment.Deployment
	if json.Unmarshal([]byte(sent), &d) != nil {
		return now, true
	}
	made := swarm.ServiceSpec{Annotations: swarm.Annotations{Name: spec.Name}, TaskTemplate: swarm.TaskSpec{ContainerSpec: &swarm.ContainerSpec{}}}
	if Apply(&made, deployment.Deployment{}, d, c) != nil {
		return now, true
	}
	then := Read(&made, c.Namespace)
	keep(&d.Image, tagged(then.Image) == tagged(now.Image), now.Image)
	keep(&d.EnvProcess, then.EnvProcess == now.EnvProcess, now.EnvProcess)
	keep(&d.EnvVars, maps.Equal(then.EnvVars, now.EnvVars), now.EnvVars)
	keep(&d.Labels, maps.Equal(then.Labels, now.Labels), now.Labels)
	keep(&d.Annotations, maps.Equal(then.Annotations, now.Annotations), now.Annotations)
	keep(&d.Constraints, slices.Equal(then.Constraints, now.Constraints), now.Constraints)
	keep(&d.Secrets, slices.Equal(slices.Sorted(slices.Values(then.Secrets)), slices.Sorted(slices.Values(now.Secrets))), now.Secrets)
	keep(&d.Limits, equalResources(then.Limits, now.Limits), now.Limits)
	keep(&d.Requests, equalResources(then.Requests, now.Requests), now.Requests)
	keep(&d.ReadOnlyRootFilesystem, then.ReadOnlyRootFilesystem == now.ReadOnlyRootFilesystem, now.ReadOnlyRootFilesystem)
	return d, true
}

// keep leaves *field as it was sent if the service still has it, and makes it
// what the service has otherwise.
func keep[T any](field *T, same bool, now T) {
	if !same {
		*field = now
	}
}

func equalResources(a, b *deployment.Resources) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

// tagged adds the tag that Docker's client adds to an image without one.
func tagged(image string) string {
	if last := image[strings.LastIndexByte(image, '/')+1:]; strings.ContainsAny(last, ":@") {
		return image
	}
	return image + ":latest"
}
