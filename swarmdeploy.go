package main

// Functions made over the API on Swarm: a service is created, updated and
// removed.

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"faas/internal/deployment"
	"faas/internal/scale"
	"faas/internal/swarmspec"
)

// deploy makes a service of dep. errExists: there is a function or a service
// of that name.
func (p *swarmProvider) deploy(ctx context.Context, dep deployment.Deployment) error {
	c, err := p.specContext(ctx, dep)
	if err != nil {
		return err
	}
	spec, err := swarmspec.New(dep, c)
	if err != nil {
		return err
	}
	least := uint64(max(scalingOf(dep, p.defaults.scale).Min, 1))
	spec.Mode.Replicated.Replicas = &least
	auth, err := p.credentials.ForImage(dep.Image)
	if err != nil {
		return err
	}
	if _, err := p.docker.ServiceCreate(ctx, spec, swarm.ServiceCreateOptions{EncodedRegistryAuth: auth}); err != nil {
		return fmt.Errorf("create service %s: %w", dep.Service, dockerError(err))
	}
	return nil
}

// update makes the service what dep says. errNotFound, or errForeign if it was
// not made by the API.
func (p *swarmProvider) update(ctx context.Context, dep deployment.Deployment) error {
	auth, err := p.credentials.ForImage(dep.Image)
	if err != nil {
		return err
	}
	for range scaleAttempts {
		s, err := p.inspectOwn(ctx, dep.Service)
		if err != nil {
			return err
		}
		c, err := p.specContext(ctx, dep)
		if err != nil {
			return err
		}
		var old deployment.Deployment
		if err := json.Unmarshal([]byte(s.Spec.Labels[deployment.LabelDeployment]), &old); err != nil {
			old = swarmspec.Read(&s.Spec, c.Namespace)
		}
		if err := swarmspec.Apply(&s.Spec, old, dep, c); err != nil {
			return err
		}
		s.Spec.TaskTemplate.ForceUpdate++ // an image of the same name is pulled again
		keepWithin(&s.Spec, dep, p.defaults.scale)
		options := swarm.ServiceUpdateOptions{EncodedRegistryAuth: auth}
		if auth == "" {
			options.RegistryAuthFrom = swarm.RegistryAuthFromSpec
		}
		_, err = p.docker.ServiceUpdate(ctx, s.ID, s.Version, s.Spec, options)
		if err == nil {
			return nil
		}
		if !outOfSequence(err) {
			return fmt.Errorf("update service %s: %w", dep.Service, dockerError(err))
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	return fmt.Errorf("update service %s: changed by others %d times in a row: %w", dep.Service, scaleAttempts, errUnavailable)
}

// keepWithin keeps the number of replicas, within the new limits; none stays
// none.
func keepWithin(spec *swarm.ServiceSpec, dep deployment.Deployment, defaults scale.Limits) {
	mode := spec.Mode.Replicated
	if mode == nil || mode.Replicas == nil || *mode.Replicas == 0 {
		return
	}
	limits := scalingOf(dep, defaults)
	n := uint64(min(max(int(min(*mode.Replicas, scale.MaxReplicas)), max(limits.Min, 1)), limits.Max))
	mode.Replicas = &n
}

// remove removes the function's service.
func (p *swarmProvider) remove(ctx context.Context, d definition) error {
	s, err := p.inspectOwn(ctx, d.service)
	if err != nil {
		return err
	}
	if err := p.docker.ServiceRemove(ctx, s.ID); err != nil {
		return fmt.Errorf("remove service %s: %w", d.service, dockerError(err))
	}
	return nil
}

// inspectOwn returns a service that the API made.
func (p *swarmProvider) inspectOwn(ctx context.Context, service string) (swarm.Service, error) {
	s, _, err := p.docker.ServiceInspectWithRaw(ctx, service, swarm.ServiceInspectOptions{})
	if err != nil {
		return s, fmt.Errorf("inspect service %s: %w", service, dockerError(err))
	}
	if s.Spec.Name != service || !p.isFunction(&s) {
		return s, fmt.Errorf("inspect service %s: %w", service, errNotFound) // Docker takes an ID for a name
	}
	if _, own := s.Spec.Labels[deployment.LabelDeployment]; !own {
		return s, fmt.Errorf("service %s: %w", service, errForeign)
	}
	return s, nil
}

// scalingOf is how a deployment's labels say that it scales.
func scalingOf(dep deployment.Deployment, defaults scale.Limits) scale.Limits {
	d, _ := parseLabels(dep.Labels, definition{scale: defaults})
	return d.scale
}
