// Package deployment has what clients of OpenFaaS send to make a function, and a
// function's status as they expect it: the JSON of the control plane.
package deployment

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"faas/internal/naming"
)

// A Deployment is OpenFaaS's FunctionDeployment. A field that was not sent is
// nil or empty, and stays out of the JSON; one that was sent empty stays in.
type Deployment struct {
	Service                string            `json:"service"`
	Image                  string            `json:"image"`
	Namespace              string            `json:"namespace,omitempty"`
	EnvProcess             string            `json:"envProcess,omitempty"`
	EnvVars                map[string]string `json:"envVars,omitzero"`
	Constraints            []string          `json:"constraints,omitzero"`
	Secrets                []string          `json:"secrets,omitzero"`
	Labels                 map[string]string `json:"labels,omitzero"`
	Annotations            map[string]string `json:"annotations,omitzero"`
	Limits                 *Resources        `json:"limits,omitempty"`
	Requests               *Resources        `json:"requests,omitempty"`
	ReadOnlyRootFilesystem bool              `json:"readOnlyRootFilesystem,omitempty"`
}

// Resources are quantities as they were sent, such as "128Mi" and "100m".
type Resources struct {
	Memory string `json:"memory,omitempty"`
	CPU    string `json:"cpu,omitempty"`
}

// A Status is OpenFaaS's FunctionStatus: what was deployed, and what
// became of it. Clients dereference labels and annotations without a look, so
// these are never nil.
type Status struct {
	Name                   string            `json:"name"`
	Image                  string            `json:"image"`
	Namespace              string            `json:"namespace,omitempty"`
	EnvProcess             string            `json:"envProcess,omitempty"`
	EnvVars                map[string]string `json:"envVars,omitzero"`
	Constraints            []string          `json:"constraints,omitzero"`
	Secrets                []string          `json:"secrets,omitzero"`
	Labels                 map[string]string `json:"labels"`
	Annotations            map[string]string `json:"annotations"`
	Limits                 *Resources        `json:"limits,omitempty"`
	Requests               *Resources        `json:"requests,omitempty"`
	ReadOnlyRootFilesystem bool              `json:"readOnlyRootFilesystem,omitempty"`
	InvocationCount        float64           `json:"invocationCount"`
	Replicas               uint64            `json:"replicas"`          // wanted
	AvailableReplicas      uint64            `json:"availableReplicas"` // ready
	CreatedAt              time.Time         `json:"createdAt,omitzero"`

	// Reason says in words why there is no ready replica, in the task's own
	// words where it has some. Ours alone: other clients ignore it.
	Reason string `json:"reason,omitempty"`
}

// Status returns the part of a function's status that its deployment has.
func (d *Deployment) Status() Status {
	s := Status{
		Name: d.Service, Image: d.Image, Namespace: d.Namespace, EnvProcess: d.EnvProcess, EnvVars: d.EnvVars,
		Constraints: d.Constraints, Secrets: d.Secrets, Labels: maps.Clone(d.Labels), Annotations: maps.Clone(d.Annotations),
		Limits: d.Limits, Requests: d.Requests, ReadOnlyRootFilesystem: d.ReadOnlyRootFilesystem,
	}
	if s.Labels == nil {
		s.Labels = map[string]string{}
	}
	if s.Annotations == nil {
		s.Annotations = map[string]string{}
	}
	return s
}

// Labels of a service that the gateway gives a meaning of its own.
const (
	// LabelDeployment holds the deployment as it was sent. A service that has
	// it was made by the API, and only such a one is changed or removed by it.
	LabelDeployment = "faas.deployment"

	LabelFunction   = "faas.function"
	LabelName       = "com.openfaas.function"
	LabelTimeout    = "faas.timeout"
	AnnotationLabel = "com.openfaas.annotations." // and the annotation's name
)

const (
	maxEnvVars  = 1000
	maxLabelKey = 256
)

// Check returns what is wrong with the deployment, each with the field's name,
// all at once; nil for nothing. What only the provider knows, such as whether a
// secret exists, is left to it.
func (d *Deployment) Check() error {
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: "+format, append([]any{field}, args...)...))
	}
	switch {
	case d.Service == "":
		bad("service", "the function's name is missing")
	case !naming.IsService(d.Service):
		bad("service", "%q cannot be a service's name on Swarm: letters and digits, with - and _ between them, %d at most", naming.Shown(d.Service), naming.MaxLen)
	}
	switch {
	case d.Image == "":
		bad("image", "the image's name is missing")
	case strings.ContainsAny(d.Image, " \t\r\n\x00") || len(d.Image) > 1024:
		bad("image", "%q is not the name of an image", naming.Shown(d.Image))
	}
	if strings.ContainsRune(d.EnvProcess, 0) {
		bad("envProcess", "has a NUL byte")
	}
	if len(d.EnvVars) > maxEnvVars {
		bad("envVars", "%d variables, %d at most", len(d.EnvVars), maxEnvVars)
	}
	for _, name := range slices.Sorted(maps.Keys(d.EnvVars)) {
		switch {
		case name == "" || strings.ContainsAny(name, "=\x00"):
			bad("envVars", "%q cannot be a variable's name", naming.Shown(name))
		case strings.ContainsRune(d.EnvVars[name], 0):
			bad("envVars", "%s has a NUL byte", naming.Shown(name))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(d.Labels)) {
		switch {
		case key == "" || len(key) > maxLabelKey || strings.ContainsFunc(key, naming.NotPrintable):
			bad("labels", "%q cannot be a label's name", naming.Shown(key))
		case key == LabelDeployment || key == LabelName || strings.HasPrefix(key, AnnotationLabel):
			bad("labels", "%s is the gateway's own", key)
		case key == LabelFunction:
			bad("labels", "%s would make it something other than a function", key)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(d.Annotations)) {
		if key == "" || len(key) > maxLabelKey || strings.ContainsFunc(key, naming.NotPrintable) {
			bad("annotations", "%q cannot be an annotation's name", naming.Shown(key))
		}
	}
	for _, c := range d.Constraints {
		if err := checkConstraint(c); err != nil {
			bad("constraints", "%q: %w", naming.Shown(c), err)
		}
	}
	for i, name := range d.Secrets {
		switch {
		case !naming.IsSecret(name):
			bad("secrets", "%q cannot be a secret's name", naming.Shown(name))
		case slices.Contains(d.Secrets[:i], name):
			bad("secrets", "%q is there twice", name)
		}
	}
	memory, cpu := [2]int64{}, [2]int64{}
	for i, r := range []*Resources{d.Requests, d.Limits} {
		field := [...]string{"requests", "limits"}[i]
		if r == nil {
			continue
		}
		var err error
		if r.Memory != "" {
			if memory[i], err = parseMemory(r.Memory); err != nil {
				bad(field+".memory", "%q: %w", naming.Shown(r.Memory), err)
			}
		}
		if r.CPU != "" {
			if cpu[i], err = parseCPU(r.CPU); err != nil {
				bad(field+".cpu", "%q: %w", naming.Shown(r.CPU), err)
			}
		}
	}
	if memory[1] > 0 && memory[0] > memory[1] {
		bad("requests.memory", "%s is more than the limit, %s", d.Requests.Memory, d.Limits.Memory)
	}
	if cpu[1] > 0 && cpu[0] > cpu[1] {
		bad("requests.cpu", "%s is more than the limit, %s", d.Requests.CPU, d.Limits.CPU)
	}
	if _, err := Capabilities(d.Annotations); err != nil {
		bad("annotations", "%w", err)
	}
	return errors.Join(errs...)
}

// placement is what a constraint of Swarm looks like: a key, == or !=, a value.
var placement = regexp.MustCompile(`^(node\.(id|hostname|ip|role|platform\.(os|arch))|(node|engine)\.labels\.[A-Za-z0-9._/-]+) *(==|!=) *[^ ]\S*( \S+)*$`)

func checkConstraint(c string) error {
	if len(c) > 1024 || !placement.MatchString(strings.TrimSpace(c)) {
		return errors.New("want Swarm's form, such as node.labels.disk == ssd or node.role != manager")
	}
	return nil
}
