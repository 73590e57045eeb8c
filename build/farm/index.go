package farm

import (
	"encoding/json"
	"fmt"
	"maps"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wherry-oci/wherry/platform"
)

// dockerIndex is what BuildKit makes where the media types are to be docker's.
const (
	dockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
)

// Made is what one node has built: a manifest, or an index over several, over
// attestations or both.
type Made struct {
	Descriptor ocispecs.Descriptor
	Raw        []byte        // the manifest or the index
	Platforms  []v1.Platform // that were built
}

// Annotations are for what no node can annotate: the index, and the descriptors in it.
type Annotations struct {
	Index      map[string]string
	Descriptor map[string]map[string]string // by platform, as [platform.Format] has it; "": of all
}

// Index joins parts: manifests in the order of the platforms wanted, attestations behind
// them. It has the bytes that BuildKit gives an index that it makes whole.
// https://github.com/opencontainers/image-spec/blob/main/image-index.md
func Index(wanted []v1.Platform, made []Made, a Annotations) (ocispecs.Descriptor, []byte, error) {
	var images, others []ocispecs.Descriptor
	for _, m := range made {
		list, err := m.manifests()
		if err != nil {
			return ocispecs.Descriptor{}, nil, err
		}
		for _, d := range list {
			if d.Platform == nil || d.Platform.OS == "unknown" {
				others = append(others, d)
			} else {
				images = append(images, d)
			}
		}
	}
	index := ocispecs.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispecs.MediaTypeImageIndex, Annotations: a.Index}
	for _, p := range wanted {
		for _, d := range images {
			if platform.Matches(p, fromOCI(*d.Platform)) {
				d.Annotations = merged(d.Annotations, a.Descriptor[""], a.Descriptor[platform.Format(p)])
				index.Manifests = append(index.Manifests, d)
			}
		}
	}
	if len(index.Manifests) != len(images) || len(images) != len(wanted) {
		return ocispecs.Descriptor{}, nil, fmt.Errorf("the nodes have made %d images for %d platforms", len(images), len(wanted))
	}
	if index.Manifests[0].MediaType == dockerManifest {
		index.MediaType = dockerIndex
	}
	index.Manifests = append(index.Manifests, others...)
	raw, err := json.MarshalIndent(index, "", "  ")
	if err != nil {
		return ocispecs.Descriptor{}, nil, err
	}
	return ocispecs.Descriptor{MediaType: index.MediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}, raw, nil
}

// manifests are those that a node has made.
func (m Made) manifests() ([]ocispecs.Descriptor, error) {
	if m.Descriptor.MediaType == ocispecs.MediaTypeImageIndex || m.Descriptor.MediaType == dockerIndex {
		var index ocispecs.Index
		if err := json.Unmarshal(m.Raw, &index); err != nil {
			return nil, fmt.Errorf("index %s: %w", m.Descriptor.Digest, err)
		}
		return index.Manifests, nil
	}
	if len(m.Platforms) != 1 {
		return nil, fmt.Errorf("manifest %s is to be for %d platforms", m.Descriptor.Digest, len(m.Platforms))
	}
	p := m.Platforms[0]
	return []ocispecs.Descriptor{{
		MediaType: m.Descriptor.MediaType, Digest: m.Descriptor.Digest, Size: m.Descriptor.Size,
		Platform: &ocispecs.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.OSVersion, OSFeatures: p.OSFeatures},
	}}, nil
}

func merged(all ...map[string]string) map[string]string {
	out := map[string]string{}
	for _, m := range all {
		maps.Copy(out, m)
	}
	if len(out) == 0 {
		return nil
	}
	return out
}
