package main

// docs/openapi.yaml and docs/api.md say what the handlers do.

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"faas/internal/deployment"
)

// An openAPI is what the tests read of docs/openapi.yaml, line by line: the file
// is regular enough.
type openAPI struct {
	operations []string                     // METHOD PATH
	schemas    map[string]map[string]string // type of each property by schema; "" where it refers to a schema
}

func readOpenAPI(t *testing.T) openAPI {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("docs", "openapi.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	doc := openAPI{schemas: map[string]map[string]string{}}
	var at [6]string // the key at each depth of two blanks
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\n")
		word := strings.TrimLeft(line, " ")
		depth := (len(line) - len(word)) / 2
		key, value, ok := strings.Cut(word, ":")
		if !ok || strings.HasPrefix(word, "#") || strings.HasPrefix(word, "-") || depth >= len(at) {
			continue
		}
		at[depth] = key
		for i := depth + 1; i < len(at); i++ {
			at[i] = ""
		}
		switch {
		case at[0] == "paths" && depth == 2:
			doc.operations = append(doc.operations, strings.ToUpper(key)+" "+at[1])
		case at[0] == "components" && at[1] == "schemas" && depth == 2:
			doc.schemas[key] = map[string]string{}
		case at[0] == "components" && at[1] == "schemas" && at[3] == "properties" && depth == 4:
			doc.schemas[at[2]][key] = ""
		case at[0] == "components" && at[1] == "schemas" && at[3] == "properties" && depth == 5 && key == "type":
			doc.schemas[at[2]][at[4]] = strings.TrimSpace(value)
		}
	}
	return doc
}

// Each operation of the document has a handler, and each handler is in the
// document and has a heading in docs/api.md.
func TestOpenAPIPaths(t *testing.T) {
	a := &api{}
	mux := http.NewServeMux()
	page, err := os.ReadFile(filepath.Join("docs", "api.md"))
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, e := range a.endpoints() {
		want = append(want, e.pattern)
		mux.HandleFunc(e.pattern, func(http.ResponseWriter, *http.Request) {})
		named := strings.TrimSuffix(e.pattern, "{rest...}")
		if !strings.Contains(string(page), "`"+named+"`") {
			t.Errorf("docs/api.md does not have `%s`", named)
		}
	}
	got := map[string]bool{}
	for _, operation := range readOpenAPI(t).operations {
		method, path, _ := strings.Cut(operation, " ")
		_, pattern := mux.Handler(httptest.NewRequest(method, strings.ReplaceAll(path, "{name}", "f"), nil))
		if pattern == "" {
			t.Errorf("docs/openapi.yaml: there is no %s", operation)
		}
		got[pattern] = true
	}
	for _, pattern := range want {
		if !got[pattern] {
			t.Errorf("docs/openapi.yaml lacks %s", pattern)
		}
	}
}

// The properties are those of the JSON that is read and written.
func TestOpenAPISchemas(t *testing.T) {
	doc := readOpenAPI(t)
	for name, v := range map[string]any{
		"FunctionDeployment": deployment.Deployment{}, "FunctionStatus": deployment.Status{}, "FunctionRemoval": removalBody{}, "Resources": deployment.Resources{},
		"Scale": scaleBody{}, "Secret": secretBody{}, "SecretName": listedSecret{}, "LogLine": logLine{}, "Alerts": alertsBody{}, "Alert": alertBody{},
		"Overview": overview{}, "Abilities": abilities{}, "FunctionOverview": functionOverview{},
	} {
		want := map[string]string{}
		kind := reflect.TypeOf(v)
		for i := range kind.NumField() {
			tag, _, _ := strings.Cut(kind.Field(i).Tag.Get("json"), ",")
			want[tag] = jsonType(kind.Field(i).Type)
		}
		if got := doc.schemas[name]; !maps.Equal(got, want) {
			t.Errorf("%s: got properties %v, want %v", name, got, want)
		}
	}
	if got, want := len(doc.schemas["Info"]), 3; got != want {
		t.Errorf("Info: got %d properties, want %d", got, want)
	}
	known := slices.Sorted(maps.Keys(doc.schemas))
	if len(known) != 14 {
		t.Errorf("got schemas %v, want the fourteen that are held to a type here", known)
	}
}

func jsonType(t reflect.Type) string {
	if t == reflect.TypeFor[time.Time]() {
		return "string"
	}
	switch t.Kind() {
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "boolean"
	case reflect.Float64:
		return "number"
	case reflect.Uint64, reflect.Int:
		return "integer"
	case reflect.Map:
		return "object"
	case reflect.Slice:
		return "array"
	case reflect.Pointer:
		if t.Elem().Kind() != reflect.Struct {
			return jsonType(t.Elem())
		}
	}
	return "" // a schema of its own
}
