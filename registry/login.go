package registry

import (
	"context"
	"fmt"
	"net/http"
	"regexp"

	"github.com/distribution/reference"
	"github.com/docker/cli/cli/config/credentials"
	"github.com/google/go-containerregistry/pkg/authn"
)

// CheckLogin asks host, a registry as names spell it, whether it accepts auth.
// Nothing is stored. A registry that asks nobody for credentials accepts all.
// The error is an [*UnauthorizedError] if they are wrong, or one of those that
// [Client.Get] has for a registry that cannot be asked.
func (c *Client) CheckLogin(ctx context.Context, host string, auth authn.AuthConfig) error {
	host, err := registryHost(host)
	if err != nil {
		return err
	}
	endpoints, err := c.allEndpoints(ctx, host)
	if err != nil {
		return err
	}
	if len(endpoints) == 0 {
		return fmt.Errorf("registry %s is configured to have no host", host)
	}
	to := endpoints[len(endpoints)-1] // the registry itself, behind its mirrors
	for _, e := range endpoints {
		if accountOf(e.host) == host {
			to = e // unless the last one is only a fallback
		}
	}
	s := &session{
		to: to, agent: c.agent(), limits: c.limits, tries: c.limits.tries,
		auth: &authorizer{
			to: to, agent: c.agent(), limits: c.limits,
			login: func() (authn.AuthConfig, error) { return auth, nil },
		},
	}
	return s.ping(ctx)
}

// ping asks for the base of the API, which demands a login if anything does.
func (s *session) ping(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.to.url("").String(), nil)
	if err != nil {
		return err
	}
	resp, err := s.client().Do(req)
	if err != nil {
		return s.fault(err)
	}
	switch resp.StatusCode {
	case http.StatusOK:
		discard(resp)
		return nil
	case http.StatusNotFound:
		discard(resp)
		return &StatusError{Host: s.to.account(), Status: resp.StatusCode, Message: "there is no registry"}
	}
	return s.refused(resp)
}

// registryHost reads what people and old configuration files call a registry:
// "registry.corp:5000", "https://registry.corp/", "https://index.docker.io/v1/".
// "" is Docker Hub.
func registryHost(s string) (string, error) {
	if s == "" {
		return dockerHub, nil
	}
	host := accountOf(credentials.ConvertToHostname(s))
	if !regexp.MustCompile("^" + reference.DomainRegexp.String() + "$").MatchString(host) {
		return "", fmt.Errorf("invalid registry %q: want HOST[:PORT]", s)
	}
	return host, nil
}
