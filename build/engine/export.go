//go:build linux

package engine

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/moby/buildkit/cache"
	cacheconfig "github.com/moby/buildkit/cache/config"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter"
	imageexporter "github.com/moby/buildkit/exporter/containerimage"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	ociexporter "github.com/moby/buildkit/exporter/oci"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/util/leaseutil"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// Exporter returns BuildKit's exporter called name. Image exporters compress their
// layers on all cores; an image result ends in the image store, linked and named.
func (w *layoutWorker) Exporter(name string, sm *session.Manager) (e exporter.Exporter, err error) {
	switch name {
	case client.ExporterImage:
		e, err = imageexporter.New(imageexporter.Opt{
			Images: w.ImageStore, SessionManager: sm, ImageWriter: w.images,
			RegistryHosts: w.RegistryHosts, LeaseManager: w.LeaseManager(),
		})
	case client.ExporterOCI:
		e, err = newArchiveExporter(w, sm, ociexporter.VariantOCI)
	case client.ExporterDocker:
		e, err = newArchiveExporter(w, sm, ociexporter.VariantDocker)
	default:
		e, err = w.Worker.Exporter(name, sm)
		switch {
		case err == nil && w.snapshots.aside:
			e = &notedExporter{e, sm, w.snapshots.folders}
		case err == nil && w.snapshots.labelled:
			e = &notedExporter{e, sm, nil}
		}
		return &fileExporter{e}, err
	}
	return &imageExporter{Exporter: e, worker: w, toStore: name == client.ExporterImage}, err
}

type imageExporter struct {
	exporter.Exporter
	worker  *layoutWorker
	toStore bool
}

func (e *imageExporter) Resolve(ctx context.Context, id int, attrs map[string]string) (exporter.ExporterInstance, error) {
	own := maps.Clone(attrs)
	times, err := takeTimes(own)
	if err != nil {
		return nil, err
	}
	if e.toStore {
		// BuildKit would name the image before its lazy layers are fetched, and not at all without a name.
		own[string(exptypes.OptKeyStore)] = "false"
	}
	inner, err := e.Exporter.Resolve(ctx, id, own)
	if err != nil {
		return nil, err
	}
	i := &imageExport{ExporterInstance: inner, worker: e.worker, toStore: e.toStore, times: times}
	if names := attrs[string(exptypes.OptKeyName)]; names != "" {
		i.names = strings.Split(names, ",")
	}
	i.byDigest, _ = strconv.ParseBool(attrs[string(exptypes.OptKeyPushByDigest)]) // BuildKit has checked it
	return i, nil
}

// imageExport is one export of an image.
type imageExport struct {
	exporter.ExporterInstance
	worker  *layoutWorker
	names   []string
	toStore bool
	times   times

	byDigest bool // the names are of repositories
}

// Config tells BuildKit, and its inline cache, how layers are compressed.
func (i *imageExport) Config() *exporter.Config {
	return exporter.NewConfigWithCompression(inParallel(i.ExporterInstance.Config().Compression()))
}

func (i *imageExport) Export(ctx context.Context, src *exporter.Source, info exporter.ExportBuildInfo) (map[string]string, exporter.FinalizeFunc, exporter.DescriptorReference, error) {
	group := session.NewGroup(info.SessionID)
	if _, err := remotesOf(ctx, src, i.compression(), group, true); err != nil {
		return nil, nil, nil, err
	}
	timed, err := i.times.apply(src, i.worker.ContentStore())
	if err != nil {
		return nil, nil, nil, err
	}
	res, finalize, ref, err := i.ExporterInstance.Export(ctx, discreet(timed, i.times.all), info)
	if err != nil || !i.toStore {
		return res, finalize, ref, err
	}
	if err := i.adopt(ctx, src, group, ref.Descriptor()); err != nil {
		_ = ref.Release() // the export failed already
		return nil, nil, nil, err
	}
	return res, finalize, ref, nil
}

func (i *imageExport) compression() cacheconfig.RefConfig {
	return cacheconfig.RefConfig{Compression: i.Config().Compression()}
}

// remotesOf returns the layers of every result. With create, their blobs are made
// here and now, before the inner exporter would make them with its own compression.
func remotesOf(ctx context.Context, src *exporter.Source, c cacheconfig.RefConfig, group session.Group, create bool) ([]*solver.Remote, error) {
	refs := refsOf(src)
	all := make([]*solver.Remote, len(refs))
	eg, ctx := errgroup.WithContext(ctx)
	for n, ref := range refs {
		eg.Go(func() error {
			r, err := ref.GetRemotes(ctx, create, c, false, group)
			if err == nil {
				all[n] = r[0]
			}
			return err
		})
	}
	return all, eg.Wait()
}

func refsOf(src *exporter.Source) []cache.ImmutableRef {
	var refs []cache.ImmutableRef
	if src.Ref != nil {
		refs = append(refs, src.Ref)
	}
	for _, r := range src.Refs {
		if r != nil {
			refs = append(refs, r)
		}
	}
	return refs
}

// adopt lets the image store link the result's blobs and name the result. Layers of
// the base that no step has touched are fetched first.
func (i *imageExport) adopt(ctx context.Context, src *exporter.Source, group session.Group, root ocispecs.Descriptor) error {
	ctx, done, err := leaseutil.WithLease(ctx, i.worker.LeaseManager(), leaseutil.MakeTemporary)
	if err != nil {
		return err
	}
	defer func() { _ = done(context.WithoutCancel(ctx)) }() // temporary: dropped at the next start at the latest
	remotes, err := remotesOf(ctx, src, i.compression(), group, false)
	if err != nil {
		return err
	}
	if err := unlazy(ctx, remotes); err != nil {
		return err
	}
	result, err := newSource(i.worker.content, root)
	if err != nil {
		return err
	}
	names := slices.Clone(i.names)
	for n := range names {
		if i.byDigest {
			names[n] += "@" + root.Digest.String()
		}
	}
	_, err = i.worker.store.Adopt(ctx, result, names)
	return err
}

// unlazy fetches the layers that are only known of.
func unlazy(ctx context.Context, remotes []*solver.Remote) error {
	eg, ctx := errgroup.WithContext(ctx)
	for _, r := range remotes {
		if lazy, ok := r.Provider.(cache.Unlazier); ok {
			eg.Go(func() error { return lazy.Unlazy(ctx) })
		}
	}
	return eg.Wait()
}

// Source is a build's result as the image store takes it.
type Source interface {
	Descriptor() v1.Descriptor
	Open(ctx context.Context, d v1.Descriptor, offset int64) (io.ReadCloser, error)
	Path(d v1.Descriptor) (string, bool)
}

// contentSource reads a result from the engine's content folder.
type contentSource struct {
	content *sharedContent
	root    v1.Descriptor
}

func newSource(c *sharedContent, root ocispecs.Descriptor) (*contentSource, error) {
	h, err := v1.NewHash(root.Digest.String())
	if err != nil {
		return nil, fmt.Errorf("result %q: %w", root.Digest, err)
	}
	return &contentSource{c, v1.Descriptor{MediaType: types.MediaType(root.MediaType), Size: root.Size, Digest: h}}, nil
}

func (s *contentSource) Descriptor() v1.Descriptor { return s.root }

func (s *contentSource) Path(d v1.Descriptor) (string, bool) {
	path := s.content.blobPath(digest.Digest(d.Digest.String()))
	info, err := os.Stat(path)
	return path, err == nil && info.Size() == d.Size
}

func (s *contentSource) Open(_ context.Context, d v1.Descriptor, offset int64) (io.ReadCloser, error) {
	f, err := os.Open(s.content.blobPath(digest.Digest(d.Digest.String())))
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		_ = f.Close() // only read
		return nil, err
	}
	return f, nil
}
