package main

// The known functions: an immutable snapshot, kept up to date from the provider,
// and the addresses of their replicas.

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"faas/internal/naming"
	"faas/internal/scale"
	"faas/internal/transport"
)

const (
	resyncInterval = 30 * time.Second // between lists without an event
	apiTimeout     = 20 * time.Second // of a question to the provider
)

// A snapshot is all that routing reads. It is immutable.
type snapshot struct {
	functions map[string]*function
	defs      []definition // by age, then name
	indexes   *indexes
}

// A registry holds the current snapshot. Its zero value is not usable.
type registry struct {
	provider  provider
	metrics   *metrics
	log       *slog.Logger
	closeIdle func(addr string) // forget the connections to a replica that left
	answering func()            // the provider answers again after an outage; may be nil
	dial      transport.DialFunc
	gateways  *gateways // that have the same functions; nil: there are no others

	config *config // for the indexes

	current     atomic.Pointer[snapshot]
	changes     chan struct{}
	lookups     chan *function
	questions   chan *function  // whose trouble is to be asked for
	unexplained chan *function  // likewise, as somebody looks at it
	loading     sync.Mutex      // of load
	problems    map[string]bool // logged already; of load alone

	outage atomic.Pointer[time.Time] // since when the provider does not answer
}

func newRegistry(c *config, p provider, log *slog.Logger) *registry {
	r := &registry{
		config:      c,
		provider:    p,
		log:         log,
		changes:     make(chan struct{}, 1),
		lookups:     make(chan *function, maxDue),
		questions:   make(chan *function, maxDue),
		unexplained: make(chan *function, maxDue),
		problems:    map[string]bool{},
	}
	r.current.Store(&snapshot{indexes: newIndexes(c, nil, nil)})
	return r
}

// function returns nil for an unknown name.
func (r *registry) function(name string) *function { return r.current.Load().functions[name] }

// functions returns every function, by age.
func (r *registry) functions() []*function {
	s := r.current.Load()
	all := make([]*function, 0, len(s.defs))
	for i := range s.defs {
		all = append(all, s.functions[s.defs[i].name])
	}
	return all
}

// scalables returns every function for the autoscaler.
func (r *registry) scalables() []scale.Function {
	functions := r.functions()
	all := make([]scale.Function, len(functions))
	for i, f := range functions {
		all[i] = f
	}
	return all
}

// Scale has the provider set the number of a function's replicas. It returns
// scale.ErrNotFound if the function has gone or another has taken its name.
func (r *registry) Scale(ctx context.Context, s scale.State, decide func(current int) int) error {
	f := r.function(s.Name)
	if f == nil {
		return fmt.Errorf("scale %s: %w", s.Name, errNotFound)
	}
	d := f.definition()
	if d.service != s.Service || !d.created.Equal(s.Created) {
		return fmt.Errorf("scale %s: %w", s.Name, errNotFound)
	}
	return r.provider.scale(ctx, d, decide)
}

// scaled counts a change of a function's wanted replicas.
func (r *registry) scaled(name string, from, to int, reason string) {
	if f := r.function(name); f != nil {
		f.noteSet(to)
		f.metrics.scaled(from, to, reason)
	}
}

// run keeps the snapshot and the replicas of functions in use fresh until ctx
// is done.
func (r *registry) run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { r.watch(ctx) })
	wg.Go(func() { r.resync(ctx) })
	for range maxQuestions {
		wg.Go(func() { r.troubleshoot(ctx) })
	}
	for range maxExplained {
		wg.Go(func() { r.explain(ctx) })
	}
	wg.Go(func() { r.remember(ctx) })
	slots := make(chan struct{}, maxLookups)
	for {
		select {
		case f := <-r.lookups:
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				continue
			}
			wg.Go(func() {
				more := r.lookUp(ctx, f)
				<-slots
				pause := pollPause
				if f.admission.failing() {
					pause = failingPoll
				}
				if !more || sleep(ctx, pause) != nil {
					f.refreshing.Store(false)
					// A caller that has just begun to wait found this lookup in
					// progress.
					if _, waiting := f.admission.counts(); waiting > 0 {
						r.refresh(f)
					}
					return
				}
				select {
				case r.lookups <- f:
				case <-ctx.Done():
				}
			})
		case <-ctx.Done():
			wg.Wait()
			return
		}
	}
}

// watch notifies resync of changes while there is a subscription.
func (r *registry) watch(ctx context.Context) {
	b := backoff{first: 250 * time.Millisecond, most: 10 * time.Second}
	for {
		began := time.Now()
		err := r.provider.watch(ctx, func() {
			select {
			case r.changes <- struct{}{}:
			default:
			}
		})
		if ctx.Err() != nil {
			return
		}
		r.log.Debug("watch ended", "error", err)
		if time.Since(began) > b.most {
			b.reset()
		}
		if sleep(ctx, b.next()) != nil {
			return
		}
	}
}

// resync lists after each change, and from time to time, as events can be lost. If
// the provider does not answer, the last snapshot stays in use.
func (r *registry) resync(ctx context.Context) {
	b := backoff{first: 500 * time.Millisecond, most: 10 * time.Second}
	wait := resyncInterval
	for {
		timer := time.NewTimer(wait)
		select {
		case <-r.changes:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
		if err := r.load(ctx); err != nil && ctx.Err() == nil {
			wait = b.next()
			continue
		}
		b.reset()
		wait = resyncInterval - rand.N(resyncInterval/4)
	}
}

// load lists the functions once and makes a snapshot of them. Every function's
// replicas are looked up afterwards, in the background.
func (r *registry) load(ctx context.Context) error {
	r.loading.Lock()
	defer r.loading.Unlock()
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	defs, err := r.provider.list(ctx)
	if err != nil {
		r.metrics.providerUp.Set(0)
		if r.outage.Load() == nil {
			now := time.Now()
			r.outage.Store(&now)
			r.log.Warn("the provider does not answer: the known functions are still served", "error", err)
		}
		return err
	}
	r.metrics.providerUp.Set(1)
	r.metrics.providerSeen.SetToCurrentTime()
	if since := r.outage.Swap(nil); since != nil {
		r.log.Info("the provider answers again", "outage", time.Since(*since).Round(time.Millisecond))
		if r.answering != nil {
			r.answering()
		}
	}
	r.apply(defs)
	return nil
}

// apply makes defs the current snapshot. Of two functions with one name the
// older keeps it.
func (r *registry) apply(defs []definition) {
	slices.SortStableFunc(defs, func(a, b definition) int {
		return cmp.Or(a.created.Compare(b.created), cmp.Compare(a.service, b.service))
	})
	old := r.current.Load()
	next := &snapshot{functions: make(map[string]*function, len(defs))}
	var problems []string
	labelErrors, conflicts := 0, 0
	for _, d := range defs {
		for _, p := range d.problems {
			problems = append(problems, fmt.Sprintf("service %s: %s", d.service, p))
			if !r.problems[problems[len(problems)-1]] {
				labelErrors++
			}
		}
		if taken := next.functions[d.name]; taken != nil {
			problems = append(problems, fmt.Sprintf("service %s: the name %q belongs to service %s, which is older", d.service, d.name, taken.definition().service))
			conflicts++
			continue
		}
		f := old.functions[d.name]
		if f == nil {
			f = &function{name: d.name, metrics: r.metrics.function(d.name)}
			r.gateways.meet(f)
		}
		// A new name may be stored at once: nobody reads a function that is in no
		// snapshot.
		if was := f.def.Load(); was == nil || !reflect.DeepEqual(*was, d) {
			f.def.Store(&d)
		}
		next.functions[d.name] = f
		next.defs = append(next.defs, d)
	}

	next.indexes = newIndexes(r.config, next.defs, old.indexes)
	for _, c := range next.indexes.rejected {
		problem := c.String()
		problems = append(problems, problem)
		if c.conflict() {
			conflicts++
		} else if !r.problems[problem] {
			labelErrors++
		}
	}
	r.report(problems)
	r.metrics.labelErrors.Add(float64(labelErrors))
	r.metrics.routeProblems.Set(float64(conflicts))
	r.current.Store(next)
	for name, f := range old.functions {
		if next.functions[name] == nil {
			r.remove(f)
		}
	}
	for _, f := range next.functions {
		r.refresh(f)
	}
}

// report logs the problems that are new and forgets those that are gone.
func (r *registry) report(problems []string) {
	known := make(map[string]bool, len(problems))
	for _, p := range problems {
		known[p] = true
		if !r.problems[p] {
			r.log.Warn("label rejected", "problem", p)
		}
	}
	r.problems = known
}

// remove drops a function that no snapshot holds any more. Requests in flight may
// finish.
func (r *registry) remove(f *function) {
	f.gone.Store(true)
	f.admission.release()
	for _, addr := range f.balancer.update(nil) {
		r.closeIdle(addr)
	}
	f.metrics.remove()
}

// named finds a function by its name, or by its name and the namespace.
func (r *registry) named(name string) *function {
	if !naming.IsFunction(name) {
		return nil
	}
	if f := r.function(name); f != nil {
		return f
	}
	if bare, ok := strings.CutSuffix(name, "."+r.config.namespace); ok && r.config.namespace != "" {
		return r.function(bare)
	}
	return nil
}
