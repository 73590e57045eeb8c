package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/distribution/reference"
)

// Tags lists the tags of repo in the registry's order, all pages of them. A tag
// or digest in repo does not matter. The errors are those of [Client.Get].
func (c *Client) Tags(ctx context.Context, repo reference.Named) ([]string, error) {
	repo = reference.TrimNamed(repo)
	hosts, err := c.endpoints(ctx, reference.Domain(repo), docker.HostCapabilityPull|docker.HostCapabilityResolve)
	if err != nil {
		return nil, err
	}
	var failures []error
	for n, host := range hosts {
		s := c.session(host, repo, "pull")
		if n < len(hosts)-1 {
			s.tries = 1
		}
		tags, err := s.tags(ctx)
		if err == nil {
			c.noticeFallback(repo, host, hosts[0], failures)
			return tags, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		failures = append(failures, err)
	}
	return nil, worst(failures)
}

// tags reads page after page. Of the link to the next one only the query is
// used: a registry cannot send us anywhere else with it.
func (s *session) tags(ctx context.Context) ([]string, error) {
	var all []string
	query := "n=1000" // the most that all registries take
	for range maxTagPages {
		page, next, err := s.tagPage(ctx, query)
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		if next == "" || next == query {
			return all, nil
		}
		if len(all) > maxTags {
			break
		}
		query = next
	}
	return nil, &StatusError{Host: s.to.account(), Status: http.StatusOK, Message: "its list of tags does not end"}
}

// tagPage reads one page, and the query of the next one if there is any.
func (s *session) tagPage(ctx context.Context, query string) (tags []string, next string, err error) {
	u := s.to.url(s.repo + "/tags/list")
	u.RawQuery = query
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, "", err
	}
	resp, err := s.client().Do(req)
	if err != nil {
		return nil, "", s.fault(err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, "", s.refused(resp)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxTagPage))
	if err != nil {
		return nil, "", s.fault(err)
	}
	var list struct {
		Tags []string `json:"tags"`
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, "", fmt.Errorf("list of tags of %q from %s is not valid JSON", s.ref, s.to.account())
	}
	for _, t := range list.Tags {
		// What is no tag is not passed on: it would reach terminals and URLs.
		if isTag(t) {
			tags = append(tags, t)
		}
	}
	return tags, nextQuery(resp.Header.Get("Link")), nil
}

// nextQuery of a header such as `</v2/x/tags/list?n=2&last=b>; rel="next"`.
func nextQuery(link string) string {
	address, rest, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(link), "<"), ">")
	if !ok || !strings.Contains(rest, "next") {
		return ""
	}
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.RawQuery
}

// isTag by the grammar of references.
func isTag(s string) bool {
	m := reference.TagRegexp.FindString(s)
	return m != "" && m == s
}
