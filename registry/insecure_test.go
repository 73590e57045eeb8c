package registry

import (
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"
)

// With Insecure any certificate will do, and none, also to log in; the password
// still goes to no other host in clear.
func TestInsecure(t *testing.T) {
	m := newImage(1, 3000)
	for name, f := range map[string]*fake{
		"unknown authority": newTLSFake(t, newAuthority(t), nil, time.Now().Add(time.Hour)),
		"expired":           newTLSFake(t, newAuthority(t), nil, time.Now().Add(-time.Minute)),
		"plain HTTP":        newFake(t),
	} {
		t.Run(name, func(t *testing.T) {
			basicAuth(f, nil)
			config := Config{
				HostsDirs: []string{certsDir(t, "registry.corp", map[string]string{"hosts.toml": fmt.Sprintf("server = %q\n", "https://"+f.host())})},
				Keychain:  keychain{f.host(): {Username: "u", Password: "secret"}},
			}
			ref := mustRef(t, "registry.corp/app:1")
			var untrusted *TLSError
			if err := newClient(config).Push(t.Context(), ref, m); !errors.As(err, &untrusted) {
				t.Errorf("without Insecure: %v", err)
			}
			config.Insecure = true
			mustPush(t, newClient(config), ref, m)
			mustHold(t, newClient(config), ref, m)
		})
	}
	c := newClient(Config{Insecure: true})
	endpoints, err := c.allEndpoints(t.Context(), "registry.corp")
	if err != nil {
		t.Fatal(err)
	}
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://auth.corp/token", nil)
	req.Header.Set("Authorization", "Basic c2VjcmV0")
	if _, err := endpoints[0].base.RoundTrip(req); !errors.Is(err, errCleartext) { //nolint:bodyclose // there is none
		t.Errorf("got %v", err)
	}
}
