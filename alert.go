package main

// Scaling by AlertManager: for those who drive it by rules of their own.

import (
	"errors"
	"math"
	"net/http"
	"slices"
	"sync"
	"time"

	"faas/internal/scale"
)

const (
	// AlertManager repeats what still fires, every 4 h by default and at most
	// as often as its group interval; one that fell silent counts no more.
	alertHold = 5 * time.Minute
	maxAlerts = 10_000 // functions held at once

	maxAlertBody = 1 << 20 // AlertManager sends a whole group, with all labels
)

// alerts knows the functions whose alert fires: the autoscaler leaves them
// alone.
type alerts struct {
	now func() time.Time

	mu    sync.Mutex
	until map[string]time.Time // by function
}

func newAlerts(now func() time.Time) *alerts {
	return &alerts{now: now, until: map[string]time.Time{}}
}

func (a *alerts) set(name string, firing bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !firing {
		delete(a.until, name)
	} else if len(a.until) < maxAlerts {
		a.until[name] = a.now().Add(alertHold)
	}
}

// fires reports whether the function is an alert's to scale.
func (a *alerts) fires(name string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.until) == 0 {
		return false // as nearly always, and asked for each function
	}
	until, ok := a.until[name]
	if ok && a.now().After(until) {
		delete(a.until, name)
		return false
	}
	return ok
}

// alertsBody is what the gateway reads of the webhook.
type alertsBody struct {
	Alerts []alertBody `json:"alerts"`
}

type alertBody struct {
	Status string            `json:"status"` // firing or resolved
	Labels map[string]string `json:"labels"`
}

// alert takes AlertManager's webhook: a firing alert adds the function's factor
// in percent of its maximum, a resolved one takes it to its minimum.
func (a *api) alert(w http.ResponseWriter, r *http.Request, call *apiCall) error {
	var body alertsBody
	if err := a.read(w, r, maxAlertBody, &body); err != nil {
		return err
	}
	if len(body.Alerts) == 0 {
		return badRequest(errors.New("alerts: want AlertManager's webhook, with one alert at least"))
	}
	var errs []error
	for _, alert := range body.Alerts {
		f, err := a.function(alert.Labels["function_name"], "")
		if err != nil {
			errs = append(errs, err)
			continue
		}
		call.subject = f.name
		firing := alert.Status != "resolved"
		limits := f.definition().scale
		a.alerts.set(f.name, firing && limits.Scales())
		f.stir()
		err = a.provider.scale(r.Context(), f.definition(), func(current int) int { return alertReplicas(limits, current, firing) })
		if err != nil {
			errs = append(errs, err)
		}
	}
	a.changed(r.Context())
	if i := slices.IndexFunc(errs, func(err error) bool { return !errors.Is(err, errNotFound) }); i >= 0 {
		return errs[i]
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// alertReplicas is how many replicas an alert wants.
func alertReplicas(s scale.Limits, current int, firing bool) int {
	if !s.Scales() {
		return current
	}
	if !firing {
		return max(s.Min, 1)
	}
	step := int(math.Ceil(float64(s.Max) * float64(s.Factor) / 100))
	return max(current, min(current+step, s.Max))
}
