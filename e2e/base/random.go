package base

import (
	"math/rand"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Random returns an image of incompressible layers for p: the same seed gives
// the same bytes. Size is that of one layer.
func Random(seed, layers, size int64, p v1.Platform) (v1.Image, error) {
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.ConfigFile(img, &v1.ConfigFile{
		OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.OSVersion,
		Created: v1.Time{Time: time.Unix(1750000000+seed, 0).UTC()}, RootFS: v1.RootFS{Type: "layers"},
		Config: v1.Config{
			Env: []string{"PATH=/bin"}, Cmd: []string{"/bin/true"},
			Labels: map[string]string{"org.example.seed": time.Unix(seed, 0).UTC().Format(time.RFC3339)},
		},
	})
	if err != nil {
		return nil, err
	}
	source := rand.NewSource(seed)
	for range layers {
		layer, err := random.Layer(size, types.OCILayer, random.WithSource(source))
		if err != nil {
			return nil, err
		}
		img, err = mutate.Append(img, mutate.Addendum{Layer: layer, History: v1.History{
			Created: v1.Time{Time: time.Unix(1750000000, 0).UTC()}, CreatedBy: "RUN /bin/sh -c make random", Comment: "story",
		}})
		if err != nil {
			return nil, err
		}
	}
	return img, nil
}

// RandomIndex returns an index over one Random image for each platform.
func RandomIndex(seed, layers, size int64, platforms []v1.Platform) (v1.ImageIndex, error) {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for i, p := range platforms {
		img, err := Random(seed+int64(i)*1000, layers, size, p)
		if err != nil {
			return nil, err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &p}})
	}
	return index, nil
}

// Nested returns an index in an index in an index.
func Nested(depth int) (v1.ImageIndex, error) {
	index, err := RandomIndex(1, 1, 100, Platforms())
	if err != nil {
		return nil, err
	}
	for range depth {
		index = mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), mutate.IndexAddendum{Add: index})
	}
	return index, nil
}
