package main

// Secrets of functions over the API: names in and out, values in alone.

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"faas/internal/naming"
)

const (
	maxSecret     = 500_000 - 1 // bytes, SwarmKit's limit
	maxSecretBody = 2 << 20     // value and rawValue in base64 both
)

// A secretStore keeps secrets for functions. Values go in and never come out.
type secretStore interface {
	// secrets returns the names of all, sorted.
	secrets(ctx context.Context) ([]string, error)

	// createSecret makes one. errExists.
	createSecret(ctx context.Context, name string, value []byte) error

	// updateSecret gives one a new value, which every function that uses it
	// is rolled over to. errNotFound.
	updateSecret(ctx context.Context, name string, value []byte) error

	// removeSecret removes one. errNotFound; errInUse names the functions.
	removeSecret(ctx context.Context, name string) error
}

func (a *api) secretStore() (secretStore, error) {
	if s, ok := a.provider.(secretStore); ok {
		return s, nil
	}
	return nil, &apiError{http.StatusNotImplemented, "the local provider has no secrets: give a function what it needs with -env 'name:KEY=value'"}
}

type secretBody struct {
	Name      string  `json:"name"`
	Namespace string  `json:"namespace"`
	Value     *string `json:"value"`
	RawValue  *string `json:"rawValue"` // base64
}

// bytes returns the value. Clients that read it from a file send both: the
// bytes, and a text that has lost what is no text.
func (b *secretBody) bytes() ([]byte, error) {
	var raw []byte
	if b.RawValue != nil && *b.RawValue != "" {
		var err error
		if raw, err = base64.StdEncoding.DecodeString(*b.RawValue); err != nil {
			return nil, errors.New("rawValue: not base64")
		}
	}
	value := raw
	if b.Value != nil && *b.Value != "" && (raw == nil || *b.Value == strings.TrimSpace(string(raw))) {
		value = []byte(*b.Value)
	}
	switch {
	case len(value) == 0:
		return nil, errors.New("value: the secret's value is missing")
	case len(value) > maxSecret:
		return nil, fmt.Errorf("value: %d bytes, %d at most", len(value), maxSecret)
	}
	return value, nil
}

func (a *api) readSecret(w http.ResponseWriter, r *http.Request, call *apiCall) (b secretBody, err error) {
	if err := a.read(w, r, maxSecretBody, &b); err != nil {
		return b, err
	}
	call.subject = b.Name
	if err := a.checkNamespace(inNamespace(r, b.Namespace)); err != nil {
		return b, err
	}
	if !naming.IsSecret(b.Name) {
		return b, badRequest(fmt.Errorf("name: %q cannot be a secret's: letters and digits, with . - _ between them, %d at most", naming.Shown(b.Name), naming.MaxSecret))
	}
	return b, nil
}

// A listedSecret is what is shown of one.
type listedSecret struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
}

func (a *api) listSecrets(w http.ResponseWriter, r *http.Request, _ *apiCall) error {
	store, err := a.secretStore()
	if err != nil {
		return err
	}
	list := []listedSecret{}
	if ns := inNamespace(r, ""); ns != "" && ns != a.namespace {
		return a.answer(w, http.StatusOK, list)
	}
	names, err := store.secrets(r.Context())
	if err != nil {
		return err
	}
	for _, name := range names {
		list = append(list, listedSecret{name, a.namespace})
	}
	return a.answer(w, http.StatusOK, list)
}

func (a *api) createSecret(w http.ResponseWriter, r *http.Request, call *apiCall) error {
	return a.writeSecret(w, r, call, http.StatusCreated, secretStore.createSecret)
}

func (a *api) updateSecret(w http.ResponseWriter, r *http.Request, call *apiCall) error {
	return a.writeSecret(w, r, call, http.StatusAccepted, secretStore.updateSecret)
}

func (a *api) writeSecret(w http.ResponseWriter, r *http.Request, call *apiCall, done int, write func(secretStore, context.Context, string, []byte) error) error {
	store, err := a.secretStore()
	if err != nil {
		return err
	}
	b, err := a.readSecret(w, r, call)
	if err != nil {
		return err
	}
	value, err := b.bytes()
	if err != nil {
		return badRequest(err)
	}
	err = write(store, r.Context(), b.Name, value)
	if errors.Is(err, errExists) {
		return &apiError{http.StatusConflict, fmt.Sprintf("secret %q exists already; PUT updates it", b.Name)}
	}
	if err != nil {
		return err
	}
	w.WriteHeader(done)
	return nil
}

func (a *api) removeSecret(w http.ResponseWriter, r *http.Request, call *apiCall) error {
	store, err := a.secretStore()
	if err != nil {
		return err
	}
	b, err := a.readSecret(w, r, call)
	if err != nil {
		return err
	}
	if err := store.removeSecret(r.Context(), b.Name); err != nil {
		return err
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}
