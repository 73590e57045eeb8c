package registry

import (
	"context"
	"net/http"
	"strconv"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Head resolves ref as [Client.Get] does, and by the same hosts, without reading
// the manifest: registries that count pulls do not count it. What the registry
// says is not verified; the MediaType may be empty. Where a registry does not
// answer such questions, the manifest is read. The errors are those of
// [Client.Get].
func (c *Client) Head(ctx context.Context, ref reference.Named) (v1.Descriptor, error) {
	caps := docker.HostCapabilityPull | docker.HostCapabilityResolve
	if _, pinned := ref.(reference.Digested); pinned {
		caps = docker.HostCapabilityPull
	}
	hosts, err := c.endpoints(ctx, reference.Domain(ref), reference.Path(ref), caps)
	if err != nil {
		return v1.Descriptor{}, err
	}
	s := c.session(hosts[0], ref, "pull")
	if d, ok := s.head(ctx, identifier(ref)); ok {
		return d, nil
	}
	img, err := c.Get(ctx, ref)
	if err != nil {
		return v1.Descriptor{}, err
	}
	return img.desc, nil
}

// Has reports whether ref, of which the descriptor is d, is what a push to ref
// would find there. Whatever goes wrong is left for the push to find out.
func (c *Client) Has(ctx context.Context, ref reference.Named, d v1.Hash) bool {
	s, err := c.pushSession(ctx, ref)
	if err != nil {
		return false
	}
	there, ok := s.head(ctx, identifier(ref))
	return ok && there.Digest == d
}

// head asks for what id stands for; ok is false for any answer but a plain one.
func (s *session) head(ctx context.Context, id string) (d v1.Descriptor, ok bool) {
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, s.to.url(s.repo+"/manifests/"+id).String(), nil)
	if err != nil {
		return v1.Descriptor{}, false
	}
	req.Header["Accept"] = []string{acceptable()}
	resp, err := s.client().Do(req)
	if err != nil {
		return v1.Descriptor{}, false
	}
	discard(resp)
	if resp.StatusCode != http.StatusOK {
		return v1.Descriptor{}, false
	}
	d.Digest, err = v1.NewHash(resp.Header.Get("Docker-Content-Digest"))
	if err != nil {
		return v1.Descriptor{}, false
	}
	d.MediaType = types.MediaType(resp.Header.Get("Content-Type"))
	d.Size, _ = strconv.ParseInt(resp.Header.Get("Content-Length"), 10, 64) // 0 is as good as any other lie
	return d, true
}
