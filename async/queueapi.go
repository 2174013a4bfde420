package main

// The queue over HTTP, at /system/async/queue: what the survey and the workers
// have put into the metrics, for a page.

import (
	"cmp"
	"net/http"
	"slices"
)

// A queueStatus says what waits.
type queueStatus struct {
	Functions   []queueLane `json:"functions"` // those with calls that are not over, the most first
	Callbacks   uint64      `json:"callbacks"` // that are not delivered
	DeadLetters uint64      `json:"deadLetters"`
}

type queueLane struct {
	Function      string  `json:"function"`
	Queued        uint64  `json:"queued"`  // not over, those that run included
	Running       uint64  `json:"running"` // from here
	OldestSeconds float64 `json:"oldestSeconds"`
}

// queue answers from the last survey: it asks nobody.
func (m *metrics) queue(w http.ResponseWriter, _ *http.Request) {
	families, err := m.registry.Gather()
	if err != nil {
		refuse(w, http.StatusInternalServerError, "the queue could not be read")
		return
	}
	status := queueStatus{Functions: []queueLane{}}
	lanes := map[string]*queueLane{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			value := metric.GetGauge().GetValue()
			name := ""
			if labels := metric.GetLabel(); len(labels) == 1 {
				name = labels[0].GetValue()
			}
			if lanes[name] == nil {
				lanes[name] = &queueLane{Function: name}
			}
			switch family.GetName() {
			case "async_queued":
				lanes[name].Queued = uint64(value)
			case "async_running":
				lanes[name].Running = uint64(value)
			case "async_oldest_seconds":
				lanes[name].OldestSeconds = value
			case "async_callbacks_queued":
				status.Callbacks += uint64(value)
			case "async_dead_letters":
				status.DeadLetters = uint64(value)
			}
		}
	}
	for _, lane := range lanes {
		if lane.Queued > 0 || lane.Running > 0 {
			status.Functions = append(status.Functions, *lane)
		}
	}
	slices.SortFunc(status.Functions, func(a, b queueLane) int {
		return cmp.Or(cmp.Compare(b.Queued, a.Queued), cmp.Compare(a.Function, b.Function))
	})
	writeJSON(w, http.StatusOK, status)
}
