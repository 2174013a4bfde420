package main

// Functions over the API: what there is, and making, changing, scaling and
// removing it.

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"faas/internal/deployment"
	"faas/internal/scale"
)

// A describer tells what it knows of functions besides their definitions: the
// image, and what else was deployed.
type describer interface {
	// describe returns the status of each function by its service. One that
	// was removed meanwhile is left out.
	describe(ctx context.Context, defs []definition) (map[string]deployment.Status, error)
}

// A deployer makes functions.
type deployer interface {
	// deploy makes a function. errExists: there is one of that name.
	deploy(ctx context.Context, dep deployment.Deployment) error

	// update changes one. errNotFound; errForeign: the API did not make it.
	update(ctx context.Context, dep deployment.Deployment) error

	// remove ends one. errNotFound; errForeign.
	remove(ctx context.Context, d definition) error
}

func (a *api) list(w http.ResponseWriter, r *http.Request, _ *apiCall) error {
	if ns := inNamespace(r, ""); ns != "" && ns != a.namespace {
		return a.answer(w, http.StatusOK, []deployment.Status{})
	}
	functions := a.registry.functions()
	slices.SortFunc(functions, func(x, y *function) int { return strings.Compare(x.name, y.name) })
	list, err := a.statuses(r.Context(), functions)
	if err != nil {
		return err
	}
	return a.answer(w, http.StatusOK, list)
}

func (a *api) describe(w http.ResponseWriter, r *http.Request, call *apiCall) error {
	f, err := a.function(r.PathValue("name"), inNamespace(r, ""))
	if err != nil {
		return err
	}
	list, err := a.statuses(r.Context(), []*function{f})
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return fmt.Errorf("describe %s: %w", f.name, errNotFound)
	}
	return a.answer(w, http.StatusOK, list[0])
}

// reasonsTime is how long an answer waits for what keeps functions from being
// ready: each costs a question. Where many are without a replica, the rest of
// them are shown without a reason.
const reasonsTime = 3 * time.Second

// statuses are what is shown of functions, without those that are gone.
func (a *api) statuses(ctx context.Context, functions []*function) ([]deployment.Status, error) {
	defs := make([]definition, len(functions))
	for i, f := range functions {
		defs[i] = f.definition()
	}
	var known map[string]deployment.Status
	from, describes := a.provider.(describer)
	if describes {
		var err error
		if known, err = from.describe(ctx, defs); err != nil {
			return nil, err
		}
	}
	ask, cancel := context.WithTimeout(ctx, reasonsTime)
	defer cancel()
	list := make([]deployment.Status, 0, len(functions))
	for i, f := range functions {
		if f.balancer.ready() != defs[i].replicas && f.stale(time.Now()) {
			a.registry.refresh(f) // for who asks again
		}
		s, ok := known[defs[i].service]
		if !ok && describes {
			continue
		}
		if !ok {
			s = (&deployment.Deployment{}).Status()
			s.CreatedAt = defs[i].created
		}
		s.Name, s.Namespace = f.name, a.namespace
		s.Labels["faas_function"] = f.name
		// Those that the provider calls ready: nobody may have called them yet.
		s.Replicas, s.AvailableReplicas = uint64(max(defs[i].replicas, 0)), uint64(f.balancer.ready())
		s.InvocationCount = float64(f.metrics.tally.calls.Load())
		if s.AvailableReplicas == 0 && s.Replicas > 0 {
			s.Reason = a.reason(ask, defs[i])
		}
		list = append(list, s)
	}
	return list, nil
}

// reason says why a function has no ready replica, as far as the provider
// knows.
func (a *api) reason(ctx context.Context, d definition) string {
	from, ok := a.provider.(troubleshooter)
	if !ok {
		return ""
	}
	t, err := from.trouble(ctx, d)
	if err != nil || t == nil {
		return ""
	}
	return t.reason
}

func (a *api) deployer() (deployer, error) {
	if d, ok := a.provider.(deployer); ok {
		return d, nil
	}
	return nil, &apiError{http.StatusNotImplemented, "the local provider makes no functions over the API: a function is a command on this machine, which is not for whoever reaches the port; use -function name=command"}
}

// readDeployment reads and checks a deployment.
func (a *api) readDeployment(w http.ResponseWriter, r *http.Request, call *apiCall) (deployment.Deployment, error) {
	var dep deployment.Deployment
	if err := a.read(w, r, maxDeployment, &dep); err != nil {
		return dep, err
	}
	call.subject = dep.Service
	if err := a.checkNamespace(inNamespace(r, dep.Namespace)); err != nil {
		return dep, err
	}
	if err := dep.Check(); err != nil {
		return dep, badRequest(errors.New(strings.ReplaceAll(err.Error(), "\n", "; ")))
	}
	return dep, nil
}

func (a *api) deploy(w http.ResponseWriter, r *http.Request, call *apiCall) error {
	d, err := a.deployer()
	if err != nil {
		return err
	}
	dep, err := a.readDeployment(w, r, call)
	if err != nil {
		return err
	}
	if a.registry.function(dep.Service) != nil {
		return badRequest(fmt.Errorf("function %q: %w; PUT updates it", dep.Service, errExists))
	}
	if err := d.deploy(r.Context(), dep); err != nil {
		return err
	}
	a.changed(r.Context())
	w.WriteHeader(http.StatusAccepted)
	return nil
}

func (a *api) update(w http.ResponseWriter, r *http.Request, call *apiCall) error {
	d, err := a.deployer()
	if err != nil {
		return err
	}
	dep, err := a.readDeployment(w, r, call)
	if err != nil {
		return err
	}
	if f := a.registry.function(dep.Service); f != nil && f.definition().service != dep.Service {
		return fmt.Errorf("update %s: %w", dep.Service, errForeign) // a stack's: the service has another name
	}
	if err := d.update(r.Context(), dep); err != nil {
		return err
	}
	a.changed(r.Context())
	w.WriteHeader(http.StatusAccepted)
	return nil
}

type removalBody struct {
	FunctionName string `json:"functionName"`
	Namespace    string `json:"namespace"`
}

func (a *api) remove(w http.ResponseWriter, r *http.Request, call *apiCall) error {
	d, err := a.deployer()
	if err != nil {
		return err
	}
	var body removalBody
	if err := a.read(w, r, maxSmallBody, &body); err != nil {
		return err
	}
	call.subject = body.FunctionName
	if body.FunctionName == "" {
		return badRequest(errors.New("functionName: the function's name is missing"))
	}
	f, err := a.function(body.FunctionName, inNamespace(r, body.Namespace))
	if err != nil {
		return err
	}
	if err := d.remove(r.Context(), f.definition()); err != nil {
		return err
	}
	a.changed(r.Context())
	w.WriteHeader(http.StatusAccepted)
	return nil
}

type scaleBody struct {
	ServiceName string  `json:"serviceName"` // the path decides
	Replicas    *uint64 `json:"replicas"`
	Namespace   string  `json:"namespace"`
}

func (a *api) scale(w http.ResponseWriter, r *http.Request, call *apiCall) error {
	call.subject = r.PathValue("name")
	var body scaleBody
	if err := a.read(w, r, maxSmallBody, &body); err != nil {
		return err
	}
	if body.Replicas == nil || *body.Replicas > scale.MaxReplicas {
		return badRequest(fmt.Errorf("replicas: want a whole number from 0 to %d", scale.MaxReplicas))
	}
	f, err := a.function(call.subject, inNamespace(r, body.Namespace))
	if err != nil {
		return err
	}
	if f.definition().scale.Fixed {
		return &apiError{http.StatusConflict, fmt.Sprintf("function %q has a fixed set of replicas", f.name)}
	}
	wanted := int(*body.Replicas)
	if err := a.provider.scale(r.Context(), f.definition(), func(int) int { return wanted }); err != nil {
		return err
	}
	a.changed(r.Context())
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// changed brings the registry up to date, so that the next request shows what
// this one did. Where that fails the registry's own loop sees to it.
func (a *api) changed(ctx context.Context) {
	if err := a.registry.load(ctx); err != nil {
		a.log.Debug("list the functions after a change", "error", err)
	}
}
