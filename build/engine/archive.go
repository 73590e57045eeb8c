//go:build linux

package engine

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/exporter"
	imageexporter "github.com/moby/buildkit/exporter/containerimage"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	ociexporter "github.com/moby/buildkit/exporter/oci"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/util/contentutil"
	"github.com/moby/buildkit/util/leaseutil"
	"github.com/moby/buildkit/util/progress"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// AttrFile is an attribute of archives that BuildKit does not have: the key of a file
// that ShareFile has returned.
const AttrFile = "wherry-file"

// files are those that builds of this process write their archives to, by their keys.
type files struct{ known sync.Map }

// ShareFile has a build of this process write an archive directly to what open returns,
// if its output has the key as AttrFile. BuildKit's own exporter sends archives through
// gRPC, in pieces of 32 KiB; an engine of another process doesn't know the key, and does
// that.
func (e *Engine) ShareFile(open func() (io.WriteCloser, error)) (key string) {
	key = rand.Text()
	e.worker.files.known.Store(key, open)
	return key
}

// archiveExporter is BuildKit's exporter of archives, which still serves other processes,
// and folders.
type archiveExporter struct {
	exporter.Exporter
	worker  *layoutWorker
	variant ociexporter.ExporterVariant
}

func newArchiveExporter(w *layoutWorker, sm *session.Manager, variant ociexporter.ExporterVariant) (*archiveExporter, error) {
	inner, err := ociexporter.New(ociexporter.Opt{SessionManager: sm, ImageWriter: w.images, Variant: variant, LeaseManager: w.LeaseManager()})
	return &archiveExporter{inner, w, variant}, err
}

func (e *archiveExporter) Resolve(ctx context.Context, id int, attrs map[string]string) (exporter.ExporterInstance, error) {
	own := maps.Clone(attrs)
	open, known := e.worker.files.known.Load(own[AttrFile])
	delete(own, AttrFile)
	inner, err := e.Exporter.Resolve(ctx, id, own)
	if err != nil || !known {
		return inner, err
	}
	a := &archiveExport{ExporterInstance: inner, worker: e.worker, variant: e.variant, open: open.(func() (io.WriteCloser, error))}
	a.meta, err = a.opts.Load(ctx, own)
	return a, err
}

// archiveExport is one export of an archive to a file of this process. Its bytes are those
// that BuildKit's exporter would have sent.
type archiveExport struct {
	exporter.ExporterInstance
	worker  *layoutWorker
	variant ociexporter.ExporterVariant
	open    func() (io.WriteCloser, error)
	opts    imageexporter.ImageCommitOpts
	meta    map[string]string // attributes that are for the frontend's result
}

func (a *archiveExport) Export(ctx context.Context, src *exporter.Source, info exporter.ExportBuildInfo) (map[string]string, exporter.FinalizeFunc, exporter.DescriptorReference, error) {
	if a.variant == ociexporter.VariantDocker && len(src.Refs) > 0 {
		return a.ExporterInstance.Export(ctx, src, info) // which says why it can't
	}
	src = src.Clone()
	if src.Metadata == nil {
		src.Metadata = map[string][]byte{}
	}
	for k, v := range a.meta {
		src.Metadata[k] = []byte(v)
	}
	ctx, done, err := leaseutil.WithLease(ctx, a.worker.LeaseManager(), leaseutil.MakeTemporary)
	if err != nil {
		return nil, nil, nil, err
	}
	res, root, err := a.export(ctx, src, info)
	if err != nil {
		_ = done(context.WithoutCancel(ctx)) // temporary: dropped at the next start at the latest
		return nil, nil, nil, err
	}
	return res, nil, imageexporter.NewDescriptorReference(*root, done), nil
}

func (a *archiveExport) export(ctx context.Context, src *exporter.Source, info exporter.ExportBuildInfo) (map[string]string, *ocispecs.Descriptor, error) {
	root, err := a.commit(ctx, src, info)
	if err != nil {
		return nil, nil, err
	}
	names, err := a.names()
	if err != nil {
		return nil, nil, err
	}
	res, err := response(root, names)
	if err != nil {
		return nil, nil, err
	}
	return res, root, a.write(ctx, src, session.NewGroup(info.SessionID), *root, names)
}

// commit makes the manifests of the result.
func (a *archiveExport) commit(ctx context.Context, src *exporter.Source, info exporter.ExportBuildInfo) (*ocispecs.Descriptor, error) {
	opts := a.opts
	annotations, _, err := imageexporter.ParseAnnotations(src.Metadata)
	if err != nil {
		return nil, err
	}
	opts.Annotations = opts.Annotations.Merge(annotations)
	opts.SetOCITypesDefault(a.variant == ociexporter.VariantOCI || imageexporter.DefaultOCITypes(info.CompatibilityVersion, src))
	opts.SetOCIArtifactDefault(imageexporter.DefaultOCIArtifact(info.CompatibilityVersion, &opts))
	root, _, err := a.worker.images.Commit(ctx, src, info.SessionID, info.InlineCache, &opts, info.CompatibilityVersion, a.Type())
	if err != nil {
		return nil, err
	}
	if root.Annotations == nil {
		root.Annotations = map[string]string{}
	}
	if root.Annotations[ocispecs.AnnotationCreated] == "" {
		at := time.Now()
		if opts.Epoch != nil && opts.Epoch.Value != nil {
			at = *opts.Epoch.Value
		}
		root.Annotations[ocispecs.AnnotationCreated] = at.UTC().Format(time.RFC3339)
	}
	return root, nil
}

// names are those that the archive says the image has.
func (a *archiveExport) names() ([]string, error) {
	if a.opts.ImageName == "" {
		return nil, nil
	}
	names := strings.Split(a.opts.ImageName, ",")
	for i, name := range names {
		parsed, err := reference.ParseNormalizedNamed(name)
		if err != nil {
			return nil, err
		}
		names[i] = reference.TagNameOnly(parsed).String()
	}
	return names, nil
}

// response is what the client is told of the result. It takes out of the descriptor what
// is there for this only.
func response(root *ocispecs.Descriptor, names []string) (map[string]string, error) {
	res := map[string]string{exptypes.ExporterImageDigestKey: root.Digest.String()}
	if config, ok := root.Annotations[exptypes.ExporterConfigDigestKey]; ok {
		res[exptypes.ExporterImageConfigDigestKey] = config
		delete(root.Annotations, exptypes.ExporterConfigDigestKey)
	}
	text, err := json.Marshal(root)
	res[exptypes.ExporterImageDescriptorKey] = base64.StdEncoding.EncodeToString(text)
	if len(names) > 0 {
		res[exptypes.ExporterImageNameKey] = strings.Join(names, ",")
	}
	return res, err
}

// write writes the archive. Layers of the base that no step has touched are fetched first.
func (a *archiveExport) write(ctx context.Context, src *exporter.Source, group session.Group, root ocispecs.Descriptor, names []string) (err error) {
	remotes, err := remotesOf(ctx, src, a.opts.RefCfg, group, false)
	if err != nil {
		return err
	}
	if err := unlazy(ctx, remotes); err != nil {
		return err
	}
	blobs := contentutil.NewMultiProvider(a.worker.images.ContentStore())
	for _, r := range remotes {
		for _, d := range r.Descriptors {
			blobs.Add(d.Digest, r.Provider)
		}
	}
	opts := []archive.ExportOpt{archive.WithManifest(root, names...)}
	if a.variant == ociexporter.VariantOCI {
		opts = append(opts, archive.WithAllPlatforms(), archive.WithSkipDockerManifest())
	}
	w, err := a.open()
	if err != nil {
		return err
	}
	report := progress.OneOff(ctx, "sending tarball")
	err = writeBehind(ctx, w, func(w io.Writer) error { return archive.Export(ctx, blobs, w, opts...) })
	return report(errors.Join(err, w.Close()))
}

// writeBehind has what export writes written to w in another goroutine, while the next
// piece is read and hashed, and no more of it when ctx ends.
func writeBehind(ctx context.Context, w io.Writer, export func(io.Writer) error) error {
	const piece = 1 << 20
	r, pipe := io.Pipe()
	var eg errgroup.Group
	eg.Go(func() error {
		_, err := io.CopyBuffer(untilDone(ctx, w), r, make([]byte, piece))
		_ = r.CloseWithError(err) // never fails
		return err
	})
	eg.Go(func() error {
		buf := bufio.NewWriterSize(pipe, piece)
		err := export(buf)
		if err == nil {
			err = buf.Flush()
		}
		_ = pipe.CloseWithError(err) // never fails
		return err
	})
	return eg.Wait()
}

// untilDone is w until ctx ends.
func untilDone(ctx context.Context, w io.Writer) io.Writer {
	return writer(func(p []byte) (int, error) {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		return w.Write(p)
	})
}

type writer func(p []byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }
