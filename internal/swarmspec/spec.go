// Package swarmspec turns a deployment into the spec of a Swarm service, and a
// service into the deployment that it shows.
package swarmspec

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/api/types/versions"

	"faas/internal/deployment"
	"faas/internal/settings"
)

const (
	secretsFolder = "/var/openfaas/secrets/" // where OpenFaaS's functions look
	dockerSecrets = "/run/secrets/"          // where Docker's do

	tmpfsSize = 64 << 20 // of /tmp, where the root file system is read-only

	// What a replica may take to end: watchdogs of OpenFaaS stay for
	// healthcheck_interval and then for what is in flight.
	defaultFunctionTimeout = 30 * time.Second
	graceMargin            = 5 * time.Second
	longestGrace           = 24 * time.Hour

	// A replica is ready when its health check says so. Without a start
	// interval that is not before the image's first regular one.
	startPeriod   = time.Minute
	startInterval = 100 * time.Millisecond
	apiStarts     = "1.44" // API version that knows StartInterval and NoNewPrivileges
)

// A Context is what a service's spec depends on besides the deployment.
type Context struct {
	Network    string            // ID of the functions network
	Namespace  string            // the one there is
	Secrets    map[string]string // IDs of the API's secrets that the deployment names
	SecretName map[string]string // and their names at Docker, which change with each update
	APIVersion string            // of the engine
}

// New returns the service that dep asks for, with one replica. dep has passed its
// check.
func New(dep deployment.Deployment, c Context) (swarm.ServiceSpec, error) {
	one := uint64(0)
	any := swarm.RestartPolicyConditionAny
	delay := 2 * time.Second
	spec := swarm.ServiceSpec{
		Annotations: swarm.Annotations{Name: dep.Service},
		TaskTemplate: swarm.TaskSpec{
			ContainerSpec: &swarm.ContainerSpec{},
			Networks:      []swarm.NetworkAttachmentConfig{{Target: c.Network}},
			// No MaxAttempts: a function that failed five times is not dead
			// for ever.
			RestartPolicy: &swarm.RestartPolicy{Condition: any, Delay: &delay},
		},
		Mode: swarm.ServiceMode{Replicated: &swarm.ReplicatedService{Replicas: &one}},
		UpdateConfig: &swarm.UpdateConfig{
			Parallelism: 1, Order: swarm.UpdateOrderStartFirst, FailureAction: swarm.UpdateFailureActionRollback,
		},
		RollbackConfig: &swarm.UpdateConfig{
			Parallelism: 1, Order: swarm.UpdateOrderStartFirst, FailureAction: swarm.UpdateFailureActionPause,
		},
	}
	if versions.GreaterThanOrEqualTo(c.APIVersion, apiStarts) {
		// With no test of its own it takes over the image's, field by field.
		spec.TaskTemplate.ContainerSpec.Healthcheck = &container.HealthConfig{StartPeriod: startPeriod, StartInterval: startInterval}
	}
	if err := Apply(&spec, deployment.Deployment{}, dep, c); err != nil {
		return swarm.ServiceSpec{}, err
	}
	return spec, nil
}

// Apply changes what a deployment owns of a service's spec from old to dep, and
// nothing else: mounts, networks, secrets and labels of others stay.
func Apply(spec *swarm.ServiceSpec, old, dep deployment.Deployment, c Context) error {
	sent, err := json.Marshal(dep)
	if err != nil {
		return fmt.Errorf("encode the deployment: %w", err)
	}
	task := &spec.TaskTemplate
	ctr := task.ContainerSpec

	spec.Labels = replaceLabels(spec.Labels, ownLabels(old), ownLabels(dep))
	spec.Labels[deployment.LabelDeployment] = string(sent)
	spec.Labels[deployment.LabelName] = dep.Service
	ctr.Labels = replaceLabels(ctr.Labels, ownLabels(old), ownLabels(dep))
	ctr.Labels[deployment.LabelName] = dep.Service
	ctr.Labels["function"] = "true"

	ctr.Image = dep.Image
	ctr.Env = environ(dep, c.Namespace)
	ctr.ReadOnly = dep.ReadOnlyRootFilesystem
	ctr.Mounts = slices.DeleteFunc(ctr.Mounts, func(m mount.Mount) bool { return m.Type == mount.TypeTmpfs && m.Target == "/tmp" })
	if dep.ReadOnlyRootFilesystem {
		ctr.Mounts = append(ctr.Mounts, mount.Mount{Type: mount.TypeTmpfs, Target: "/tmp", TmpfsOptions: &mount.TmpfsOptions{SizeBytes: tmpfsSize}})
	}
	grace := stopGrace(dep)
	ctr.StopGracePeriod = &grace
	caps, err := deployment.Capabilities(dep.Annotations)
	if err != nil {
		return err
	}
	ctr.CapabilityDrop, ctr.CapabilityAdd = []string{"ALL"}, nil
	for _, cap := range caps {
		ctr.CapabilityAdd = append(ctr.CapabilityAdd, "CAP_"+cap)
	}
	if versions.GreaterThanOrEqualTo(c.APIVersion, apiStarts) {
		if ctr.Privileges == nil {
			ctr.Privileges = &swarm.Privileges{}
		}
		ctr.Privileges.NoNewPrivileges = true
	}

	ctr.Secrets = slices.DeleteFunc(ctr.Secrets, func(s *swarm.SecretReference) bool {
		return s.File != nil && slices.ContainsFunc(old.Secrets, func(name string) bool {
			return s.File.Name == secretsFolder+name || s.File.Name == dockerSecrets+name || s.File.Name == name
		})
	})
	for _, name := range dep.Secrets {
		ctr.Secrets = append(ctr.Secrets, secretReferences(name, c.SecretName[name], c.Secrets[name])...)
	}

	if len(dep.Constraints) > 0 || task.Placement != nil {
		if task.Placement == nil {
			task.Placement = &swarm.Placement{}
		}
		task.Placement.Constraints = slices.Clone(dep.Constraints)
	}
	return applyResources(task, dep)
}

// secretReferences mount one secret where functions of OpenFaaS and where those
// of Docker look for it, readable for every user of the container.
func secretReferences(name, dockerName, id string) []*swarm.SecretReference {
	var refs []*swarm.SecretReference
	for _, target := range []string{secretsFolder + name, dockerSecrets + name} {
		refs = append(refs, &swarm.SecretReference{
			SecretID: id, SecretName: dockerName,
			File: &swarm.SecretReferenceFileTarget{Name: target, UID: "0", GID: "0", Mode: 0o444},
		})
	}
	return refs
}

// ownLabels are the labels and annotations of a deployment, as a service has
// them.
func ownLabels(d deployment.Deployment) map[string]string {
	own := maps.Clone(d.Labels)
	if own == nil {
		own = map[string]string{}
	}
	for key, value := range d.Annotations {
		own[deployment.AnnotationLabel+key] = value
	}
	return own
}

// replaceLabels returns labels without what old has, with what is new.
func replaceLabels(labels, old, new map[string]string) map[string]string {
	next := map[string]string{}
	for key, value := range labels {
		if _, owned := old[key]; !owned {
			next[key] = value
		}
	}
	maps.Copy(next, new)
	return next
}

// environ is a deployment's environment, sorted.
func environ(d deployment.Deployment, namespace string) []string {
	vars := map[string]string{"OPENFAAS_NAME": d.Service, "OPENFAAS_NAMESPACE": namespace}
	maps.Copy(vars, d.EnvVars)
	if d.EnvProcess != "" {
		vars["fprocess"] = d.EnvProcess
	}
	env := make([]string, 0, len(vars))
	for name, value := range vars {
		env = append(env, name+"="+value)
	}
	slices.Sort(env)
	return env
}

// applyResources leaves resources alone that no deployment can ask for.
func applyResources(task *swarm.TaskSpec, d deployment.Deployment) error {
	if task.Resources == nil {
		if d.Limits == nil && d.Requests == nil {
			return nil
		}
		task.Resources = &swarm.ResourceRequirements{}
	}
	memory, cpu, err := d.Limits.Parse()
	if err != nil {
		return fmt.Errorf("limits: %w", err)
	}
	if task.Resources.Limits == nil {
		task.Resources.Limits = &swarm.Limit{}
	}
	task.Resources.Limits.MemoryBytes, task.Resources.Limits.NanoCPUs = memory, cpu
	if memory, cpu, err = d.Requests.Parse(); err != nil {
		return fmt.Errorf("requests: %w", err)
	}
	if task.Resources.Reservations == nil {
		task.Resources.Reservations = &swarm.Resources{}
	}
	task.Resources.Reservations.MemoryBytes, task.Resources.Reservations.NanoCPUs = memory, cpu
	return nil
}

// stopGrace is how long a replica may take to end by itself: what its own
// settings say, or else their defaults.
func stopGrace(d deployment.Deployment) time.Duration {
	setting := func(name string, otherwise time.Duration) time.Duration {
		if t, err := settings.ParseDuration(d.EnvVars[name]); err == nil {
			return t
		}
		return otherwise
	}
	write := setting("write_timeout", defaultFunctionTimeout)
	drain := setting("healthcheck_interval", write)
	longest := max(write, setting("exec_timeout", 0))
	if t, err := settings.ParseDuration(d.Labels[deployment.LabelTimeout]); err == nil {
		longest = max(longest, t)
	}
	return min(drain+longest+graceMargin, longestGrace)
}
