package jsonbody

import (
	"strings"
	"testing"
)

type body struct {
	Service                string            `json:"service"`
	EnvVars                map[string]string `json:"envVars"`
	ReadOnlyRootFilesystem bool              `json:"readOnlyRootFilesystem"`
}

func TestDecodeSaysWhere(t *testing.T) {
	for _, c := range []struct{ json, want string }{
		{``, "the body is empty"},
		{`{"service":`, "line 1, column 11"},
		{"{\n \"service\": 5}", "line 2, column"},
		{`{"service":5}`, "service: got number, want a string"},
		{`{"envVars":["a"]}`, "envVars: got array, want an object"},
		{`{"readOnlyRootFilesystem":"yes"}`, "want true or false"},
		{`{"service":"a"} {}`, "more than one value"},
		{`{"service":"a"}x`, "more than one value"},
		{`[]`, "want an object"},
		{`{"service":"a",}`, "line 1, column 16"},
	} {
		var v body
		if err := Decode([]byte(c.json), &v); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.json, err, c.want)
		}
	}
	if err := Decode([]byte(`{"service":"a","network":"old","unknown":[1]} `+"\n"), new(body)); err != nil {
		t.Errorf("members of other versions: got %v, want them ignored", err)
	}
}
