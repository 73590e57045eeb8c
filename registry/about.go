package registry

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// About is what an image says of itself.
type About struct {
	// Created is the time in its config, of an index that of its newest image;
	// zero where there is none. What is earlier than the first release of docker
	// is none: tools write 1970 where a build has to be the same every time.
	Created time.Time
	// Size is that of its layers and configs as they are stored, in bytes, of an
	// index that of all its images together; each blob counts once.
	Size int64

	blobs map[v1.Hash]int64
}

// firstDocker is when the first images were made.
var firstDocker = time.Date(2013, time.March, 20, 0, 0, 0, 0, time.UTC)

// Describe reads the manifests and configs of these tags, so that their About is
// known from then on.
func (h *Holdings) Describe(ctx context.Context, tags []string) error {
	wanted := map[string]bool{}
	for _, t := range tags {
		wanted[t] = true
	}
	var leaves []v1.Descriptor
	queued := map[v1.Hash]bool{}
	for _, t := range h.tags {
		if wanted[t.Tag] {
			h.reach([]v1.Hash{t.Descriptor.Digest}, queued, func(n *node) {
				if !n.desc.MediaType.IsIndex() {
					leaves = append(leaves, n.desc)
				}
			})
		}
	}
	if err := each(ctx, len(leaves), func(ctx context.Context, i int) error { return h.read(ctx, leaves[i].Digest) }); err != nil {
		return err
	}
	for i, t := range h.tags {
		if wanted[t.Tag] {
			h.tags[i].About = h.sum(t.Descriptor.Digest)
		}
	}
	return nil
}

// reach visits the manifests that roots lead to, each once.
func (h *Holdings) reach(roots []v1.Hash, seen map[v1.Hash]bool, visit func(*node)) {
	for len(roots) > 0 {
		digest := roots[0]
		roots = roots[1:]
		n := h.nodes[digest]
		if n == nil || seen[digest] {
			continue
		}
		seen[digest] = true
		if visit != nil {
			visit(n)
		}
		for _, d := range n.children {
			roots = append(roots, d.Digest)
		}
	}
}

// details are the parts of a manifest that are looked at.
type details struct {
	Config      v1.Descriptor     `json:"config"`
	Layers      []v1.Descriptor   `json:"layers"`
	Manifests   []v1.Descriptor   `json:"manifests"`
	Subject     *v1.Descriptor    `json:"subject"`
	Annotations map[string]string `json:"annotations"`
}

// details of a manifest. One that is not there, as an index may have been pushed
// for some platforms only, has none, and neither has one of a kind that nobody
// knows; of an index the error counts, as what it needs must be known.
func (s *session) details(ctx context.Context, d v1.Descriptor) (*details, error) {
	var found details
	raw, _, err := s.manifest(ctx, d.Digest.String(), []string{string(d.MediaType)})
	if err == nil && json.Unmarshal(raw, &found) != nil {
		err = &FormatError{Ref: s.ref + "@" + d.Digest.String(), Why: "it is not what its media type says"}
	}
	if is[*NotFoundError](err) || is[*FormatError](err) && !d.MediaType.IsIndex() {
		return &details{}, nil
	}
	return &found, err
}

// load the details of a manifest, once.
func (h *Holdings) load(ctx context.Context, digest v1.Hash) (*details, error) {
	n := h.nodes[digest]
	var err error
	if n.details == nil {
		n.details, err = h.session.details(ctx, n.desc)
	}
	return n.details, err
}

// read a manifest and its config.
func (h *Holdings) read(ctx context.Context, digest v1.Hash) error {
	n := h.nodes[digest]
	if n.about != nil {
		return nil
	}
	m, err := h.load(ctx, digest)
	if err != nil {
		return err
	}
	about, err := h.session.about(ctx, *m)
	n.about = &about
	return err
}

// about an image with the manifest m.
func (s *session) about(ctx context.Context, m details) (About, error) {
	a := About{blobs: map[v1.Hash]int64{m.Config.Digest: m.Config.Size}}
	for _, l := range m.Layers {
		a.blobs[l.Digest] = l.Size
	}
	a.Created = moment(m.Annotations["org.opencontainers.image.created"])
	if !m.Config.MediaType.IsConfig() || m.Config.Size > maxManifest {
		return a, nil
	}
	r, err := s.blob(ctx, m.Config, 0)
	if is[*NotFoundError](err) {
		return a, nil
	}
	if err != nil {
		return a, err
	}
	defer r.Close()
	raw, err := io.ReadAll(io.LimitReader(r, maxManifest))
	if err != nil {
		return a, err
	}
	var config struct {
		Created string `json:"created"`
	}
	if got, err := hashOf(m.Config.Digest.Algorithm, raw); err != nil || got != m.Config.Digest || json.Unmarshal(raw, &config) != nil {
		return a, nil // its word is not taken
	}
	if t := moment(config.Created); !t.IsZero() {
		a.Created = t
	}
	return a, nil
}

// moment reads a time that means something; see [About].
func moment(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || t.Before(firstDocker) {
		return time.Time{}
	}
	return t
}

// sum is what the images below a manifest say together.
func (h *Holdings) sum(root v1.Hash) About {
	all := About{blobs: map[v1.Hash]int64{}}
	h.reach([]v1.Hash{root}, map[v1.Hash]bool{}, func(n *node) {
		if n.about == nil {
			return
		}
		maps.Copy(all.blobs, n.about.blobs)
		if n.about.Created.After(all.Created) {
			all.Created = n.about.Created
		}
	})
	for _, size := range all.blobs {
		all.Size += size
	}
	return all
}
