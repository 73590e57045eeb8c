//go:build linux

package engine

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	ctdreference "github.com/containerd/containerd/v2/pkg/reference"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/source"
	"github.com/moby/buildkit/source/containerimage"
	"github.com/moby/buildkit/util/contentutil"
	"github.com/moby/buildkit/util/imageutil"
	"github.com/moby/buildkit/util/resolver"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// wanted is what a FROM asks for. BuildKit asks an images.Store by a name that has
// lost its digest and never had a platform, so both travel in the context: else a
// local amd64 image would silently serve FROM --platform=linux/arm64.
type wanted struct {
	name     reference.Named
	platform ocispecs.Platform
}

type wantedKey struct{}

func withWanted(ctx context.Context, ref string, p *ocispecs.Platform) context.Context {
	name, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return ctx
	}
	w := wanted{name: reference.TagNameOnly(name), platform: platforms.Normalize(platforms.DefaultSpec())}
	if p != nil {
		w.platform = platforms.Normalize(*p)
	}
	return context.WithValue(ctx, wantedKey{}, w)
}

// fromStore answers FROM out of the image store.
type fromStore struct {
	images.Store // nil: BuildKit calls nothing but Get and List
	images       Store
	content      content.Store // the engine's
}

// Get returns what the context wants from the image store, or, for a name with a
// digest, also from the engine's own content.
func (s *fromStore) Get(ctx context.Context, name string) (images.Image, error) {
	w, ok := ctx.Value(wantedKey{}).(wanted)
	if !ok {
		return images.Image{}, fmt.Errorf("image %q: %w", name, errdefs.ErrNotFound)
	}
	d, err := s.images.Lookup(ctx, w.name, toV1(w.platform))
	pinned, isPinned := w.name.(reference.Digested)
	if err == nil && isPinned && d.Digest.String() != pinned.Digest().String() {
		target, err := s.pinnedIndex(pinned.Digest())
		return images.Image{Name: name, Target: target}, err
	}
	if err == nil {
		return images.Image{Name: name, Target: toOCI(d)}, nil
	}
	if isPinned {
		if target, ok := s.inContent(ctx, w.name, pinned.Digest()); ok {
			return images.Image{Name: name, Target: target}, nil
		}
	}
	return images.Image{}, fmt.Errorf("image %q: %w", name, errdefs.ErrNotFound)
}

// pinnedIndex describes the index of the store that a FROM names by digest: BuildKit
// takes nothing but that digest for an answer, and selects the platform itself.
func (s *fromStore) pinnedIndex(d digest.Digest) (ocispecs.Descriptor, error) {
	h, err := v1.NewHash(d.String())
	if err != nil {
		return ocispecs.Descriptor{}, err
	}
	index, err := readBounded(s.images.BlobPath(h), maxIndex)
	if err != nil {
		return ocispecs.Descriptor{}, err
	}
	mediaType, err := imageutil.DetectManifestBlobMediaType(index)
	return ocispecs.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(index))}, err
}

func readBounded(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, most))
}

// inContent answers a digest that only the engine has. Without it BuildKit warms up
// its authorizer by a request whose answer it throws away: minutes on a dead network.
func (s *fromStore) inContent(ctx context.Context, name reference.Named, d digest.Digest) (ocispecs.Descriptor, bool) {
	info, err := s.content.Info(ctx, d)
	if err != nil {
		return ocispecs.Descriptor{}, false
	}
	spec, err := ctdreference.Parse(name.String())
	if err != nil {
		return ocispecs.Descriptor{}, false
	}
	if ours, err := contentutil.HasSource(info, spec); err != nil || !ours {
		return ocispecs.Descriptor{}, false
	}
	desc := ocispecs.Descriptor{Digest: d, Size: info.Size}
	manifest, err := content.ReadBlob(ctx, s.content, desc)
	if err != nil {
		return ocispecs.Descriptor{}, false
	}
	desc.MediaType, err = imageutil.DetectManifestBlobMediaType(manifest)
	return desc, err == nil
}

// List returns nothing: what it returned would never be pruned from the build
// cache, but the image store has its own links.
func (*fromStore) List(context.Context, ...string) ([]images.Image, error) { return nil, nil }

// ResolveSourceMetadata resolves FROM, the store first unless a pull is asked for.
func (w *layoutWorker) ResolveSourceMetadata(ctx context.Context, op *pb.SourceOp, opt sourceresolver.Opt, sm *session.Manager, jc solver.JobContext) (*sourceresolver.MetaResponse, error) {
	img := w.imageOf(op)
	if img == nil {
		if err := w.snapshots.readyForGit(); err != nil {
			return nil, err
		}
		return w.Worker.ResolveSourceMetadata(ctx, op, opt, sm, jc)
	}
	var image sourceresolver.ResolveImageOpt
	if opt.ImageOpt != nil {
		image = *opt.ImageOpt
	}
	if image.ResolveMode == "" || image.ResolveMode == pb.AttrImageResolveModeDefault {
		image.ResolveMode = pb.AttrImageResolveModePreferLocal
	}
	opt.ImageOpt = &image
	ctx = withWanted(ctx, img.Reference.String(), image.Platform)
	var res *sourceresolver.MetaResponse
	err := ownFailure(ctx, w.store, image.ResolveMode == pb.AttrImageResolveModePreferLocal, func() (err error) {
		res, err = w.Worker.ResolveSourceMetadata(ctx, op, opt, sm, jc)
		return err
	})
	if err != nil {
		return nil, w.explain(ctx, err, sm, jobSession(jc))
	}
	return res, nil
}

func jobSession(jc solver.JobContext) session.Group {
	if jc == nil {
		return nil
	}
	return jc.Session()
}

func (w *layoutWorker) imageOf(op *pb.SourceOp) *containerimage.ImageIdentifier {
	id, err := w.ParseSource(op, nil)
	if err != nil {
		return nil
	}
	img, _ := id.(*containerimage.ImageIdentifier)
	return img
}

// ownFailure calls resolve again if it failed although the store has what ctx wants.
// BuildKit lets all who resolve the same at once share one call, which asks the
// context of the first alone what is wanted: if that one was cancelled (its build
// was killed), the call finds nothing in the store, goes to the registry, and the
// others are told what came of it.
func ownFailure(ctx context.Context, store Store, storeFirst bool, resolve func() error) error {
	const tries = 3
	for try := 1; ; try++ {
		err := resolve()
		w, ok := ctx.Value(wantedKey{}).(wanted)
		if err == nil || try == tries || !storeFirst || !ok || ctx.Err() != nil {
			return err
		}
		if _, missing := store.Lookup(ctx, w.name, toV1(w.platform)); missing != nil {
			return err
		}
	}
}

// imageSource is BuildKit's source of images, resolving as above.
type imageSource struct {
	source.Source
	store Store
}

func (s imageSource) Resolve(ctx context.Context, id source.Identifier, sm *session.Manager, vtx solver.Vertex) (source.SourceInstance, error) {
	img, ok := id.(*containerimage.ImageIdentifier)
	if !ok {
		return nil, fmt.Errorf("not an image: %T", id)
	}
	if img.ResolveMode == resolver.ResolveModeDefault {
		img.ResolveMode = resolver.ResolveModePreferLocal
	}
	inst, err := s.Source.Resolve(ctx, id, sm, vtx)
	return imageInstance{inst, img, s.store}, err
}

type imageInstance struct {
	source.SourceInstance
	id    *containerimage.ImageIdentifier
	store Store
}

func (i imageInstance) own(ctx context.Context, resolve func() error) error {
	return ownFailure(ctx, i.store, i.id.ResolveMode == resolver.ResolveModePreferLocal, resolve)
}

func (i imageInstance) wanted(ctx context.Context) context.Context {
	return withWanted(ctx, i.id.Reference.String(), i.id.Platform)
}

func (i imageInstance) CacheKey(ctx context.Context, jc solver.JobContext, index int) (key, pin string, opts solver.CacheOpts, done bool, err error) {
	ctx = i.wanted(ctx)
	err = i.own(ctx, func() (err error) {
		key, pin, opts, done, err = i.SourceInstance.CacheKey(ctx, jc, index)
		return err
	})
	return key, pin, opts, done, err
}

func (i imageInstance) Snapshot(ctx context.Context, jc solver.JobContext) (ref cache.ImmutableRef, err error) {
	ctx = i.wanted(ctx)
	err = i.own(ctx, func() (err error) {
		ref, err = i.SourceInstance.Snapshot(ctx, jc)
		return err
	})
	return ref, err
}

func toV1(p ocispecs.Platform) v1.Platform {
	return v1.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.OSVersion, OSFeatures: p.OSFeatures}
}

func toOCI(d v1.Descriptor) ocispecs.Descriptor {
	return ocispecs.Descriptor{MediaType: string(d.MediaType), Digest: digest.Digest(d.Digest.String()), Size: d.Size}
}
