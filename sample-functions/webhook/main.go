// Webhook checks that a request was signed by somebody who knows the secret,
// the way GitHub and many others sign theirs: header X-Hub-Signature-256 with
// the HMAC of the raw body. It answers with what the event was about.
package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// As GitHub caps its deliveries.
const maxBody = 25 << 20

func main() {
	if err := run(os.Getenv, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "webhook:", err)
		os.Exit(1)
	}
}

func run(getenv func(string) string, in io.Reader, out io.Writer) error {
	secret, err := readSecret(getenv("secret_file"))
	if err != nil {
		return err
	}
	body, err := io.ReadAll(io.LimitReader(in, maxBody+1))
	if err != nil {
		return fmt.Errorf("read body: %w", err)
	}
	if len(body) > maxBody {
		return fmt.Errorf("body of more than %d bytes", maxBody)
	}
	if !signed(secret, body, getenv("Http_X_Hub_Signature_256")) {
		return errors.New("signature does not match")
	}
	var event struct {
		Action     string `json:"action"`
		Repository struct {
			Name string `json:"full_name"`
		} `json:"repository"`
	}
	if err := json.Unmarshal(body, &event); err != nil {
		return fmt.Errorf("decode event: %w", err)
	}
	_, err = fmt.Fprintf(out, "%s %s of %s\n",
		getenv("Http_X_Github_Event"), event.Action, event.Repository.Name)
	return err
}

func readSecret(file string) ([]byte, error) {
	secret, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read secret: %w", err)
	}
	// Editors and echo add a line end that nobody means.
	secret = []byte(strings.TrimRight(string(secret), "\r\n"))
	if len(secret) == 0 {
		// Everybody can sign with an empty key.
		return nil, fmt.Errorf("secret %s is empty", file)
	}
	return secret, nil
}

func signed(secret, body []byte, header string) bool {
	given, ok := strings.CutPrefix(header, "sha256=")
	if !ok {
		return false
	}
	want, err := hex.DecodeString(given)
	if err != nil {
		return false
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write(body)
	return hmac.Equal(mac.Sum(nil), want)
}
