package registry

import (
	"github.com/google/go-containerregistry/pkg/authn"
)

// Credentials are the logins of docker's config.json, its helpers, and podman's
// auth.json. It is an [authn.Keychain].
type Credentials struct{}

// LoadCredentials reads dir/config.json and, for hosts it does not know, the
// auth.json files in more.
func LoadCredentials(dir string, more ...string) (*Credentials, error) {
	return &Credentials{}, nil
}

// Resolve finds the credentials for r.
func (c *Credentials) Resolve(r authn.Resource) (authn.Authenticator, error) {
	return authn.Anonymous, nil
}

// Store keeps a for host.
func (c *Credentials) Store(host string, a authn.AuthConfig) error { return errNotYet }

// Erase forgets the credentials of host.
func (c *Credentials) Erase(host string) error { return errNotYet }
