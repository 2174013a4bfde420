package deployment

import (
	"strings"
	"testing"

	"faas/internal/jsonbody"
)

// A deployment that makes no sense is refused with the name of its field.
func TestDeploymentCheck(t *testing.T) {
	for _, c := range []struct{ json, want string }{
		{`{"image":"i"}`, "service: the function's name is missing"},
		{`{"service":"a.b","image":"i"}`, "service: "},
		{`{"service":"-a","image":"i"}`, "service: "},
		{`{"service":"../a","image":"i"}`, "service: "},
		{`{"service":"a"}`, "image: "},
		{`{"service":"a","image":"i i"}`, "image: "},
		{`{"service":"a","image":"i","envVars":{"A=B":"c"}}`, "envVars: "},
		{`{"service":"a","image":"i","envVars":{"":"c"}}`, "envVars: "},
		{`{"service":"a","image":"i","envVars":{"A":"\u0000"}}`, "envVars: A has a NUL byte"},
		{`{"service":"a","image":"i","labels":{"faas.deployment":"x"}}`, "labels: faas.deployment is the gateway's own"},
		{`{"service":"a","image":"i","labels":{"com.openfaas.function":"b"}}`, "labels: com.openfaas.function is the gateway's own"},
		{`{"service":"a","image":"i","labels":{"com.openfaas.annotations.a":"b"}}`, "labels: com.openfaas.annotations.a is the gateway's own"},
		{`{"service":"a","image":"i","labels":{"faas.function":"false"}}`, "labels: faas.function"},
		{`{"service":"a","image":"i","constraints":["x"]}`, "constraints: "},
		{`{"service":"a","image":"i","secrets":["../key"]}`, "secrets: "},
		{`{"service":"a","image":"i","secrets":["key","key"]}`, `secrets: "key" is there twice`},
		{`{"service":"a","image":"i","limits":{"memory":"lots"}}`, `limits.memory: "lots": want memory`},
		{`{"service":"a","image":"i","limits":{"cpu":"-1"}}`, "limits.cpu: "},
		{`{"service":"a","image":"i","requests":{"cpu":"2"},"limits":{"cpu":"1"}}`, "requests.cpu: 2 is more than the limit, 1"},
		{`{"service":"a","image":"i","annotations":{"faas.capabilities":"SYS_ADMIN"}}`, "annotations: faas.capabilities: "},
	} {
		var dep Deployment
		if err := jsonbody.Decode([]byte(c.json), &dep); err != nil {
			t.Fatalf("%s: %v", c.json, err)
		}
		if err := dep.Check(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.json, err, c.want)
		}
	}
	var dep Deployment
	jsonbody.Decode([]byte(`{"image":"","limits":{"memory":"x","cpu":"y"}}`), &dep)
	if err := dep.Check(); err == nil || strings.Count(err.Error(), "\n") != 3 {
		t.Errorf("got %v, want all four mistakes at once", err)
	}
}
