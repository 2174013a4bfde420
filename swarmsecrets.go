package main

// Secrets of functions: Docker secrets that belong to the API. A Docker secret
// cannot change, so that a new value is a new Docker secret, to which every
// service that uses the old one is moved.

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/swarm"
)

const (
	labelOwner      = "com.openfaas.owner" // of a Docker secret: the API
	ownerAPI        = "openfaas"
	labelSecret     = "com.openfaas.secret" // its name as clients write it
	secretMoveTries = 5
)

// apiSecrets returns the Docker secrets of the API by name, the newest version
// last.
func (p *swarmProvider) apiSecrets(ctx context.Context) (map[string][]swarm.Secret, error) {
	list, err := p.docker.SecretList(ctx, swarm.SecretListOptions{Filters: filters.NewArgs(filters.Arg("label", labelOwner+"="+ownerAPI))})
	if err != nil {
		return nil, fmt.Errorf("list secrets: %w", dockerError(err))
	}
	slices.SortFunc(list, func(a, b swarm.Secret) int { return a.CreatedAt.Compare(b.CreatedAt) })
	byName := map[string][]swarm.Secret{}
	for _, s := range list {
		name := s.Spec.Labels[labelSecret]
		if name == "" {
			name = s.Spec.Name // made for faas-swarm
		}
		byName[name] = append(byName[name], s)
	}
	return byName, nil
}

func (p *swarmProvider) secrets(ctx context.Context) ([]string, error) {
	byName, err := p.apiSecrets(ctx)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(byName))
	for name := range byName {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

func (p *swarmProvider) createSecret(ctx context.Context, name string, value []byte) error {
	byName, err := p.apiSecrets(ctx)
	if err != nil {
		return err
	}
	if len(byName[name]) > 0 {
		return fmt.Errorf("secret %s: %w", name, errExists)
	}
	_, err = p.newSecret(ctx, name, name, value)
	return err
}

// newSecret makes a Docker secret of the API; dockerName is its own at Docker.
func (p *swarmProvider) newSecret(ctx context.Context, name, dockerName string, value []byte) (id string, err error) {
	made, err := p.docker.SecretCreate(ctx, swarm.SecretSpec{
		Annotations: swarm.Annotations{Name: dockerName, Labels: map[string]string{labelOwner: ownerAPI, labelSecret: name}},
		Data:        value,
	})
	if err != nil {
		return "", fmt.Errorf("create secret %s: %w", name, dockerError(err))
	}
	return made.ID, nil
}

// updateSecret makes the new one before it moves any service, and removes the
// old one once none is left that uses it. Should it break off in between, the
// next update or removal clears up: both versions have the API's label.
func (p *swarmProvider) updateSecret(ctx context.Context, name string, value []byte) error {
	byName, err := p.apiSecrets(ctx)
	if err != nil {
		return err
	}
	old := byName[name]
	if len(old) == 0 {
		return fmt.Errorf("secret %s: %w", name, errNotFound)
	}
	dockerName := fmt.Sprintf("%.50s.%s", name, strings.ToLower(rand.Text()[:10]))
	id, err := p.newSecret(ctx, name, dockerName, value)
	if err != nil {
		return err
	}
	users, err := p.secretUsers(ctx, old)
	if err != nil {
		return err
	}
	for _, s := range users {
		if err := p.moveSecret(ctx, s.ID, name, old, dockerName, id); err != nil {
			return fmt.Errorf("secret %s: the new value is there, but not every function has it yet: send it again: %w", name, err)
		}
	}
	return p.dropSecrets(ctx, old)
}

// secretUsers returns the services that mount one of the secrets.
func (p *swarmProvider) secretUsers(ctx context.Context, secrets []swarm.Secret) ([]swarm.Service, error) {
	services, err := p.docker.ServiceList(ctx, swarm.ServiceListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list services: %w", dockerError(err))
	}
	return slices.DeleteFunc(services, func(s swarm.Service) bool { return !usesSecret(&s.Spec, secrets) }), nil
}

func usesSecret(spec *swarm.ServiceSpec, secrets []swarm.Secret) bool {
	return spec.TaskTemplate.ContainerSpec != nil && slices.ContainsFunc(spec.TaskTemplate.ContainerSpec.Secrets, func(ref *swarm.SecretReference) bool {
		return slices.ContainsFunc(secrets, func(s swarm.Secret) bool { return s.ID == ref.SecretID })
	})
}

// moveSecret has one service use the new version of a secret, at the same
// path.
func (p *swarmProvider) moveSecret(ctx context.Context, service, name string, old []swarm.Secret, dockerName, id string) error {
	for range secretMoveTries {
		s, _, err := p.docker.ServiceInspectWithRaw(ctx, service, swarm.ServiceInspectOptions{})
		if isNotFound(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("inspect service: %w", dockerError(err))
		}
		if !usesSecret(&s.Spec, old) {
			return nil
		}
		for _, ref := range s.Spec.TaskTemplate.ContainerSpec.Secrets {
			if slices.ContainsFunc(old, func(o swarm.Secret) bool { return o.ID == ref.SecretID }) {
				ref.SecretID, ref.SecretName = id, dockerName
			}
		}
		_, err = p.docker.ServiceUpdate(ctx, s.ID, s.Version, s.Spec, swarm.ServiceUpdateOptions{RegistryAuthFrom: swarm.RegistryAuthFromSpec})
		if err == nil {
			return nil
		}
		if !outOfSequence(err) {
			return fmt.Errorf("update service %s: %w", s.Spec.Name, dockerError(err))
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	return fmt.Errorf("update service: changed by others %d times in a row: %w", secretMoveTries, errUnavailable)
}

func (p *swarmProvider) removeSecret(ctx context.Context, name string) error {
	byName, err := p.apiSecrets(ctx)
	if err != nil {
		return err
	}
	all := byName[name]
	if len(all) == 0 {
		return fmt.Errorf("secret %s: %w", name, errNotFound)
	}
	users, err := p.secretUsers(ctx, all)
	if err != nil {
		return err
	}
	if len(users) > 0 {
		var names []string
		for _, s := range users {
			names = append(names, s.Spec.Name)
		}
		slices.Sort(names)
		return fmt.Errorf("secret %q: %w by %s", name, errInUse, strings.Join(names, ", "))
	}
	return p.dropSecrets(ctx, all)
}

func (p *swarmProvider) dropSecrets(ctx context.Context, secrets []swarm.Secret) error {
	for _, s := range secrets {
		if err := p.docker.SecretRemove(ctx, s.ID); err != nil && !isNotFound(err) {
			return fmt.Errorf("remove secret %s: %w", s.Spec.Name, dockerError(err))
		}
	}
	return nil
}
