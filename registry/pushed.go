package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// The types here show a Source to ggcr's pusher as its own images, indexes and
// layers. They are read late, as what the registry has may be missing in the
// source, and never more of them than names what to send: a config is bytes.

// described is the part that all of them have: what their descriptor says.
type described struct{ desc v1.Descriptor }

// Digest implements [partial.Describable].
func (d described) Digest() (v1.Hash, error) { return d.desc.Digest, nil }

// Size implements [partial.Describable].
func (d described) Size() (int64, error) { return d.desc.Size, nil }

// MediaType implements [partial.Describable].
func (d described) MediaType() (types.MediaType, error) { return d.desc.MediaType, nil }

// manifest of an image, an index, or anything else that registries keep among
// the manifests.
func (p *push) manifest(ctx context.Context, d v1.Descriptor) (remote.Taggable, error) {
	doc := &document{described{d}, sync.OnceValues(func() ([]byte, error) { return p.readManifest(ctx, d) })}
	blob := func(d v1.Descriptor) v1.Layer { return p.blob(ctx, d) }
	if d.MediaType.IsIndex() {
		return &pushedIndex{document: doc, blob: blob, child: func(d v1.Descriptor) (remote.Taggable, error) {
			return p.manifest(ctx, d)
		}}, nil
	}
	core := &imageCore{document: doc, blob: blob}
	image, err := partial.CompressedToImage(core)
	if err != nil {
		return nil, err
	}
	return &pushedImage{Image: image, core: core}, nil
}

// readManifest reads and verifies a manifest of the source.
func (p *push) readManifest(ctx context.Context, d v1.Descriptor) ([]byte, error) {
	raw, err := readDocument(func() (io.ReadCloser, error) { return p.open(ctx, d) }, d.Digest)
	if err != nil {
		return nil, p.failed(d, err)
	}
	p.referrals.note(raw, d)
	return raw, nil
}

// open reads d in the source, or in the descriptor if it carries its content.
func (p *push) open(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	return p.openAt(ctx, d, 0)
}

func (p *push) openAt(ctx context.Context, d v1.Descriptor, offset int64) (io.ReadCloser, error) {
	if len(d.Data) > 0 && int64(len(d.Data)) == d.Size {
		return io.NopCloser(bytes.NewReader(d.Data[offset:])), nil
	}
	return p.source.Open(ctx, d, offset)
}

// document is a manifest or index that is read once, when it is needed.
type document struct {
	described
	read func() ([]byte, error)
}

// RawManifest implements [remote.Taggable].
func (m *document) RawManifest() ([]byte, error) { return m.read() }

// refers is all that names other content in any kind of manifest; blobs are those
// of the artifact manifests that the image specification had for a while.
type refers struct {
	Config    *v1.Descriptor  `json:"config"`
	Layers    []v1.Descriptor `json:"layers"`
	Blobs     []v1.Descriptor `json:"blobs"`
	Manifests []v1.Descriptor `json:"manifests"`
}

func (m *document) refers() (refers, error) {
	raw, err := m.RawManifest()
	if err != nil {
		return refers{}, err
	}
	var r refers
	if err := json.Unmarshal(raw, &r); err != nil {
		return refers{}, fmt.Errorf("manifest %s: %w", m.desc.Digest, err)
	}
	return r, nil
}

// imageCore is a manifest with blobs below it.
type imageCore struct {
	*document
	blob func(d v1.Descriptor) v1.Layer
}

// RawConfigFile implements [partial.ImageCore].
func (i *imageCore) RawConfigFile() ([]byte, error) {
	config, err := i.config()
	if err != nil {
		return nil, err
	}
	r, err := config.Compressed()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(io.LimitReader(r, maxManifest))
}

// config is, of a manifest without one, what ggcr leaves out: a blob that may
// not be distributed.
func (i *imageCore) config() (v1.Layer, error) {
	r, err := i.refers()
	if err != nil {
		return nil, err
	}
	if r.Config == nil {
		return i.blob(v1.Descriptor{MediaType: types.OCIRestrictedLayer}), nil
	}
	config := *r.Config
	if !config.MediaType.IsDistributable() {
		config.MediaType = types.OCIConfigJSON // a config always is
	}
	return i.blob(config), nil
}

// LayerByDigest implements [partial.CompressedImageCore].
func (i *imageCore) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	r, err := i.refers()
	if err != nil {
		return nil, err
	}
	for _, d := range append(r.Layers, r.Blobs...) {
		if d.Digest == h {
			return i.blob(d), nil
		}
	}
	return nil, fmt.Errorf("manifest %s has no layer %s", i.desc.Digest, h)
}

// pushedImage is a [v1.Image] whose digest is known before it is read, and whose
// layers may be anything.
type pushedImage struct {
	v1.Image
	core *imageCore
}

// Digest implements [v1.Image].
func (i *pushedImage) Digest() (v1.Hash, error) { return i.core.Digest() }

// Size implements [v1.Image].
func (i *pushedImage) Size() (int64, error) { return i.core.Size() }

// ConfigLayer is what ggcr sends as the config.
func (i *pushedImage) ConfigLayer() (v1.Layer, error) { return i.core.config() }

// Layers implements [v1.Image].
func (i *pushedImage) Layers() ([]v1.Layer, error) {
	r, err := i.core.refers()
	if err != nil {
		return nil, err
	}
	var layers []v1.Layer
	for _, d := range append(r.Layers, r.Blobs...) {
		layers = append(layers, i.core.blob(d))
	}
	return layers, nil
}

// pushedIndex is a [v1.ImageIndex] over whatever the index names.
type pushedIndex struct {
	*document
	blob  func(d v1.Descriptor) v1.Layer
	child func(d v1.Descriptor) (remote.Taggable, error)
}

// Manifests gives ggcr the children. What is no kind of manifest is sent as a
// blob.
func (x *pushedIndex) Manifests() ([]partial.Describable, error) {
	r, err := x.refers()
	if err != nil {
		return nil, err
	}
	var children []partial.Describable
	for _, d := range r.Manifests {
		if !isManifest(d.MediaType) {
			children = append(children, x.blob(d))
			continue
		}
		child, err := x.child(d)
		if err != nil {
			return nil, err
		}
		children = append(children, child.(partial.Describable)) // both kinds are
	}
	return children, nil
}

// IndexManifest implements [v1.ImageIndex].
func (x *pushedIndex) IndexManifest() (*v1.IndexManifest, error) {
	raw, err := x.RawManifest()
	if err != nil {
		return nil, err
	}
	return v1.ParseIndexManifest(bytes.NewReader(raw))
}

// Image implements [v1.ImageIndex].
func (x *pushedIndex) Image(h v1.Hash) (v1.Image, error) {
	child, err := x.find(h)
	if err != nil {
		return nil, err
	}
	if image, ok := child.(v1.Image); ok {
		return image, nil
	}
	return nil, fmt.Errorf("%s is no image", h)
}

// ImageIndex implements [v1.ImageIndex].
func (x *pushedIndex) ImageIndex(h v1.Hash) (v1.ImageIndex, error) {
	child, err := x.find(h)
	if err != nil {
		return nil, err
	}
	if index, ok := child.(v1.ImageIndex); ok {
		return index, nil
	}
	return nil, fmt.Errorf("%s is no index", h)
}

func (x *pushedIndex) find(h v1.Hash) (remote.Taggable, error) {
	r, err := x.refers()
	if err != nil {
		return nil, err
	}
	for _, d := range r.Manifests {
		if d.Digest == h {
			return x.child(d)
		}
	}
	return nil, fmt.Errorf("index %s has no manifest %s", x.desc.Digest, h)
}

// blob is a config or layer as ggcr sends it: never compressed again, mounted
// where its origin is known.
func (p *push) blob(ctx context.Context, d v1.Descriptor) v1.Layer {
	p.blobs.Store(d.Digest.String(), d)
	layer := &pushedBlob{described{d}, func() (io.ReadCloser, error) { return p.openBlob(ctx, d) }}
	if from := p.origin(d); from != "" {
		return &remote.MountableLayer{Layer: layer, Reference: p.registry.Repo(from).Digest(d.Digest.String())}
	}
	return layer
}

func (p *push) openBlob(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	r, err := p.open(ctx, d)
	if err != nil {
		return nil, p.failed(d, err)
	}
	if p.progress != nil {
		p.progress(d, 0)
	}
	return &sending{ReadCloser: r, p: p, d: d}, nil
}

// pushedBlob is a [v1.Layer] that is only ever sent as it is.
type pushedBlob struct {
	described
	open func() (io.ReadCloser, error)
}

// Compressed implements [v1.Layer]: the blob as it is stored.
func (b *pushedBlob) Compressed() (io.ReadCloser, error) { return b.open() }

// Uncompressed implements [v1.Layer].
func (b *pushedBlob) Uncompressed() (io.ReadCloser, error) { return nil, errors.ErrUnsupported }

// DiffID implements [v1.Layer].
func (b *pushedBlob) DiffID() (v1.Hash, error) { return v1.Hash{}, errors.ErrUnsupported }

// sending tells how far a blob is.
type sending struct {
	io.ReadCloser
	p    *push
	d    v1.Descriptor
	sent int64
}

// Read implements [io.Reader].
func (s *sending) Read(b []byte) (int, error) {
	n, err := s.ReadCloser.Read(b)
	s.sent += int64(n)
	if n > 0 && s.p.progress != nil {
		s.p.progress(s.d, s.sent)
	}
	if err != nil && err != io.EOF { //nolint:errorlint // io.EOF is never wrapped by a Reader
		err = s.p.failed(s.d, err)
	}
	return n, err
}
