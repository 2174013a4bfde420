package main

// Which functions there are and what their labels ask for, as the gateway's
// API tells. Without it calls run all the same, by the default rules.

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxFunctionList = 16 << 20 // bytes
	listTimeout     = 10 * time.Second

	// listFresh is how old a list may be by which a call is refused.
	listFresh = time.Minute

	// refreshGap is the least time between two looks that callers cause.
	refreshGap = time.Second
)

// A function is what faas-async knows of one. It is immutable.
type function struct {
	name      string
	rules     retryRules
	schedules []schedule
	grace     time.Duration // for schedules that were missed
	topics    []string
	problems  []string // labels that did not parse: their defaults hold
}

// A list is what the gateway said at one time.
type list struct {
	functions map[string]*function
	at        time.Time // zero: it never said anything
}

// functions is the list and how it is kept up to date.
type functions struct {
	url       string
	namespace string
	auth      *auth
	client    *http.Client
	metrics   *metrics
	log       *slog.Logger

	current atomic.Pointer[list]

	mu       sync.Mutex // held while the gateway is asked
	trouble  string     // what went wrong last, logged once
	reported map[string]bool
}

func newFunctions(c *config, a *auth, client *http.Client, m *metrics, log *slog.Logger) *functions {
	f := &functions{
		url: c.gateway.String() + "/system/functions", namespace: c.namespace,
		auth: a, client: client, metrics: m, log: log, reported: map[string]bool{},
	}
	f.current.Store(&list{})
	return f
}

// run asks the gateway now and then until ctx ends.
func (f *functions) run(ctx context.Context, every time.Duration) error {
	for {
		f.refresh(ctx, 0)
		if err := sleep(ctx, every); err != nil {
			return err
		}
	}
}

// refresh asks the gateway, unless the list is younger than gap.
func (f *functions) refresh(ctx context.Context, gap time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if gap > 0 && time.Since(f.current.Load().at) < gap {
		return
	}
	fresh, err := f.ask(ctx)
	trouble := ""
	if err != nil {
		if ctx.Err() != nil {
			return
		}
		trouble = err.Error()
	}
	if trouble != f.trouble {
		if err != nil {
			f.log.Warn("the gateway does not list its functions: labels are not known", "error", err)
		} else {
			f.log.Info("the gateway lists its functions", "functions", len(fresh.functions))
		}
		f.trouble = trouble
	}
	if err == nil {
		f.current.Store(fresh)
		f.report(fresh)
	}
}

func (f *functions) ask(ctx context.Context) (*list, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url, nil)
	if err != nil {
		return nil, fmt.Errorf("list functions: %w", err)
	}
	if user, password, ok := f.auth.credentials(); ok {
		req.SetBasicAuth(user, password)
	}
	resp, err := f.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("list functions: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		io.Copy(io.Discard, io.LimitReader(resp.Body, keptAnswer))
		return nil, fmt.Errorf("list functions: the gateway answers %s", resp.Status)
	}
	var statuses []struct {
		Name        string            `json:"name"`
		Labels      map[string]string `json:"labels"`
		Annotations map[string]string `json:"annotations"`
	}
	body := http.MaxBytesReader(nil, resp.Body, maxFunctionList)
	if err := json.NewDecoder(body).Decode(&statuses); err != nil {
		return nil, fmt.Errorf("list functions: %w", err)
	}
	fresh := &list{functions: make(map[string]*function, len(statuses)), at: time.Now()}
	for _, s := range statuses {
		if validName(s.Name) {
			fresh.functions[s.Name] = newFunction(s.Name, s.Labels, s.Annotations)
		}
	}
	return fresh, nil
}

// newFunction reads what labels and annotations ask for; a label wins over the
// annotation of the same name.
func newFunction(name string, labels, annotations map[string]string) *function {
	f := &function{name: name}
	get := func(key string) (string, bool) {
		if v, ok := labels[key]; ok {
			return v, true
		}
		v, ok := annotations[key]
		return v, ok
	}
	f.rules = parseRetryRules(get, f.problem)
	f.schedules, f.grace = parseSchedules(get, f.problem)
	f.topics = parseTopics(get, f.problem)
	return f
}

func (f *function) problem(label string, err error) {
	f.problems = append(f.problems, fmt.Sprintf("%s: %v", label, err))
}

// report logs and counts each bad label once.
func (f *functions) report(l *list) {
	now := map[string]bool{}
	for name, fn := range l.functions {
		for _, p := range fn.problems {
			key := name + " " + p
			now[key] = true
			if !f.reported[key] {
				f.log.Warn("a label cannot be used, its default holds", "function", name, "problem", p)
				f.metrics.labelErrors.Inc()
			}
		}
	}
	f.reported = now
}

// find returns what is known of a function; one that is not known gets the
// defaults.
func (f *functions) find(name string) *function {
	if fn := f.current.Load().functions[name]; fn != nil {
		return fn
	}
	return &function{name: name, rules: defaultRetryRules()}
}

// resolve returns the name of the function that a caller means by
// NAME[.NAMESPACE]. exists is false only if the gateway has just said that
// there is none.
func (f *functions) resolve(ctx context.Context, written string) (name string, exists bool) {
	l := f.current.Load()
	name, ok := l.lookup(written, f.namespace)
	if !ok && !l.at.IsZero() {
		f.refresh(ctx, refreshGap) // it may be new
		l = f.current.Load()
		name, ok = l.lookup(written, f.namespace)
	}
	return name, ok || time.Since(l.at) > listFresh
}

func (l *list) lookup(written, namespace string) (name string, ok bool) {
	if l.functions[written] != nil {
		return written, true
	}
	if short, has := strings.CutSuffix(written, "."+namespace); has {
		return short, l.functions[short] != nil
	}
	return written, false
}

// missing tells whether the gateway says that there is no such function.
func (f *functions) missing(name string) bool {
	l := f.current.Load()
	return time.Since(l.at) < listFresh && l.functions[name] == nil
}
