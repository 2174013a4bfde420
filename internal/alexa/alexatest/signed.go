package alexatest

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Skill is the ID of the skill that requests are for.
const Skill = "amzn1.ask.skill.8a1f1c52-1d3e-4d0a-9b7e-52b7d1c0e9aa"

// Body returns testdata/alexa/name.json of this repository, for a test in any
// folder of it.
func Body(t testing.TB, name string) []byte {
	t.Helper()
	root := "."
	for range 8 {
		if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
			break
		}
		root = filepath.Join("..", root)
	}
	b, err := os.ReadFile(filepath.Join(root, "testdata", "alexa", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Minimal is the least that is an Alexa request; the cases below change it.
const Minimal = `{"session":{"sessionId":"s","application":{"applicationId":"a"}},"request":{"type":"IntentRequest","intent":{"name":"I"}}}`

// Padded returns minimal with white space inside, n bytes long.
func Padded(n int) string {
	return strings.Replace(Minimal, `,"request"`, strings.Repeat(" ", n-len(Minimal))+`,"request"`, 1)
}

// A SignedBody is a signed Alexa request before it is sent.
type SignedBody struct {
	Body   []byte
	Header http.Header
}

// Sign sets the headers that Amazon sends with the body.
func (r *SignedBody) Sign(key *rsa.PrivateKey) {
	h256, h1 := sha256.Sum256(r.Body), sha1.Sum(r.Body)
	r.Header.Set("Signature-256", base64.StdEncoding.EncodeToString(must(rsa.SignPKCS1v15(nil, key, crypto.SHA256, h256[:]))))
	r.Header.Set("Signature", base64.StdEncoding.EncodeToString(must(rsa.SignPKCS1v15(nil, key, crypto.SHA1, h1[:]))))
}

// SignedRequest returns one that a verifier accepts at Now.
func SignedRequest(t testing.TB) *SignedBody {
	r := &SignedBody{Body: Body(t, "intent"), Header: http.Header{}}
	r.Header.Set("SignatureCertChainUrl", ChainURL)
	r.Retime(t, Now.Add(-4*time.Second).Format(time.RFC3339))
	return r
}

// Retime sets request.timestamp and signs again.
func (r *SignedBody) Retime(t testing.TB, timestamp any) {
	t.Helper()
	r.Set(t, "timestamp", timestamp)
}

// Set sets a member of the request object, nil to remove it, and signs again.
func (r *SignedBody) Set(t testing.TB, member string, value any) {
	t.Helper()
	var all map[string]any
	if err := json.Unmarshal(r.Body, &all); err != nil {
		t.Fatal(err)
	}
	request := all["request"].(map[string]any)
	request[member] = value
	if value == nil {
		delete(request, member)
	}
	r.Body = must(json.Marshal(all))
	r.Sign(SigningKey())
}
