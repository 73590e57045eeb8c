package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/wherry-oci/wherry/layout"
	"github.com/wherry-oci/wherry/platform"
	"github.com/wherry-oci/wherry/registry"
)

// onlyPlatforms is src without the platforms that nobody asked for: of one the
// manifest alone, as push and all other tools do it, of several an index over
// these and their attestations. It is src itself where nothing is left out. A
// new index has a digest of its own: registries refuse one with gaps.
func onlyPlatforms(ctx context.Context, src registry.Source, want []v1.Platform) (registry.Source, error) {
	if len(want) == 0 {
		return src, nil
	}
	members, err := layout.Members(ctx, src, "", func(h v1.Hash) string { return h.String() })
	if err != nil {
		return nil, err
	}
	var images []v1.Descriptor
	for _, m := range members {
		if !platform.IsAttestation(m.Descriptor) {
			images = append(images, m.Descriptor)
		}
	}
	if len(images) == 1 && images[0].Platform == nil && !src.Descriptor().MediaType.IsIndex() {
		return src, nil // it says of no platform that it is not for it
	}
	keep := map[v1.Hash]bool{}
	var one v1.Descriptor
	for _, p := range want {
		if one, err = platform.Select(images, p); err != nil {
			return nil, err
		}
		keep[one.Digest] = true
	}
	if len(keep) > 1 {
		return indexOf(ctx, src, members, keep)
	}
	if one.Digest == src.Descriptor().Digest {
		return src, nil
	}
	d := v1.Descriptor{MediaType: one.MediaType, Size: one.Size, Digest: one.Digest, ArtifactType: one.ArtifactType}
	return registry.Rooted(src, d, nil), nil
}

// indexOf is src's index with what is kept of its manifests, each described as
// it was. What stood in an index within the index stands beside the others.
func indexOf(ctx context.Context, src registry.Source, members []layout.Member, keep map[v1.Hash]bool) (registry.Source, error) {
	var kept []v1.Descriptor
	for _, m := range members {
		about, _ := v1.NewHash(m.Descriptor.Annotations[platform.AttestationSubject])
		if keep[m.Descriptor.Digest] || platform.IsAttestation(m.Descriptor) && keep[about] {
			kept = append(kept, m.Descriptor)
		}
	}
	if len(kept) == len(members) {
		return src, nil
	}
	r, err := src.Open(ctx, src.Descriptor(), 0)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var index v1.IndexManifest // Members has verified it
	if err := json.NewDecoder(io.LimitReader(r, src.Descriptor().Size)).Decode(&index); err != nil {
		return nil, err
	}
	index.MediaType, index.Manifests = src.Descriptor().MediaType, kept
	raw, err := json.Marshal(index)
	if err != nil {
		return nil, err
	}
	return newRoot(src, index.MediaType, raw)
}

// newRoot is src below a document that was made here.
func newRoot(src registry.Source, mediaType types.MediaType, raw []byte) (registry.Source, error) {
	h, size, err := v1.SHA256(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	return registry.Rooted(src, v1.Descriptor{MediaType: mediaType, Size: size, Digest: h}, raw), nil
}

// sayReduced tells that the copy is not the image that was named, as signatures of
// that do not fit.
func (c *copier) sayReduced(was v1.Descriptor, is v1.Hash, name string) {
	if was.Digest != is && len(c.platforms) > 1 && !c.quiet {
		c.env.note(fmt.Sprintf("%s is a new index of these platforms: %s instead of %s", name, is, was.Digest))
	}
}
