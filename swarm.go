package main

// The provider for Docker Swarm: services of one overlay network are
// functions. Only this file and its neighbours by name know Docker's types.

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"

	"faas/internal/registryauth"
	"faas/internal/scale"
)

const (
	// functionsSubnet is the subnet in README.md and stack.yml. Docker's default, a
	// /24, has room for about 120 functions.
	functionsSubnet = "10.83.0.0/16"

	scaleAttempts = 5 // at one change, when others change the service too
)

// A swarmProvider gets functions from the Docker API and replicas' addresses from
// Swarm's DNS.
type swarmProvider struct {
	docker   client.APIClient
	resolver *net.Resolver
	network  string // name
	id       string // of the network
	defaults definition

	namespace   string
	credentials registryauth.File
}

// newSwarm connects to the Docker API that the environment names (DOCKER_HOST,
// or the socket) and checks that it is a manager's and has the network.
// Functions without labels get what defaults say.
func newSwarm(ctx context.Context, name string, defaults definition) (*swarmProvider, error) {
	docker, err := client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation())
	if err != nil {
		return nil, fmt.Errorf("docker client: %w", err)
	}
	p := &swarmProvider{
		docker: docker,
		// The pure Go resolver honours a deadline; a lookup of a service without a
		// task hangs.
		resolver: &net.Resolver{PreferGo: true},
		network:  name,
		defaults: defaults,
	}
	if err := p.check(ctx); err != nil {
		docker.Close()
		return nil, err
	}
	return p, nil
}

// check returns an error that says what a user has to do before functions can run
// here.
func (p *swarmProvider) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	info, err := p.docker.Info(ctx)
	if err != nil {
		return fmt.Errorf("no Docker API at %s: %w; in a container mount the socket: -v /var/run/docker.sock:/var/run/docker.sock", p.docker.DaemonHost(), err)
	}
	if !info.Swarm.ControlAvailable {
		return fmt.Errorf("the Docker engine at %s is not a Swarm manager (its Swarm state is %q): run docker swarm init, or start the gateway on a manager", p.docker.DaemonHost(), info.Swarm.LocalNodeState)
	}
	n, err := p.docker.NetworkInspect(ctx, p.network, network.InspectOptions{})
	switch {
	case isNotFound(err):
		return fmt.Errorf("there is no network %q: run docker network create --driver overlay --attachable --subnet %s %s", p.network, functionsSubnet, p.network)
	case err != nil:
		return fmt.Errorf("inspect network %s: %w", p.network, err)
	case n.Driver != "overlay" || n.Scope != "swarm":
		return fmt.Errorf("network %q is a %s network of scope %s, not an overlay: run docker network create --driver overlay --attachable --subnet %s NAME and start the gateway with -network NAME", p.network, n.Driver, n.Scope, functionsSubnet)
	}
	p.id = n.ID
	return nil
}

// isNotFound reports whether the API said that there is no such object. Only
// containerd's errdefs recognises the client's errors, and it would be another
// direct dependency.
func isNotFound(err error) bool {
	//lint:ignore SA1019 what replaces it is in the module that is spared
	return client.IsErrNotFound(err)
}

func (p *swarmProvider) list(ctx context.Context) ([]definition, error) {
	services, err := p.docker.ServiceList(ctx, swarm.ServiceListOptions{Status: true})
	if err != nil {
		return nil, fmt.Errorf("list services: %w", err)
	}
	var defs []definition
	for i := range services {
		if p.isFunction(&services[i]) {
			defs = append(defs, p.define(&services[i]))
		}
	}
	return defs, nil
}

func (p *swarmProvider) isFunction(s *swarm.Service) bool {
	if isNoFunction(s.Spec.Labels) {
		return false
	}
	attached := func(n swarm.NetworkAttachmentConfig) bool { return n.Target == p.id || n.Target == p.network }
	//lint:ignore SA1019 services from before the networks moved to the task have them here
	old := s.Spec.Networks
	return slices.ContainsFunc(s.Spec.TaskTemplate.Networks, attached) || slices.ContainsFunc(old, attached)
}

// define reads the labels of a service.
func (p *swarmProvider) define(s *swarm.Service) definition {
	d := p.defaults
	d.name, d.service, d.created = s.Spec.Name, s.Spec.Name, s.CreatedAt
	d.rollout = rolling(s.UpdateStatus)
	d, problems := parseLabels(s.Spec.Labels, d)
	for _, problem := range problems {
		d.problems = append(d.problems, problem.String())
	}
	if mode := s.Spec.Mode.Replicated; mode != nil {
		d.replicas = 1
		if mode.Replicas != nil {
			d.replicas = int(*mode.Replicas)
		}
	} else {
		d.scale.Fixed = true
		if s.ServiceStatus != nil {
			d.replicas = int(s.ServiceStatus.DesiredTasks)
		}
	}
	return d
}

func (p *swarmProvider) watch(ctx context.Context, changed func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	messages, errs := p.docker.Events(ctx, events.ListOptions{Filters: filters.NewArgs(filters.Arg("type", string(events.ServiceEventType)))})
	changed()
	for {
		select {
		case <-messages:
			changed()
		case err := <-errs:
			return fmt.Errorf("watch services: %w", err)
		}
	}
}

// addresses asks Swarm's DNS for tasks.SERVICE, which lists the running and
// healthy tasks in both endpoint modes, and answers within milliseconds. For a
// service without such a task it does not answer at all, so that a look-up
// without an answer is an error here.
func (p *swarmProvider) addresses(ctx context.Context, d definition) ([]string, error) {
	if d.replicas == 0 && !d.scale.Fixed {
		return nil, nil
	}
	ips, err := p.resolver.LookupNetIP(ctx, "ip4", "tasks."+d.service+".")
	if dns, ok := errors.AsType[*net.DNSError](err); ok && dns.IsNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up tasks.%s: %w", d.service, err)
	}
	port := strconv.Itoa(d.port)
	addrs := make([]string, len(ips))
	for i, ip := range ips {
		addrs[i] = net.JoinHostPort(ip.Unmap().String(), port)
	}
	slices.Sort(addrs)
	return slices.Compact(addrs), nil
}

// rolling reports whether a rollout or a rollback of the service is under way or
// paused. An update now would make Swarm resume a paused one, and a rollback would
// go to the version that is being rolled out.
func rolling(s *swarm.UpdateStatus) bool {
	if s == nil {
		return false
	}
	switch s.State {
	case swarm.UpdateStateUpdating, swarm.UpdateStatePaused, swarm.UpdateStateRollbackStarted, swarm.UpdateStateRollbackPaused:
		return true
	}
	return false
}

func (p *swarmProvider) scale(ctx context.Context, d definition, decide func(current int) int) error {
	for range scaleAttempts {
		s, _, err := p.docker.ServiceInspectWithRaw(ctx, d.service, swarm.ServiceInspectOptions{})
		if isNotFound(err) {
			return fmt.Errorf("scale %s: %w", d.service, errNotFound)
		}
		if err != nil {
			return fmt.Errorf("scale %s: %w", d.service, dockerError(err))
		}
		mode := s.Spec.Mode.Replicated
		if mode == nil {
			return fmt.Errorf("scale %s: not a replicated service", d.service)
		}
		current := 1
		if mode.Replicas != nil {
			current = int(*mode.Replicas)
		}
		wanted := decide(current)
		if wanted == current {
			return nil
		}
		if rolling(s.UpdateStatus) && current > 0 {
			return fmt.Errorf("scale %s from %d to %d: %w", d.service, current, wanted, scale.ErrRollout)
		}
		replicas := uint64(max(wanted, 0))
		mode.Replicas = &replicas
		// The registry's credentials stay as they are.
		_, err = p.docker.ServiceUpdate(ctx, s.ID, s.Version, s.Spec, swarm.ServiceUpdateOptions{RegistryAuthFrom: swarm.RegistryAuthFromSpec})
		if err == nil {
			return nil
		}
		if isNotFound(err) { // removed since it was read
			return fmt.Errorf("scale %s: %w", d.service, errNotFound)
		}
		if !strings.Contains(err.Error(), "update out of sequence") {
			return fmt.Errorf("scale %s from %d to %d: %w", d.service, current, wanted, dockerError(err))
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	return fmt.Errorf("scale %s: changed by others %d times in a row", d.service, scaleAttempts)
}
