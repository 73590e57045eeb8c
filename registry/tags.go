package registry

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/distribution/reference"
)

// Tags lists the tags of repo in the registry's order, all pages of them. A tag
// or digest in repo does not matter. The errors are those of [Client.Get].
func (c *Client) Tags(ctx context.Context, repo reference.Named) (tags []string, err error) {
	err = c.readFrom(ctx, repo, func(s *session) error {
		tags, err = s.tags(ctx)
		return err
	})
	return tags, err
}

// readFrom calls read with a session for each host of repo that may be read from,
// until one does not fail.
func (c *Client) readFrom(ctx context.Context, repo reference.Named, read func(*session) error) error {
	repo = reference.TrimNamed(repo)
	hosts, err := c.endpoints(ctx, reference.Domain(repo), reference.Path(repo), docker.HostCapabilityPull|docker.HostCapabilityResolve)
	if err != nil {
		return err
	}
	var failures []error
	for n, host := range hosts {
		s := c.session(host, repo, "pull")
		if n < len(hosts)-1 {
			s.tries = 1
		}
		err := read(s)
		if err == nil {
			c.noticeFallback(repo, host, hosts[0], failures)
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		failures = append(failures, err)
	}
	c.noticeExcluded(ctx, repo)
	return worst(failures)
}

// tags of the repository, all pages of them.
func (s *session) tags(ctx context.Context) ([]string, error) {
	tags := []string{}
	err := s.pages(ctx, list{path: s.repo + "/tags/list", query: longPages}, func(p page) (n int, enough bool, err error) {
		var list struct {
			Tags []string `json:"tags"`
		}
		if err := json.Unmarshal(p.raw, &list); err != nil {
			return 0, false, fmt.Errorf("list of tags of %q from %s is not valid JSON", s.ref, s.to.account())
		}
		for _, t := range list.Tags {
			// What is no tag is not passed on: it would reach terminals and URLs.
			if isTag(t) {
				tags = append(tags, t)
			}
		}
		return len(list.Tags), false, nil
	})
	if err != nil {
		return nil, err
	}
	return tags, nil
}

// isTag by the grammar of references.
func isTag(s string) bool {
	m := reference.TagRegexp.FindString(s)
	return m != "" && m == s
}
