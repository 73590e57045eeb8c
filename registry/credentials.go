package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/docker/cli/cli/config/configfile"
	dockercredentials "github.com/docker/cli/cli/config/credentials"
	"github.com/docker/cli/cli/config/types"
	"github.com/google/go-containerregistry/pkg/authn"
)

// hubKey is the name of Docker Hub in docker's files.
const hubKey = "https://index.docker.io/v1/"

// Credentials are the logins of docker's config.json, of the helpers it names,
// and of podman's auth.json. It is an [authn.Keychain], safe for concurrent use.
type Credentials struct {
	path string // of config.json

	mu       sync.Mutex
	override logins
	docker   logins
	more     []logins
}

// logins are what one file has.
type logins struct {
	byName  map[string]types.AuthConfig // "docker.io", "quay.io/org"
	store   string                      // the helper for all registries, or ""
	helpers map[string]string           // those for single ones
}

// LoadCredentials reads dir/config.json and, for registries that it does not
// know, the files in more: podman's auth.json in the order to ask them. A file
// that does not exist has no logins; one that cannot be read is an error. No
// helper is run yet.
func LoadCredentials(dir string, more ...string) (*Credentials, error) {
	c := &Credentials{path: filepath.Join(dir, "config.json")}
	var err error
	if c.docker, err = readLogins(c.path); err != nil {
		return nil, err
	}
	for _, path := range more {
		l, err := readLogins(path)
		if err != nil {
			return nil, err
		}
		c.more = append(c.more, l)
	}
	return c, nil
}

// Override adds the logins of a config.json, as CI systems hand it over in
// DOCKER_AUTH_CONFIG. They win over those in files, and are never stored. The
// error does not say where they came from.
func (c *Credentials) Override(configJSON []byte) error {
	l, err := parseLogins(configJSON)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.override = l
	return nil
}

func readLogins(path string) (logins, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return logins{}, nil
	}
	if err != nil {
		return logins{}, fmt.Errorf("reading credentials: %w", err)
	}
	l, err := parseLogins(raw)
	if err != nil {
		return logins{}, fmt.Errorf("credentials in %q: %w", path, err)
	}
	return l, nil
}

func parseLogins(raw []byte) (logins, error) {
	file := configfile.New("")
	if err := file.LoadFromReader(bytes.NewReader(raw)); err != nil {
		return logins{}, err
	}
	l := logins{store: file.CredentialsStore, helpers: make(map[string]string), byName: make(map[string]types.AuthConfig)}
	for key, helper := range file.CredentialHelpers {
		l.helpers[loginName(key)] = helper
	}
	for key, a := range file.AuthConfigs {
		name := loginName(key)
		// "registry.corp" is newer than "https://registry.corp/v1/".
		if _, twice := l.byName[name]; !twice || key == name || key == hubKey {
			l.byName[name] = a
		}
	}
	return l, nil
}

// loginName of a key in a file: a host, for podman also a host and the beginning
// of a path. Old files have URLs.
func loginName(key string) string {
	if strings.Contains(key, "://") {
		return accountOf(dockercredentials.ConvertToHostname(key))
	}
	host, path, _ := strings.Cut(strings.TrimSuffix(key, "/"), "/")
	if path == "" || path == "v1" || path == "v2" {
		return accountOf(host)
	}
	return accountOf(host) + "/" + path
}

// Resolve implements [authn.Keychain]: the credentials for the longest beginning
// of r that there are any for, else [authn.Anonymous]. A helper that is not
// installed has none, as docker sees it; one that fails is a [*HelperError].
func (c *Credentials) Resolve(r authn.Resource) (authn.Authenticator, error) {
	host := accountOf(r.RegistryStr())
	name := host + strings.TrimPrefix(r.String(), r.RegistryStr())
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range append([]logins{c.override, c.docker}, c.more...) {
		found, err := l.find(host, name)
		if err != nil {
			return nil, err
		}
		if found != (authn.AuthConfig{}) {
			return authn.FromConfig(found), nil
		}
	}
	return authn.Anonymous, nil
}

// find the credentials for name, which begins with host.
func (l logins) find(host, name string) (authn.AuthConfig, error) {
	if helper := l.helper(host); helper != "" {
		found, err := askHelper(helper, host)
		if err != nil || found != (authn.AuthConfig{}) {
			return found, err
		}
	}
	for {
		if a, ok := l.byName[name]; ok {
			return authn.AuthConfig{
				Username: a.Username, Password: a.Password,
				IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken,
			}, nil
		}
		i := strings.LastIndex(name, "/")
		if i < 0 {
			return authn.AuthConfig{}, nil
		}
		name = name[:i]
	}
}

// helper that keeps the credentials of host, or "".
func (l logins) helper(host string) string {
	if h, ok := l.helpers[host]; ok {
		return h
	}
	return l.store
}

// serverKey is what docker's files and helpers call host.
func serverKey(host string) string {
	if host == dockerHub {
		return hubKey
	}
	return host
}

// Helpers are the credential helpers that the configuration names ("pass" is docker-credential-pass), with the
// registries that each is for; none are all.
func (c *Credentials) Helpers() map[string][]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	helpers := map[string][]string{}
	for _, l := range append([]logins{c.override, c.docker}, c.more...) {
		for _, name := range slices.Sorted(maps.Keys(l.helpers)) {
			helpers[l.helpers[name]] = append(helpers[l.helpers[name]], name)
		}
	}
	for _, l := range append([]logins{c.override, c.docker}, c.more...) {
		if l.store != "" {
			helpers[l.store] = nil
		}
	}
	return helpers
}

// Store keeps a for host: with the helper that config.json names for it, else in
// config.json itself, which only its owner can read. Where the helper is missing
// the error is a [*HelperError], and nothing is stored in clear text instead.
//
// The file that Store returns is where a password now stands unencrypted that did
// not stand there before; it is "" otherwise.
func (c *Credentials) Store(ctx context.Context, host string, a authn.AuthConfig) (unencrypted string, err error) {
	if host, err = registryHost(host); err != nil {
		return "", err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.docker.byName[host]
	if helper := c.docker.helper(host); helper != "" {
		if err := storeInHelper(helper, host, a); err != nil {
			return "", err
		}
		a = authn.AuthConfig{} // docker keeps an empty entry, to know where it is logged in
	}
	if _, err := c.edit(ctx, host, &a); err != nil {
		return "", err
	}
	if a.Password == "" || a.Password == old.Password && a.Username == old.Username {
		return "", nil
	}
	return c.path, nil
}

// Erase forgets the credentials of host, in the helper and in config.json, and
// reports whether there were any. What podman keeps in its auth.json stays.
func (c *Credentials) Erase(ctx context.Context, host string) (found bool, err error) {
	if host, err = registryHost(host); err != nil {
		return false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if helper := c.docker.helper(host); helper != "" {
		if found, err = eraseInHelper(helper, host); err != nil {
			return false, err
		}
	}
	changed, err := c.edit(ctx, host, nil)
	return found || changed, err
}
