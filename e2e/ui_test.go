package e2e

// The page of a gateway on the Swarm, in a browser. The tests themselves are in
// ui/swarm, and run by Node.js.

import (
	"sync"
	"testing"

	"faas/e2e/nodetest"
)

func TestUI(t *testing.T) {
	l := useLab(t)
	chromium := nodetest.Program(t, "chromium")
	const next = "faas-e2e/cat:ui"
	var wg sync.WaitGroup
	for _, n := range l.nodes {
		wg.Go(func() {
			if _, err := n.tryDocker(t.Context(), "tag", catImage, next); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	c := startAPI(t, l.node(1))
	createFunction(t, l, "catservice", catImage)
	for _, name := range []string{"uilife", "nosuch", "uidocker"} {
		c.removeLater(t, name) // where a test has ended early
	}
	nodetest.Run(t, "ui", "swarm/*.test.js", append(l.node(1).dockerCommand(t.Context()).Env, "CHROMIUM="+chromium, "PAGE="+c.gateway.url+"/ui/",
		"API_USER="+apiUser, "API_PASSWORD="+apiPassword, "IMAGE="+catImage, "NEXT_IMAGE="+next))
}
