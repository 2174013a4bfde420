package main

// The overview: everything that a list of functions shows, out of the gateway's
// memory. It asks nobody, so that it may be asked for every other second.

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"
)

const (
	// Functions that nobody calls are looked up while somebody looks at them.
	overviewStale = 5 * time.Second

	explainPause = 2 * time.Second // between two questions for what keeps a function from being ready
	explainFor   = 3 * explainPause
	maxExplained = 4 // questions at once
)

// The states of a function: a closed set.
const (
	stateReady    = "ready"    // it has a replica
	stateStarting = "starting" // it has none yet
	stateFailing  = "failing"  // it has none, and waiting does not help
	stateAsleep   = "asleep"   // it wants none until it is called
	stateStopped  = "stopped"  // it wants none, and a call does not change that
)

// An overview is the gateway's.
type overview struct {
	Provider  string             `json:"provider"` // local or swarm
	Version   string             `json:"version"`
	Network   string             `json:"network,omitempty"` // of functions, on Swarm
	Can       abilities          `json:"can"`
	Problem   string             `json:"problem,omitempty"` // of the gateway itself
	Functions []functionOverview `json:"functions"`
}

// abilities are what this gateway can do, and the caller may.
type abilities struct {
	Write   bool `json:"write"` // change anything at all
	Deploy  bool `json:"deploy"`
	Secrets bool `json:"secrets"`
	Logs    bool `json:"logs"`
	Async   bool `json:"async"`
}

// A functionOverview is one function in it.
type functionOverview struct {
	Name     string              `json:"name"`
	State    string              `json:"state"`
	Reason   string              `json:"reason,omitempty"` // why it has no replica
	Ready    int                 `json:"ready"`
	Wanted   int                 `json:"wanted"`
	Fixed    bool                `json:"fixed,omitempty"` // how many replicas there are is not for the gateway to say
	Rollout  bool                `json:"rollout,omitempty"`
	InFlight int                 `json:"inFlight"`
	Waiting  int                 `json:"waiting"`
	Calls    float64             `json:"calls"` // per second, in the last 10 s
	Failures float64             `json:"failures"`
	P50      float64             `json:"p50"` // seconds, in the last minute
	P99      float64             `json:"p99"`
	Curve    []uint64            `json:"curve,omitempty"` // calls in each 10 s of the last five minutes
	Failed   []uint64            `json:"failed,omitempty"`
	Ways     map[string][]string `json:"ways,omitempty"`     // by label: routes, intents
	Problems []string            `json:"problems,omitempty"` // of its labels
}

func (a *api) overview(w http.ResponseWriter, r *http.Request, call *apiCall) error {
	name := r.URL.Query().Get("name")
	if name != "" {
		f, err := a.function(name, inNamespace(r, ""))
		if err != nil {
			return err
		}
		name = f.name
	}
	o := overview{
		Provider: strings.TrimPrefix(a.name, "faas-"), Version: thisBuild.Version, Network: a.network,
		Can: abilities{Write: !call.Reads, Async: a.async != nil}, Functions: []functionOverview{},
	}
	_, o.Can.Deploy = a.provider.(deployer)
	_, o.Can.Secrets = a.provider.(secretStore)
	_, o.Can.Logs = a.provider.(logSource)
	if since := a.registry.outage.Load(); since != nil {
		o.Problem = "The provider of functions has not answered since " + since.UTC().Format(time.RFC3339) + ": what is shown is from before."
	}
	rejected := map[string][]string{}
	for _, c := range a.registry.current.Load().indexes.rejected {
		rejected[c.name] = append(rejected[c.name], c.String())
	}
	for _, f := range a.registry.functions() {
		if name == "" || name == f.name {
			o.Functions = append(o.Functions, a.functionOverview(f, rejected[f.name]))
		}
	}
	slices.SortFunc(o.Functions, func(x, y functionOverview) int { return strings.Compare(x.Name, y.Name) })
	return a.answer(w, http.StatusOK, o)
}

func (a *api) functionOverview(f *function, rejected []string) functionOverview {
	d, now := f.definition(), time.Now()
	if ready := f.balancer.ready(); f.staleBy(now, overviewStale) || ready != d.replicas && f.stale(now) {
		a.registry.refresh(f)
	}
	past := f.past()
	o := functionOverview{
		Name: f.name, Ready: f.balancer.ready(), Wanted: max(d.replicas, 0), Fixed: d.scale.Fixed, Rollout: d.rollout,
		Calls: past.calls, Failures: past.failures, P50: past.p50.Seconds(), P99: past.p99.Seconds(), Curve: past.curve, Failed: past.failed,
		Ways: d.claims, Problems: slices.Concat(d.problems, rejected),
	}
	o.InFlight, o.Waiting = f.admission.counts()
	t := a.registry.explained(f, o.Ready, now)
	switch {
	case o.Ready > 0 && !t.isFailing():
		o.State = stateReady
	case o.Wanted == 0 && !d.scale.Scales() && !d.scale.Fixed:
		o.State = stateStopped
	case o.Wanted == 0 && !d.scale.Fixed:
		o.State = stateAsleep
	case t.isFailing():
		o.State, o.Reason = stateFailing, t.reason
	default:
		o.State = stateStarting
		if t != nil {
			o.Reason = t.reason
		}
	}
	return o
}

// An explanation is what the provider said of a function.
type explanation struct {
	trouble *trouble // nil: it knows of none
	at      time.Time
}

// explained returns what is known to keep f from being ready, and has the provider
// asked in the background. A replica that keeps crashing is ready for a moment each
// time: so the last answer counts for a while, and is asked for again.
func (r *registry) explained(f *function, ready int, now time.Time) *trouble {
	e := f.explanation.Load()
	if e != nil && now.Sub(e.at) > explainFor {
		e = nil
	}
	if (ready > 0 || f.definition().replicas == 0) && (e == nil || !e.trouble.isFailing()) {
		return nil
	}
	if (e == nil || now.Sub(e.at) >= explainPause) && f.explaining.CompareAndSwap(false, true) {
		select {
		case r.unexplained <- f:
		default:
			f.explaining.Store(false)
		}
	}
	if e == nil {
		return nil
	}
	return e.trouble
}

// explain answers such questions until ctx is done.
func (r *registry) explain(ctx context.Context) {
	for {
		select {
		case f := <-r.unexplained:
			ask, cancel := context.WithTimeout(ctx, troubleTimeout)
			t, err := r.trouble(ask, f.definition())
			cancel()
			if err != nil {
				r.log.Debug("trouble unknown", "function", f.name, "error", err)
			}
			f.explanation.Store(&explanation{t, time.Now()})
			f.explaining.Store(false)
		case <-ctx.Done():
			return
		}
	}
}
