// Package registryauth reads credentials of image registries from a file in the
// format of Docker's config.json.
package registryauth

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	dockerregistry "github.com/docker/docker/api/types/registry"
)

const (
	maxRegistryConfig = 1 << 20
	dockerHub         = "docker.io"
	dockerHubKey      = "https://index.docker.io/v1/" // as docker login writes it
)

// File is the name of the file; "" is none. It is read for each
// deployment, so that a new login counts at once.
type File string

// ForImage returns the credentials for an image's registry as Docker's API
// takes them, "" if there are none.
func (file File) ForImage(image string) (string, error) {
	if file == "" {
		return "", nil
	}
	info, err := os.Stat(string(file))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("registry credentials: %w", err)
	}
	if info.Size() > maxRegistryConfig {
		return "", fmt.Errorf("registry credentials: %s is longer than %d bytes", file, maxRegistryConfig)
	}
	text, err := os.ReadFile(string(file))
	if err != nil {
		return "", fmt.Errorf("registry credentials: %w", err)
	}
	var config struct {
		Auths map[string]struct {
			Auth          string `json:"auth"` // base64 of user:password
			Username      string `json:"username"`
			Password      string `json:"password"`
			IdentityToken string `json:"identitytoken"`
		} `json:"auths"`
	}
	if json.Unmarshal(text, &config) != nil {
		// What encoding/json says could quote a credential.
		return "", fmt.Errorf("registry credentials: %s is not Docker's config.json", file)
	}
	host := registryHost(image)
	for _, key := range []string{host, "https://" + host, "http://" + host, hubKey(host)} {
		entry, ok := config.Auths[key]
		if !ok || key == "" {
			continue
		}
		auth := dockerregistry.AuthConfig{Username: entry.Username, Password: entry.Password, IdentityToken: entry.IdentityToken, ServerAddress: host}
		if entry.Auth != "" {
			pair, err := base64.StdEncoding.DecodeString(entry.Auth)
			user, password, found := strings.Cut(string(pair), ":")
			if err != nil || !found {
				return "", fmt.Errorf("registry credentials: the entry of %s in %s is not base64 of user:password", host, file)
			}
			auth.Username, auth.Password = user, strings.TrimRight(password, "\x00")
		}
		return dockerregistry.EncodeAuthConfig(auth)
	}
	return "", nil
}

// registryHost returns the registry of an image's name: what stands before the
// first slash if it looks like a host, as Docker reads it.
func registryHost(image string) string {
	first, _, ok := strings.Cut(image, "/")
	if ok && (strings.ContainsAny(first, ".:") || first == "localhost") {
		return first
	}
	return dockerHub
}

func hubKey(host string) string {
	if host == dockerHub {
		return dockerHubKey
	}
	return ""
}
