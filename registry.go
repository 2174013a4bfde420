package main

// What functions there are: an immutable snapshot, kept fresh from the
// provider, and where their replicas are.

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	refreshInterval = time.Second            // between look-ups of the replicas of a function in use
	lookupTimeout   = 250 * time.Millisecond // of the addresses of a function
	pollTimeout     = 50 * time.Millisecond  // the same while callers wait: a hanging look-up finds nothing
	pollPause       = 10 * time.Millisecond  // between those
	resyncInterval  = 30 * time.Second       // between lists without an event
	apiTimeout      = 20 * time.Second       // of a question to the provider
	maxLookups      = 64                     // at once
	maxDue          = 10000                  // look-ups that can be due
)

// A snapshot is all that routing reads. It never changes.
type snapshot struct {
	functions map[string]*function
	defs      []definition // by age, then name
	routes    *routeTable
	alexa     *alexaIndex
	claims    []claim // what functions ask for in routes and alexa and do not have
}

// A registry holds the current snapshot. Its zero value is not usable.
type registry struct {
	provider  provider
	metrics   *metrics
	log       *slog.Logger
	closeIdle func(addr string) // forget the connections to a replica that left
	answering func()            // the provider answers again after an outage; may be nil
	dial      dialFunc

	alexaRoute string // no function's route; "/" or "" is none

	current  atomic.Pointer[snapshot]
	changes  chan struct{}
	lookups  chan *function
	problems map[string]bool // logged already; of load alone

	outage atomic.Pointer[time.Time] // since when the provider does not answer
}

func newRegistry(p provider, log *slog.Logger) *registry {
	r := &registry{
		provider: p,
		log:      log,
		changes:  make(chan struct{}, 1),
		lookups:  make(chan *function, maxDue),
		problems: map[string]bool{},
	}
	r.current.Store(&snapshot{routes: new(routeTable), alexa: new(alexaIndex)})
	return r
}

// function returns nil for a name that is none.
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
func (r *registry) scalables() []scalable {
	functions := r.functions()
	all := make([]scalable, len(functions))
	for i, f := range functions {
		all[i] = f
	}
	return all
}

// scaled counts a change of a function's wanted replicas.
func (r *registry) scaled(name string, from, to int, reason string) {
	if f := r.function(name); f != nil {
		f.metrics.scaled(from, to, reason)
	}
}

// run keeps the snapshot and the replicas of functions in use fresh until ctx
// is done.
func (r *registry) run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { r.watch(ctx) })
	wg.Go(func() { r.resync(ctx) })
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
				if !more || sleep(ctx, pollPause) != nil {
					f.refreshing.Store(false)
					// Who came to wait a moment ago found this look-up under way.
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

// watch tells resync about changes, as long as there is a subscription.
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

// resync lists after each change, and from time to time, as events can be
// lost. Without an answer the last snapshot serves on.
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
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	defs, err := r.provider.list(ctx)
	if err != nil {
		r.metrics.providerUp.Set(0)
		if r.outage.Load() == nil {
			now := time.Now()
			r.outage.Store(&now)
			r.log.Warn("the provider does not answer; the functions known so far are served on", "error", err)
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
		}
		// A name that no service had until now may be stored at once: nobody
		// reads a function that is in no snapshot.
		if was := f.def.Load(); was == nil || !reflect.DeepEqual(*was, d) {
			f.def.Store(&d)
		}
		next.functions[d.name] = f
		next.defs = append(next.defs, d)
	}

	if slices.EqualFunc(old.defs, next.defs, sameWays) && old.routes != nil {
		next.routes, next.alexa, next.claims = old.routes, old.alexa, old.claims
	} else {
		routes, routeClaims := newRouteTable(next.defs, r.alexaRoute)
		alexa, alexaClaims := newAlexaIndex(next.defs)
		next.routes, next.alexa, next.claims = routes, alexa, slices.Concat(routeClaims, alexaClaims)
	}
	for _, c := range next.claims {
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

// sameWays reports whether two definitions claim the same ways in: then the
// tables of these, which take a while to make of many, stay as they are.
func sameWays(a, b definition) bool {
	return a.name == b.name && a.service == b.service && a.created.Equal(b.created) &&
		slices.Equal(a.routes, b.routes) && slices.Equal(a.intents, b.intents) && slices.Equal(a.applications, b.applications)
}

// report logs the problems that are new and forgets those that are gone.
func (r *registry) report(problems []string) {
	known := make(map[string]bool, len(problems))
	for _, p := range problems {
		known[p] = true
		if !r.problems[p] {
			r.log.Warn("a function does not get what it asks for", "problem", p)
		}
	}
	r.problems = known
}

// remove lets go of a function that no snapshot holds any more. What is in
// flight ends in its own time.
func (r *registry) remove(f *function) {
	f.gone.Store(true)
	f.admission.release()
	for _, addr := range f.balancer.update(nil) {
		r.closeIdle(addr)
	}
	f.metrics.remove()
}

// refresh has the function's replicas looked up soon. It never blocks; when
// too many look-ups are due, the next caller asks again.
func (r *registry) refresh(f *function) {
	if !f.refreshing.CompareAndSwap(false, true) {
		return
	}
	select {
	case r.lookups <- f:
	default:
		f.refreshing.Store(false)
	}
}

// lookUp brings the function's replicas up to date, and reports whether callers
// still wait for one.
func (r *registry) lookUp(ctx context.Context, f *function) (more bool) {
	if f.gone.Load() {
		f.admission.release() // who came to stand in line as it was removed
		return false
	}
	_, waiting := f.admission.counts()
	timeout := lookupTimeout
	if waiting > 0 {
		timeout = pollTimeout
	}
	look, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	addrs, err := r.provider.addresses(look, f.definition())
	f.refreshed.Store(int64(sinceEpoch()))
	if err != nil && !f.balancer.allFailed() {
		for _, known := range f.balancer.replicas() {
			addrs = append(addrs, known.addr)
		}
	}
	if waiting > 0 {
		addrs = r.accepting(ctx, addrs)
	}
	for _, addr := range f.balancer.update(addrs) {
		r.closeIdle(addr)
	}
	r.probe(ctx, f)
	if len(addrs) == 0 {
		return waiting > 0
	}
	if waited := f.admission.release(); waited > 0 {
		f.metrics.waited(waited)
		r.log.Info("function has replicas", "function", f.name, "replicas", len(addrs), "waited", waited.Round(time.Millisecond))
	}
	return false
}

// accepting returns those of addrs that accept a connection now: a task is
// known before its process listens.
func (r *registry) accepting(ctx context.Context, addrs []string) []string {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	accepted := make(chan string, len(addrs))
	var wg sync.WaitGroup
	for _, addr := range addrs {
		wg.Go(func() {
			if conn, err := r.dial(ctx, "tcp", addr); err == nil {
				conn.Close()
				accepted <- addr
				// The first releases the callers; who comes a little later is
				// found by the next look-up.
				time.AfterFunc(5*time.Millisecond, cancel)
			}
		})
	}
	wg.Wait()
	close(accepted)
	var ready []string
	for addr := range accepted {
		ready = append(ready, addr)
	}
	return ready
}

// probe tries the ejected replicas whose time has come and the doubted ones, so
// that no caller has to.
func (r *registry) probe(ctx context.Context, f *function) {
	due := f.balancer.due(time.Now())
	if len(due) == 0 {
		return
	}
	var wg sync.WaitGroup
	for _, rep := range due {
		wg.Go(func() {
			conn, err := r.dial(ctx, "tcp", rep.addr)
			if err != nil {
				f.balancer.failed(rep, time.Now())
				return
			}
			conn.Close()
			f.balancer.reached(rep, time.Now())
		})
	}
	wg.Wait()
}

// A backoff grows from first to most, each time by half to twice as much.
type backoff struct{ first, most, last time.Duration }

func (b *backoff) next() time.Duration {
	b.last = min(max(b.first, b.last+b.last/2+rand.N(b.last/2+1)), b.most)
	return b.last
}

func (b *backoff) reset() { b.last = 0 }
