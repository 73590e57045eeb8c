//go:build linux

package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/content/proxy"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/buildkit/client"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wherry-oci/wherry/platform"
)

// maxManifest bounds a manifest, an index or a config of the result, in bytes.
const maxManifest = 16 << 20

// images lists the layers of a result, which the engine still has.
func images(ctx context.Context, c *client.Client, result v1.Hash) ([]ReportImage, error) {
	if result == (v1.Hash{}) {
		return nil, nil
	}
	blobs := proxy.NewContentStore(c.ContentClient())
	root, err := readBlob(ctx, blobs, digest.Digest(result.String()))
	if err != nil {
		return nil, err
	}
	index, err := v1.ParseIndexManifest(bytes.NewReader(root))
	if err != nil || len(index.Manifests) == 0 {
		image, err := readImage(ctx, blobs, result, root)
		return []ReportImage{image}, err
	}
	var list []ReportImage
	for _, d := range index.Manifests {
		if d.Annotations["vnd.docker.reference.type"] != "" {
			continue // attestations
		}
		raw, err := readBlob(ctx, blobs, digest.Digest(d.Digest.String()))
		if err != nil {
			return nil, err
		}
		image, err := readImage(ctx, blobs, d.Digest, raw)
		if err != nil {
			return nil, err
		}
		list = append(list, image)
	}
	return list, nil
}

func readImage(ctx context.Context, blobs content.Provider, h v1.Hash, raw []byte) (ReportImage, error) {
	image := ReportImage{Digest: h}
	m, err := v1.ParseManifest(bytes.NewReader(raw))
	if err != nil {
		return image, fmt.Errorf("manifest %s: %w", h, err)
	}
	raw, err = readBlob(ctx, blobs, digest.Digest(m.Config.Digest.String()))
	if err != nil {
		return image, err
	}
	config, err := v1.ParseConfigFile(bytes.NewReader(raw))
	if err != nil {
		return image, fmt.Errorf("config of %s: %w", h, err)
	}
	if p := config.Platform(); p != nil {
		image.Platform = platform.Format(*p)
	}
	var by []string
	for _, step := range config.History {
		if !step.EmptyLayer {
			by = append(by, step.CreatedBy)
		}
	}
	for i, l := range m.Layers {
		layer := ReportLayer{Digest: l.Digest, Size: l.Size}
		if len(by) == len(m.Layers) { // else the history is no account of the layers
			layer.CreatedBy = by[i]
		}
		image.Layers = append(image.Layers, layer)
	}
	return image, nil
}

func readBlob(ctx context.Context, blobs content.Provider, d digest.Digest) (_ []byte, err error) {
	r, err := blobs.ReaderAt(ctx, ocispecs.Descriptor{Digest: d})
	if err != nil {
		return nil, fmt.Errorf("result: %w", err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if r.Size() > maxManifest {
		return nil, fmt.Errorf("result: %s is larger than %d bytes", d, maxManifest)
	}
	text := make([]byte, r.Size())
	if _, err := r.ReadAt(text, 0); err != nil {
		return nil, fmt.Errorf("result: %w", err)
	}
	return text, nil
}
