package registry

import (
	"context"
	"os"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
)

// SolverKeychain is the credentials for [Client.RegistryHosts], for a solver that knows only the host which it speaks to.
// Where the configuration has a host serve a registry of another name alone, those of that name are found too, as
// pulls find them: before the host's own, unless several names stand for the host. A name that the configuration has no
// folder for ("_default" may serve it) can't be told from its host.
func (c *Client) SolverKeychain(ctx context.Context) authn.Keychain { return &solverKeychain{ctx, c} }

type solverKeychain struct {
	ctx    context.Context //nolint:containedctx // a keychain's method takes none, and this one lasts as long as a build
	client *Client
}

// Resolve implements [authn.Keychain].
func (k *solverKeychain) Resolve(r authn.Resource) (authn.Authenticator, error) {
	if k.client.config.Keychain == nil {
		return authn.Anonymous, nil
	}
	host := accountOf(r.RegistryStr())
	names := k.client.namesOf(k.ctx, host)
	accounts := slices.Concat(names, []string{host})
	if len(names) > 1 {
		accounts = slices.Concat([]string{host}, names)
	}
	for _, account := range accounts {
		found, err := k.client.config.Keychain.Resolve(resource{account, ""})
		if err != nil || found != authn.Anonymous {
			return found, err
		}
	}
	return authn.Anonymous, nil
}

// namesOf are the registries of other names that a host serves alone. A configuration that can't be read has been told of
// by whoever asked for its registry.
func (c *Client) namesOf(ctx context.Context, host string) (names []string) {
	for _, root := range c.config.HostsDirs {
		entries, err := os.ReadDir(root)
		if err != nil {
			continue // most are not there
		}
		for _, entry := range entries {
			name := hostOfFolder(entry.Name())
			if name == "_default" || name == host || slices.Contains(names, name) {
				continue
			}
			all, err := c.allEndpoints(ctx, name)
			if err == nil && len(all) == 1 && all[0].alone && accountOf(all[0].host) == host {
				names = append(names, name)
			}
		}
	}
	return names
}

// hostOfFolder is the registry that a folder is for: containerd takes "host_port_" for "host:port".
func hostOfFolder(name string) string {
	if host, port, ok := strings.Cut(strings.TrimSuffix(name, "_"), "_"); ok && strings.HasSuffix(name, "_") && host != "" {
		return host + ":" + port
	}
	return name
}
