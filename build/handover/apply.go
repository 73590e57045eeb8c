//go:build linux

package handover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/mount"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Applier unpacks layers into active snapshots. The first layer that is applied to a snapshot is kept as what makes it
// out of its parent, so nothing else may have changed it, nor may before it is committed; BuildKit and containerd
// commit at once.
func (s *Snapshots) Applier(store content.Provider) diff.Applier { return &applier{s, store} }

type applier struct {
	snapshots *Snapshots
	store     content.Provider
}

func (a *applier) Apply(ctx context.Context, desc ocispecs.Descriptor, mounts []mount.Mount, opts ...diff.ApplyOpt) (_ ocispecs.Descriptor, err error) {
	var config diff.ApplyConfig
	for _, o := range opts {
		if err := o(ctx, desc, &config); err != nil {
			return ocispecs.Descriptor{}, err
		}
	}
	id, root, err := a.snapshots.locate(mounts)
	if err != nil {
		return ocispecs.Descriptor{}, err
	}
	ra, err := a.store.ReaderAt(ctx, desc)
	if err != nil {
		return ocispecs.Descriptor{}, fmt.Errorf("read the layer %s: %w", desc.Digest, err)
	}
	defer func() { _ = ra.Close() }() // only read
	layer, finish, err := uncompressed(ctx, desc, ra, config)
	if err != nil {
		return ocispecs.Descriptor{}, err
	}
	defer func() { err = errors.Join(err, finish()) }()
	return a.snapshots.apply(ctx, id, root, layer)
}

// uncompressed is the layer's tar. The function that ends it says whether it was read well.
func uncompressed(ctx context.Context, desc ocispecs.Descriptor, ra content.ReaderAt, config diff.ApplyConfig) (io.Reader, func() error, error) {
	r := content.NewReader(ra)
	if config.Progress != nil {
		r = &progressReader{r: r, tell: config.Progress}
	}
	all := []diff.StreamProcessor{diff.NewProcessorChain(desc.MediaType, r)}
	for {
		p, err := diff.GetProcessor(ctx, all[len(all)-1], config.ProcessorPayloads)
		if err != nil {
			return nil, nil, fmt.Errorf("unpack a layer of the type %q: %w", desc.MediaType, err)
		}
		all = append(all, p)
		if p.MediaType() == ocispecs.MediaTypeImageLayer {
			break
		}
	}
	return all[len(all)-1], func() error {
		err := all[len(all)-1].Close()
		for _, p := range all {
			if failed, ok := p.(interface{ Err() error }); ok {
				err = errors.Join(err, failed.Err())
			}
		}
		return err
	}, nil
}

// progressReader tells how much was read before each read.
type progressReader struct {
	r    io.Reader
	n    int64
	tell func(int64)
}

func (p *progressReader) Read(b []byte) (int, error) {
	p.tell(p.n)
	n, err := p.r.Read(b)
	p.n += int64(n)
	return n, err
}

// apply unpacks a layer, and keeps it if it is the first.
func (s *Snapshots) apply(ctx context.Context, id, root string, layer io.Reader) (_ ocispecs.Descriptor, err error) {
	kept, err := s.keepLayer(id)
	if err != nil {
		return ocispecs.Descriptor{}, err
	}
	digester, c := digest.Canonical.Digester(), &counter{}
	copies := io.MultiWriter(digester.Hash(), c)
	if kept != nil {
		copies = io.MultiWriter(copies, kept)
	}
	r, stop := readAhead(io.TeeReader(layer, copies))
	err = s.unpack(ctx, root, r)
	if err == nil {
		_, err = io.Copy(io.Discard, r) // what follows the tar's end
	}
	stop()
	if kept != nil {
		err = errors.Join(err, kept.Close())
	}
	if err != nil {
		s.applied.Delete(id)
		return ocispecs.Descriptor{}, err
	}
	if kept != nil {
		s.applied.Store(id, true)
	}
	return ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageLayer, Size: c.n, Digest: digester.Digest()}, nil
}

// keepLayer returns where the snapshot's first layer is kept. There is nothing to keep of further ones: what they make
// together is found by comparing.
func (s *Snapshots) keepLayer(id string) (*os.File, error) {
	dir := s.deltaOf(id) + partial
	if err := os.Mkdir(dir, 0o700); err != nil {
		if errors.Is(err, os.ErrExist) {
			s.applied.Delete(id)
			return nil, nil
		}
		return nil, err
	}
	return os.OpenFile(filepath.Join(dir, layerName), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}
