package registry

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"
)

// Holdings are the tags of one repository and the manifests that they lead to, as
// the host that pushes go to has them: what mirrors have is no reason to keep or
// to remove anything. Manifests without a tag, that no index or referrer leads to
// either, are in no registry's lists, and so not in here.
type Holdings struct {
	client  *Client
	session *session
	repo    reference.Named
	tags    []Holding
	nodes   map[v1.Hash]*node
}

// Holding is one tag.
type Holding struct {
	Tag        string
	Descriptor v1.Descriptor // of what it names, without a platform
	About      About         // zero before [Holdings.Describe]
}

// node is a manifest. Of an image nothing is read until somebody wants to know.
type node struct {
	desc     v1.Descriptor
	children []v1.Descriptor // of an index: the manifests in it

	// These are nil as long as nobody has asked.
	details   *details
	about     *About
	referrers *[]v1.Descriptor
}

// Holdings asks for the tags of repo, and for the digest of each: a HEAD request
// a tag, and a GET of each index. A tag or digest in repo does not matter. The
// errors are those of [Client.Get].
func (c *Client) Holdings(ctx context.Context, repo reference.Named) (*Holdings, error) {
	s, err := c.writer(ctx, repo)
	if err != nil {
		return nil, err
	}
	return c.holdings(ctx, s, repo, func(string) bool { return true })
}

// Look is Holdings for who only reads: of the tags that are wanted, and from the
// host that a pull would read from. Nothing can be removed with what it returns.
func (c *Client) Look(ctx context.Context, repo reference.Named, wanted func(tag string) bool) (h *Holdings, err error) {
	err = c.readFrom(ctx, repo, func(s *session) error {
		h, err = c.holdings(ctx, s, repo, wanted)
		return err
	})
	return h, err
}

func (c *Client) holdings(ctx context.Context, s *session, repo reference.Named, wanted func(tag string) bool) (*Holdings, error) {
	tags, err := s.tags(ctx)
	if err != nil {
		return nil, err
	}
	tags = slices.DeleteFunc(tags, func(tag string) bool { return !wanted(tag) })
	h := &Holdings{client: c, session: s, repo: reference.TrimNamed(repo), nodes: map[v1.Hash]*node{}}
	found := make([]v1.Descriptor, len(tags))
	if err := each(ctx, len(tags), func(ctx context.Context, i int) error {
		d, err := s.stat(ctx, tags[i])
		if is[*NotFoundError](err) {
			return nil // gone since it was listed, or naming nothing, as old registries' tags may
		}
		found[i] = d
		return err
	}); err != nil {
		return nil, err
	}
	for i, d := range found {
		if d.Digest.Hex != "" {
			h.tags = append(h.tags, Holding{Tag: tags[i], Descriptor: d})
		}
	}
	return h, h.grow(ctx, found)
}

// writer is a session that may remove things, with the host that pushes go to.
func (c *Client) writer(ctx context.Context, repo reference.Named) (*session, error) {
	repo = reference.TrimNamed(repo)
	hosts, err := c.endpoints(ctx, reference.Domain(repo), reference.Path(repo), docker.HostCapabilityPush)
	if err != nil {
		return nil, err
	}
	return c.session(hosts[0], repo, "delete,push,pull"), nil
}

// All are the tags in the registry's order.
func (h *Holdings) All() []Holding { return h.tags }

// Tags are All but for those that stand in for referrers (see [IsReferrersTag]).
func (h *Holdings) Tags() []Holding {
	return slices.DeleteFunc(slices.Clone(h.tags), func(t Holding) bool {
		_, standsIn := IsReferrersTag(t.Tag)
		return standsIn
	})
}

// grow reads every index among ds, and those below them.
func (h *Holdings) grow(ctx context.Context, ds []v1.Descriptor) error {
	for len(ds) > 0 {
		var indexes, below []v1.Descriptor
		for _, d := range ds {
			if d.Digest.Hex == "" || h.nodes[d.Digest] != nil {
				continue
			}
			h.nodes[d.Digest] = &node{desc: d}
			if d.MediaType.IsIndex() {
				indexes = append(indexes, d)
			}
		}
		if err := each(ctx, len(indexes), func(ctx context.Context, i int) error {
			_, err := h.load(ctx, indexes[i].Digest)
			return err
		}); err != nil {
			return err
		}
		for _, d := range indexes {
			n := h.nodes[d.Digest]
			n.children = slices.DeleteFunc(slices.Clone(n.details.Manifests), func(d v1.Descriptor) bool { return !isManifest(d.MediaType) })
			below = append(below, n.children...)
		}
		ds = below
	}
	return nil
}

// stat asks what id, a tag or a digest, stands for, by HEAD where the registry
// answers that: some have everything not found then.
func (s *session) stat(ctx context.Context, id string) (v1.Descriptor, error) {
	d, ok := s.head(ctx, id)
	mediaType, _, _ := strings.Cut(string(d.MediaType), ";")
	if d.MediaType = types.MediaType(mediaType); ok && isManifest(d.MediaType) {
		return d, nil
	}
	_, d, err := s.manifest(ctx, id, nil)
	return d, err
}

// each calls do for 0 to n-1, some at a time. The first error ends the others.
func each(ctx context.Context, n int, do func(ctx context.Context, i int) error) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(surveyors)
	for i := range n {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error { return do(gctx, i) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

// find returns the tag's entry, by its name.
func (h *Holdings) find(tag string) (Holding, error) {
	for _, t := range h.tags {
		if t.Tag == tag {
			return t, nil
		}
	}
	return Holding{}, &NotFoundError{Ref: fmt.Sprintf("%s:%s", reference.FamiliarName(h.repo), tag)}
}
