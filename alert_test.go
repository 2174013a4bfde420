package main

import (
	"testing"
	"testing/synctest"
	"time"

	"faas/internal/scale"
)

func TestAlertReplicas(t *testing.T) {
	for _, c := range []struct {
		min, max, factor, current int
		firing                    bool
		want                      int
	}{
		{1, 20, 20, 1, true, 5},
		{1, 20, 20, 18, true, 20},
		{1, 20, 20, 20, true, 20},
		{1, 5, 20, 1, true, 2},
		{1, 4, 20, 1, true, 2}, // 20 % of 4 is less than one
		{2, 20, 20, 9, false, 2},
		{0, 20, 20, 9, false, 1},
		{1, 20, 0, 3, true, 3}, // factor 0: no scaling
		{3, 3, 20, 3, true, 3},
		{1, 20, 100, 0, true, 20},
		{1, 5, 20, 9, true, 9}, // more than the maximum, by hand: an alert lowers nothing
	} {
		s := scale.Limits{Kind: scale.Capacity, Target: 10, Min: c.min, Max: c.max, Factor: c.factor}
		if got := alertReplicas(s, c.current, c.firing); got != c.want {
			t.Errorf("%+v: got %d", c, got)
		}
	}
}

func TestAlertsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAlerts(time.Now)
		a.set("f", true)
		if !a.fires("f") || a.fires("g") {
			t.Error("got another alert than f's")
		}
		a.set("f", false)
		if a.fires("f") {
			t.Error("still fires after it was resolved")
		}
		a.set("f", true)
		time.Sleep(alertHold + time.Second)
		if a.fires("f") {
			t.Error("still fires long after it was last heard of")
		}
	})
}
