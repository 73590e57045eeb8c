//go:build linux

package build

import (
	"context"
	"fmt"
	"os"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/auth"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
	"github.com/moby/buildkit/session/sshforward/sshprovider"
	"google.golang.org/grpc"
)

// attachables are what the engine may ask this process for during the build.
func attachables(src *sources, r Request) ([]session.Attachable, error) {
	keys := r.Keychain
	if keys == nil {
		keys = authn.NewMultiKeychain() // anonymous everywhere
	}
	list := []session.Attachable{&credentials{keys: keys}}
	if len(r.Secrets) > 0 {
		secrets, err := secretProvider(r.Secrets)
		if err != nil {
			return nil, err
		}
		list = append(list, secrets)
	}
	agents, err := sshAgents(src, r)
	if err != nil || len(agents) == 0 {
		return list, err
	}
	ssh, err := sshprovider.NewSSHAgentProvider(agents)
	if err != nil {
		return nil, fmt.Errorf("ssh: %w", err)
	}
	return append(list, ssh), nil
}

func secretProvider(list []Secret) (session.Attachable, error) {
	sources := make([]secretsprovider.Source, len(list))
	for i, s := range list {
		if s.File != "" && s.Env == "" {
			if _, err := os.Stat(s.File); err != nil {
				return nil, fmt.Errorf("secret %q: file %q: %w", s.ID, s.File, cause(err))
			}
		}
		sources[i] = secretsprovider.Source{ID: s.ID, FilePath: s.File, Env: s.Env}
	}
	store, err := secretsprovider.NewStore(sources)
	if err != nil {
		return nil, fmt.Errorf("secret: %w", err)
	}
	return secretsprovider.NewSecretProvider(store), nil
}

// sshAgents are those of the request. A context that git gets over ssh uses the user's
// own agent without being told.
func sshAgents(src *sources, r Request) ([]sshprovider.AgentConfig, error) {
	var agents []sshprovider.AgentConfig
	for _, s := range r.SSH {
		if len(s.Paths) == 0 && r.SSHAgent == "" {
			return nil, fmt.Errorf("ssh %q: there is no agent (SSH_AUTH_SOCK is not set)", s.ID)
		}
		paths := s.Paths
		if len(paths) == 0 {
			paths = []string{r.SSHAgent}
		}
		for _, p := range paths {
			if _, err := os.Stat(p); err != nil {
				return nil, fmt.Errorf("ssh %q: %q: %w", s.ID, p, cause(err))
			}
		}
		agents = append(agents, sshprovider.AgentConfig{ID: s.ID, Paths: paths})
	}
	if len(agents) == 0 && r.SSHAgent != "" && isGitSSH(src.remote) {
		agents = append(agents, sshprovider.AgentConfig{ID: "default", Paths: []string{r.SSHAgent}})
	}
	return agents, nil
}

// credentials answers the engine's question for a registry's user and password. It
// leaves tokens to the engine, which has the registry's certificates, and writes
// nothing to the user's folders, as BuildKit's own provider does.
type credentials struct {
	auth.UnimplementedAuthServer
	keys authn.Keychain
}

func (c *credentials) Register(s *grpc.Server) { auth.RegisterAuthServer(s, c) }

func (c *credentials) Credentials(_ context.Context, req *auth.CredentialsRequest) (*auth.CredentialsResponse, error) {
	authenticator, err := c.keys.Resolve(registryHost(req.Host))
	if err != nil {
		return nil, fmt.Errorf("credentials for %q: %w", req.Host, err)
	}
	cfg, err := authenticator.Authorization()
	if err != nil {
		return nil, fmt.Errorf("credentials for %q: %w", req.Host, err)
	}
	if cfg.IdentityToken != "" {
		return &auth.CredentialsResponse{Secret: cfg.IdentityToken}, nil
	}
	return &auth.CredentialsResponse{Username: cfg.Username, Secret: cfg.Password}, nil
}

// registryHost is a registry as keychains know it.
type registryHost string

func (h registryHost) String() string { return string(h) }

// RegistryStr returns the name credentials are kept under: docker's own registry
// has another one than its host.
func (h registryHost) RegistryStr() string {
	if h == "registry-1.docker.io" || h == "docker.io" {
		return "index.docker.io"
	}
	return string(h)
}
