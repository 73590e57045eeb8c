package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Referrers lists the manifests in repo whose subject is the manifest subject:
// signatures, SBOMs and other attestations. They come in the registry's order,
// each once, and none is no error; the subject itself need not be there. A tag or
// digest in repo does not matter. The errors are those of [Client.Get].
//
// The registry is asked by the referrers API, and where it does not have that,
// the list is the index under the tag that stands in for it
// (https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#listing-referrers).
func (c *Client) Referrers(ctx context.Context, repo reference.Named, subject v1.Hash) ([]v1.Descriptor, error) {
	repo = reference.TrimNamed(repo)
	hosts, err := c.endpoints(ctx, reference.Domain(repo), reference.Path(repo), docker.HostCapabilityPull|docker.HostCapabilityResolve)
	if err != nil {
		return nil, err
	}
	var failures []error
	for n, host := range hosts {
		s := c.session(host, repo, "pull")
		if n < len(hosts)-1 {
			s.tries = 1
		}
		found, err := s.referrers(ctx, subject)
		if err == nil {
			c.noticeFallback(repo, host, hosts[0], failures)
			return found, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		failures = append(failures, err)
	}
	c.noticeExcluded(ctx, repo)
	return nil, worst(failures)
}

// referrers of subject by the API, or else by the tag.
func (s *session) referrers(ctx context.Context, subject v1.Hash) ([]v1.Descriptor, error) {
	found, known, err := s.referrersByAPI(ctx, subject)
	if err == nil && !known {
		index, err := s.referrersByTag(ctx, subject)
		return index.Manifests, err
	}
	return found, err
}

// referrersByAPI reads all pages of the list; known is false where the registry
// does not have the API.
func (s *session) referrersByAPI(ctx context.Context, subject v1.Hash) (found []v1.Descriptor, known bool, err error) {
	seen := map[v1.Hash]bool{}
	l := list{path: s.repo + "/referrers/" + subject.String(), accept: string(types.OCIImageIndex)}
	err = s.pages(ctx, l, func(p page) (n int, enough bool, err error) {
		if known = p.isIndex(); !known {
			return 0, true, nil
		}
		index, err := s.referrersIn(p.raw, s.ref)
		for _, d := range index.Manifests {
			if !seen[d.Digest] {
				seen[d.Digest] = true
				found = append(found, d)
			}
		}
		if err == nil && len(found) > maxReferrers {
			err = s.endless()
		}
		return len(index.Manifests), false, err
	})
	if !known && hasNoReferrers(err) {
		return nil, false, nil
	}
	return found, known, err
}

// isIndex reports whether p is what the referrers API answers with, in contrast
// to the page that some servers have for every path.
func (p page) isIndex() bool {
	contentType, _, _ := mime.ParseMediaType(p.header.Get("Content-Type"))
	return types.MediaType(contentType) == types.OCIImageIndex
}

// hasNoReferrers: registries without the API answer so. Those that have it know
// neither of these for a digest of which nothing refers.
func hasNoReferrers(err error) bool {
	if is[*NotFoundError](err) {
		return true
	}
	status, ok := errors.AsType[*StatusError](err)
	if !ok {
		return false
	}
	switch status.Status {
	case http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusNotAcceptable, http.StatusNotImplemented:
		return true
	}
	return false
}

// referrersByTag reads the index that stands in for the API: the zero one where
// there is none.
func (s *session) referrersByTag(ctx context.Context, subject v1.Hash) (v1.IndexManifest, error) {
	tag := ReferrersTag(subject)
	raw, desc, err := s.manifest(ctx, tag, nil)
	if is[*NotFoundError](err) {
		return v1.IndexManifest{}, nil
	}
	if err != nil {
		return v1.IndexManifest{}, err
	}
	if !desc.MediaType.IsIndex() {
		return v1.IndexManifest{}, &FormatError{Ref: s.ref + ":" + tag, Why: "it is no list of referrers"}
	}
	index, err := s.referrersIn(raw, s.ref+":"+tag)
	if err == nil && len(index.Manifests) > maxReferrers {
		err = s.endless()
	}
	return index, err
}

// referrersIn reads one list of them.
func (s *session) referrersIn(raw []byte, name string) (v1.IndexManifest, error) {
	var index v1.IndexManifest
	if err := json.Unmarshal(raw, &index); err != nil {
		return v1.IndexManifest{}, &FormatError{Ref: name, Why: "the list of its referrers from " + s.to.account() + " is not valid"}
	}
	for _, d := range index.Manifests {
		if d.Digest.Hex == "" || d.Size < 0 || d.Size > maxManifest {
			return v1.IndexManifest{}, &FormatError{Ref: name, Why: fmt.Sprintf("referrer %s has %d bytes", d.Digest, d.Size)}
		}
	}
	return index, nil
}

// ReferrersTag is the tag that stands in for the referrers API of a registry
// without it: "sha256-" and the digits of the subject's digest
// (https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#referrers-tag-schema).
func ReferrersTag(subject v1.Hash) string {
	return fmt.Sprintf("%.32s-%.64s", subject.Algorithm, subject.Hex)
}

// IsReferrersTag reports whether tag has the form of [ReferrersTag], or is one
// that cosign makes from it ("sha256-HEX.sig"), and of which subject.
func IsReferrersTag(tag string) (subject v1.Hash, ok bool) {
	algorithm, rest, _ := strings.Cut(tag, "-")
	digits, suffix, dotted := strings.Cut(rest, ".")
	subject, err := v1.NewHash(algorithm + ":" + digits)
	return subject, err == nil && (!dotted || suffix != "")
}
