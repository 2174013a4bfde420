package e2e

// Secrets over the control plane: made, mounted, updated, removed.

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

func testSecrets(t *testing.T, c *apiClient) {
	const name, secret = "secretive", "api.key"
	body := func(value string) string { return fmt.Sprintf(`{"name":%q,"value":%q}`, secret, value) }
	c.doIn(t, http.StatusBadRequest, http.MethodPost, "/system/functions", fmt.Sprintf(`{"service":%q,"image":%q,"secrets":[%q]}`, name, catImage, secret))
	c.doIn(t, http.StatusNotFound, http.MethodPut, "/system/secrets", body("none"))
	c.doIn(t, http.StatusCreated, http.MethodPost, "/system/secrets", body("one"))
	c.doIn(t, http.StatusConflict, http.MethodPost, "/system/secrets", body("one"))
	if got, want := strings.TrimSpace(string(c.do(t, http.StatusOK, http.MethodGet, "/system/secrets?namespace="+namespace, ""))),
		`[{"name":"`+secret+`","namespace":"`+namespace+`"}]`; got != want {
		t.Errorf("got secrets %s, want %s", got, want)
	}

	c.removeLater(t, name)
	c.deploy(t, fmt.Sprintf(`{"service":%q,"image":%q,"secrets":[%q],"envProcess":"cat /var/openfaas/secrets/%s /run/secrets/%[3]s"}`, name, catImage, secret, secret))
	began := time.Now()
	c.waitReady(t, name)
	// A rollout takes what a start takes, which is more where the machine does
	// much else.
	newValueWithin := max(5*time.Second, 2*time.Since(began))
	if got, want := c.invoke(t, name, ""), "oneone"; got != want {
		t.Errorf("got %q of the mounted secret, want %q", got, want)
	}

	// The old clients' update, and the file of a new one with bytes that are no text.
	old := &apiClient{gateway: c.gateway, inQuery: true}
	old.doIn(t, http.StatusAccepted, http.MethodPut, "/system/secrets", body("two"))
	c.seesValue(t, name, "twotwo", newValueWithin)
	binary := "\x00\xff three"
	c.doIn(t, http.StatusAccepted, http.MethodPut, "/system/secrets", fmt.Sprintf(`{"name":%q,"value":"\u0000\ufffd three","rawValue":%q}`, secret, base64.StdEncoding.EncodeToString([]byte(binary))))
	c.seesValue(t, name, binary+binary, newValueWithin)
	if got := c.describe(t, name).Secrets; len(got) != 1 || got[0] != secret {
		t.Errorf("got secrets %v of the function, want %s under its own name", got, secret)
	}

	target, fields := c.withNamespace("/system/secrets", `{"name":"`+secret+`"}`)
	if a, err := c.send(t.Context(), http.MethodDelete, target, fields); err != nil || a.status != http.StatusConflict || !strings.Contains(string(a.body), name) {
		t.Errorf("got %d %q, %v for the removal of a secret in use, want 409 with the function's name", a.status, a.body, err)
	}
	c.remove(t, name)
	c.doIn(t, http.StatusAccepted, http.MethodDelete, "/system/secrets", `{"name":"`+secret+`"}`)
	c.doIn(t, http.StatusNotFound, http.MethodDelete, "/system/secrets", `{"name":"`+secret+`"}`)
	if log := c.gateway.node.logs("logs", "gateway"); strings.Contains(log, "three") || strings.Contains(log, `"two"`) || !strings.Contains(log, "subject="+secret) {
		t.Errorf("want the log to have the secret's name and no value of it:\n%s", log)
	}
}
