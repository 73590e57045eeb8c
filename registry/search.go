package registry

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/distribution/reference"
)

// hubSearch is the registry, as hosts.toml spells it, that Docker Hub's search is
// part of. The Hub has newer ways to search, all of them undocumented and made for
// its web pages; this one is what docker and podman ask, and Nexus, quay and
// others answer to it as well.
const hubSearch = "index.docker.io"

// SearchResult is a repository that a search has found.
type SearchResult struct {
	Name        string // to pull: "alpine", "registry.corp/app"
	Description string // one printable line; "" where the registry has none
	Stars       int
	Official    bool // the Hub vouches for it
}

// Search asks host, a registry as names spell it, for repositories, and returns
// at most limit of them in the registry's order. "docker.io" is asked by Docker
// Hub's API, and so is any other registry that answers to it; the rest has a
// catalog, of which the names are returned that term is a part of. A term of ""
// lists the catalog.
//
// Of the hosts that serve a registry only its own is asked, never a fallback:
// a term may be the beginning of a private name. The errors are those of
// [Client.Get] for a registry that cannot be asked, and a [*StatusError] where
// it can be but not searched.
func (c *Client) Search(ctx context.Context, host, term string, limit int) ([]SearchResult, error) {
	host, err := registryHost(host)
	if err != nil {
		return nil, err
	}
	name := host
	if host == dockerHub {
		name = hubSearch
	}
	to, err := c.ownEndpoint(ctx, name, term)
	if err != nil {
		return nil, err
	}
	s := c.hostSession(to)
	if host == dockerHub {
		return s.searchIndex(ctx, host, strings.TrimPrefix(term, "library/"), limit)
	}
	if term != "" {
		probe := *s
		probe.tries = 1 // most registries lack it; what is wrong with this one the catalog tells
		if found, err := probe.searchIndex(ctx, host, term, limit); err == nil || ctx.Err() != nil {
			return found, err
		}
	}
	return s.searchCatalog(ctx, host, term, limit)
}

// ownEndpoint is the host of a registry that is the registry itself, as far as
// the configuration tells: the one of its name, or else the first that may be
// asked for term.
func (c *Client) ownEndpoint(ctx context.Context, name, term string) (*endpoint, error) {
	all, err := c.endpoints(ctx, name, term, docker.HostCapabilityResolve)
	if err != nil {
		return nil, err
	}
	for _, e := range all {
		if accountOf(e.host) == accountOf(name) {
			return e, nil
		}
	}
	return all[0], nil
}

// searchIndex asks the search that Docker Hub has.
func (s *session) searchIndex(ctx context.Context, host, term string, limit int) ([]SearchResult, error) {
	u := s.to.url("")
	u.Path = strings.TrimSuffix(strings.TrimSuffix(u.Path, "/"), "/v2") + "/v1/search"
	u.RawQuery = url.Values{"q": {term}, "n": {strconv.Itoa(limit)}}.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := s.client().Do(req)
	if err != nil {
		return nil, s.fault(err)
	}
	if resp.StatusCode == http.StatusNotFound {
		discard(resp)
		return nil, &StatusError{Host: s.to.account(), Status: resp.StatusCode, Message: "it has no search"}
	}
	if resp.StatusCode != http.StatusOK {
		return nil, s.refused(resp)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxSearch))
	if err != nil {
		return nil, s.fault(err)
	}
	found, err := parseSearch(raw, host)
	if err != nil {
		return nil, fmt.Errorf("search of registry %s: %w", s.to.account(), err)
	}
	return found[:min(limit, len(found))], nil
}

// parseSearch reads the answer of a search, and leaves out what has no name that
// could be pulled from host.
func parseSearch(raw []byte, host string) ([]SearchResult, error) {
	var answer struct {
		Results *[]struct {
			Name        string `json:"name"`
			Description string `json:"description"`
			Stars       int    `json:"star_count"`
			Official    bool   `json:"is_official"`
		} `json:"results"`
	}
	if err := json.Unmarshal(raw, &answer); err != nil || answer.Results == nil {
		return nil, fmt.Errorf("the answer is no list of results")
	}
	found := []SearchResult{}
	for _, r := range *answer.Results {
		if name := pullable(host, r.Name); name != "" {
			found = append(found, SearchResult{
				Name: name, Description: printable(r.Description, maxDescription), Stars: max(r.Stars, 0), Official: r.Official,
			})
		}
	}
	return found, nil
}

// pullable is the name to pull a repository of host by, "" if it is no name.
func pullable(host, repo string) string {
	if host != dockerHub && !strings.HasPrefix(repo, host+"/") {
		repo = host + "/" + repo
	}
	if len(repo) > maxReference {
		return ""
	}
	named, err := reference.ParseNormalizedNamed(repo)
	if err != nil || !reference.IsNameOnly(named) || reference.Domain(named) != host {
		return ""
	}
	return repo
}

// searchCatalog looks for repositories with term in their name.
func (s *session) searchCatalog(ctx context.Context, host, term string, limit int) ([]SearchResult, error) {
	found := []SearchResult{}
	err := s.pages(ctx, list{path: "_catalog", query: longPages}, func(p page) (n int, enough bool, err error) {
		var page struct {
			Repositories []string `json:"repositories"`
		}
		if err := json.Unmarshal(p.raw, &page); err != nil {
			return 0, false, fmt.Errorf("catalog of registry %s is not valid JSON", s.to.account())
		}
		for _, repo := range page.Repositories {
			if name := pullable(host, repo); name != "" && strings.Contains(repo, term) && len(found) < limit {
				found = append(found, SearchResult{Name: name})
			}
		}
		return len(page.Repositories), len(found) >= limit, nil
	})
	if err != nil {
		return nil, withoutCatalog(err, s.to)
	}
	return found, nil
}

// withoutCatalog says of a refusal what was asked for.
func withoutCatalog(err error, to *endpoint) error {
	switch e := err.(type) { //nolint:errorlint // only the errors of this package's own requests
	case *NotFoundError:
		return &StatusError{Host: to.account(), Status: http.StatusNotFound, Message: "it has no catalog to search"}
	case *StatusError:
		return &StatusError{Host: e.Host, Status: e.Status, Message: cmp.Or(e.Message, "it has no catalog to search")}
	case *UnauthorizedError:
		if e.CredentialsSent {
			e.Ref = "_catalog" // the login may be fine for everything else
		}
		return e
	}
	return err
}
