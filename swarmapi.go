package main

// What the control plane asks of Docker besides running functions.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/swarm"

	"faas/internal/deployment"
	"faas/internal/naming"
	"faas/internal/servicelog"
	"faas/internal/swarmspec"
)

// specContext asks for what dep's service depends on. An unknown secret is a
// bad request.
func (p *swarmProvider) specContext(ctx context.Context, dep deployment.Deployment) (swarmspec.Context, error) {
	c := swarmspec.Context{
		Network: p.id, Namespace: p.namespace, APIVersion: p.docker.ClientVersion(),
		Secrets: map[string]string{}, SecretName: map[string]string{},
	}
	if len(dep.Secrets) == 0 {
		return c, nil
	}
	known, err := p.apiSecrets(ctx)
	if err != nil {
		return c, err
	}
	for _, name := range dep.Secrets {
		versions := known[name]
		if len(versions) == 0 {
			return c, badRequest(fmt.Errorf("secrets: there is no secret %q: make it first, with POST /system/secrets", name))
		}
		newest := versions[len(versions)-1]
		c.Secrets[name], c.SecretName[name] = newest.ID, newest.Spec.Name
	}
	return c, nil
}

func (p *swarmProvider) describe(ctx context.Context, defs []definition) (map[string]deployment.Status, error) {
	options := swarm.ServiceListOptions{}
	if len(defs) == 1 {
		options.Filters = filters.NewArgs(filters.Arg("name", defs[0].service))
	}
	services, err := p.docker.ServiceList(ctx, options)
	if err != nil {
		return nil, fmt.Errorf("list services: %w", dockerError(err))
	}
	c := swarmspec.Context{Network: p.id, Namespace: p.namespace, APIVersion: p.docker.ClientVersion()}
	known := make(map[string]deployment.Status, len(services))
	for i := range services {
		if p.isFunction(&services[i]) {
			shown, _ := swarmspec.Deployed(&services[i].Spec, c)
			status := shown.Status()
			status.CreatedAt = services[i].CreatedAt
			known[services[i].Spec.Name] = status
		}
	}
	return known, nil
}

func (p *swarmProvider) logs(ctx context.Context, d definition, q logQuery) (func(func(logLine) error) error, error) {
	ctx, cancel := context.WithCancel(ctx)
	// The engine has to answer in time; how long it goes on is the caller's.
	late := time.AfterFunc(apiTimeout, cancel)
	s, stream, err := p.openLogs(ctx, d, q)
	if !late.Stop() && err == nil {
		stream.Close()
		err = errUnavailable
	}
	if err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("%w: %w", errUnavailable, err)
		}
		cancel()
		return nil, err
	}
	return func(emit func(logLine) error) error {
		defer cancel() // those who go away end the stream at the engine, too
		defer stream.Close()
		tty := s.Spec.TaskTemplate.ContainerSpec != nil && s.Spec.TaskTemplate.ContainerSpec.TTY
		return servicelog.Read(stream, tty, func(line servicelog.Line) error {
			if q.instance != "" && line.Task != q.instance {
				return nil
			}
			return emit(logLine{Instance: line.Task, Timestamp: line.Time, Text: line.Text})
		})
	}, nil
}

func (p *swarmProvider) openLogs(ctx context.Context, d definition, q logQuery) (s swarm.Service, stream io.ReadCloser, err error) {
	if s, _, err = p.docker.ServiceInspectWithRaw(ctx, d.service, swarm.ServiceInspectOptions{}); err != nil {
		return s, nil, fmt.Errorf("inspect service %s: %w", d.service, dockerError(err))
	}
	options := container.LogsOptions{ShowStdout: true, ShowStderr: true, Timestamps: true, Details: true, Follow: q.follow, Tail: "all"}
	if q.tail > 0 && q.instance == "" {
		options.Tail = strconv.Itoa(q.tail) // of each replica
	}
	if !q.since.IsZero() {
		options.Since = q.since.Format(time.RFC3339Nano)
	}
	if stream, err = p.docker.ServiceLogs(ctx, s.ID, options); err != nil {
		return s, nil, fmt.Errorf("logs of service %s: %w", d.service, dockerError(err))
	}
	return s, stream, nil
}

// dockerError turns what the API said into what callers tell apart.
func dockerError(err error) error {
	text := err.Error()
	has := func(parts ...string) bool {
		return slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(text, part) })
	}
	switch {
	case isNotFound(err):
		return fmt.Errorf("%w: %w", errNotFound, err)
	case has("AlreadyExists", "already exists", "name conflicts with an existing object"):
		return fmt.Errorf("%w: %w", errExists, err)
	case has("is in use by the following"):
		return fmt.Errorf("%w: %w", errInUse, err)
	case has("InvalidArgument"):
		_, reason, _ := strings.Cut(text, "desc = ")
		return &apiError{http.StatusBadRequest, "Docker refuses it: " + naming.Shown(reason)}
	case has("does not have a leader", "Unavailable", "lost quorum", "not a swarm manager", "Cannot connect to the Docker daemon"), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", errUnavailable, err)
	}
	return err
}

func outOfSequence(err error) bool { return strings.Contains(err.Error(), "update out of sequence") }
