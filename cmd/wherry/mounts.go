package main

import (
	"sync"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/wherry-oci/wherry/layout"
	"github.com/wherry-oci/wherry/registry"
)

// maxOrigins bounds how many images are looked into for blobs that a registry
// may have in another repository.
const maxOrigins = 500

// mountable is an image of the store that knows in which other repositories of a
// registry its blobs may be found: those of which the store has images with the
// same blobs.
type mountable struct {
	*layout.Image
	origins func() map[v1.Hash][]reference.Named
}

var _ registry.Origins = mountable{}

// Origins implements [registry.Origins].
func (m mountable) Origins(d v1.Descriptor) []reference.Named { return m.origins()[d.Digest] }

// withOrigins is img on its way to ref.
func withOrigins(store *layout.Store, img *layout.Image, ref reference.Named) mountable {
	return mountable{Image: img, origins: sync.OnceValue(func() map[v1.Hash][]reference.Named {
		return originsIn(store, ref)
	})}
}

// originsIn tells of the blobs of all images that have names in ref's registry, but
// not in its repository. What cannot be read is left out: blobs can always be sent.
func originsIn(store *layout.Store, ref reference.Named) map[v1.Hash][]reference.Named {
	origins := map[v1.Hash][]reference.Named{}
	images, err := store.List()
	if err != nil {
		return nil
	}
	looked := 0
	for _, img := range images {
		name, err := reference.ParseNormalizedNamed(img.Name())
		if err != nil || reference.Domain(name) != reference.Domain(ref) || name.Name() == ref.Name() {
			continue
		}
		if looked++; looked > maxOrigins {
			break
		}
		for _, d := range blobsOf(img) {
			origins[d.Digest] = append(origins[d.Digest], reference.TrimNamed(name))
		}
	}
	return origins
}

// blobsOf are config and layers of each platform of img that the store has.
func blobsOf(img *layout.Image) []v1.Descriptor {
	parts := []*layout.Image{img}
	if img.IsIndex() {
		parts = nil
		platforms, err := img.Platforms()
		if err != nil {
			return nil
		}
		for _, p := range platforms {
			if one, err := img.Select(p.Platform); err == nil && p.Present {
				parts = append(parts, one)
			}
		}
	}
	var blobs []v1.Descriptor
	for _, one := range parts {
		if m, err := one.Manifest(); err == nil {
			blobs = append(append(blobs, m.Config), m.Layers...)
		}
	}
	return blobs
}
