//go:build linux

package engine

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/cache"
	cacheconfig "github.com/moby/buildkit/cache/config"
	"github.com/moby/buildkit/exporter"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/exporter/util/epoch"
	"github.com/moby/buildkit/identity"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/util/compression"
	"github.com/moby/buildkit/util/contentutil"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// AttrReproducible is an attribute of outputs that BuildKit does not have: whatever is
// in the result by chance, or differs from one machine to another, is left out. Beside
// rewrite-timestamp it gives every file of the layers that the build adds the time of
// the epoch, those that are older too: theirs is that of a checkout, or of whoever has
// filled the build cache.
const AttrReproducible = "wherry-reproducible"

// times says what becomes of the files' times in the layers that a build adds.
type times struct {
	rewrite bool         // those after the epoch become the epoch
	all     bool         // and those before it
	epoch   *epoch.Epoch // of the output; nil: the result's own
}

// takeTimes reads, and takes out, the attributes of an output that BuildKit is not to act on:
// it would compress each layer anew on one core.
func takeTimes(attrs map[string]string) (times, error) {
	var t times
	var err error
	if v := attrs[string(exptypes.OptKeyRewriteTimestamp)]; v != "" {
		if t.rewrite, err = strconv.ParseBool(v); err != nil {
			return t, fmt.Errorf("non-bool value specified for %s: %w", exptypes.OptKeyRewriteTimestamp, err)
		}
	}
	t.all = takeReproducible(attrs)
	delete(attrs, string(exptypes.OptKeyRewriteTimestamp))
	t.epoch, _, err = epoch.ParseExporterAttrs(attrs)
	return t, err
}

// takeReproducible reads, and takes out, our own attribute.
func takeReproducible(attrs map[string]string) bool {
	_, is := attrs[AttrReproducible]
	delete(attrs, AttrReproducible)
	return is
}

// apply returns src with layers that carry the times wanted.
func (t times) apply(src *exporter.Source, store content.Store) (*exporter.Source, error) {
	if !t.rewrite {
		return src, nil
	}
	all, err := exptypes.ParsePlatforms(src.Metadata)
	if err != nil {
		return nil, err
	}
	out := src.Clone()
	for _, p := range all.Platforms {
		ref, ok := src.FindRef(p.ID)
		if !ok || ref == nil {
			continue
		}
		at, err := t.at(src, &p)
		if err != nil {
			return nil, err
		}
		if at == nil && t.all {
			return nil, errors.New("not reproducible: the frontend does not say what SOURCE_DATE_EPOCH is")
		}
		if at == nil {
			continue // as BuildKit does
		}
		base, err := baseLayers(src, &p)
		if err != nil {
			return nil, err
		}
		replaceRef(out, p.ID, &timedRef{ImmutableRef: ref, store: store, base: base, at: *at, all: t.all})
	}
	return out, nil
}

// replaceRef puts ref where FindRef looks for id: a result for one platform may have it under
// another name, or under none.
func replaceRef(out *exporter.Source, id string, ref cache.ImmutableRef) {
	if out.Refs == nil {
		out.Ref = ref
	}
	for key := range out.Refs {
		if key == id || len(out.Refs) == 1 {
			out.Refs[key] = ref
		}
	}
}

func (t times) at(src *exporter.Source, p *exptypes.Platform) (*time.Time, error) {
	if t.epoch != nil {
		return t.epoch.Value, nil
	}
	return epoch.ParseSource(src, p)
}

// baseLayers are the diffIDs of the image that the result stands on. Its layers stay as they are.
func baseLayers(src *exporter.Source, p *exptypes.Platform) ([]digest.Digest, error) {
	config := exptypes.ParseKey(src.Metadata, exptypes.ExporterImageBaseConfigKey, p)
	if len(config) == 0 {
		return nil, nil
	}
	var base dockerspec.DockerOCIImage
	if err := json.Unmarshal(config, &base); err != nil {
		return nil, fmt.Errorf("config of the base image: %w", err)
	}
	return base.RootFS.DiffIDs, nil
}

// layersAtOnce bounds the memory for layers whose times are set; each is compressed on all cores.
const layersAtOnce = 4

// timedRef is a result whose added layers carry other times than its snapshots.
type timedRef struct {
	cache.ImmutableRef
	store content.Store // the engine's
	base  []digest.Digest
	at    time.Time
	all   bool
}

// GetRemotes returns the layers with their times set. The caller holds a lease.
func (r *timedRef) GetRemotes(ctx context.Context, create bool, cfg cacheconfig.RefConfig, all bool, g session.Group) ([]*solver.Remote, error) {
	cfg.Compression = inParallel(cfg.Compression)
	remotes, err := r.ImmutableRef.GetRemotes(ctx, create, cfg, all, g)
	if err != nil {
		return nil, err
	}
	timed := make([]*solver.Remote, len(remotes))
	for i, remote := range remotes {
		if timed[i], err = r.timed(ctx, remote, cfg.Compression); err != nil {
			return nil, err
		}
	}
	return timed, nil
}

func (r *timedRef) timed(ctx context.Context, remote *solver.Remote, c compression.Config) (*solver.Remote, error) {
	store := contentutil.NewStoreWithProvider(r.store, remote.Provider)
	layers := slices.Clone(remote.Descriptors)
	first := 0
	for first < min(len(layers), len(r.base)) && layers[first].Annotations[labels.LabelUncompressed] == r.base[first].String() {
		first++
	}
	eg, egctx := errgroup.WithContext(ctx)
	eg.SetLimit(layersAtOnce)
	for n, layer := range layers[first:] {
		eg.Go(func() (err error) {
			layers[first+n], err = r.layer(egctx, store, layer, c)
			return err
		})
	}
	if err := eg.Wait(); err != nil {
		return nil, err
	}
	p := timedProvider{Store: store}
	p.lazy, _ = remote.Provider.(cache.Unlazier)
	return &solver.Remote{Descriptors: layers, Provider: p}, nil
}

// timedProvider has the layers with their new times; those of the base may still have to be fetched.
type timedProvider struct {
	content.Store
	lazy cache.Unlazier // may be nil
}

func (p timedProvider) Unlazy(ctx context.Context) error {
	if p.lazy == nil {
		return nil
	}
	return p.lazy.Unlazy(ctx)
}

// layer returns one layer with its times set, from an earlier build if it is there.
func (r *timedRef) layer(ctx context.Context, store content.Store, d ocispecs.Descriptor, c compression.Config) (ocispecs.Descriptor, error) {
	memory := timedMemory{store: r.store, of: d.Digest, key: r.memoryKey(c), mediaType: c.Type.MediaType()}
	if timed, found, err := memory.recall(ctx); found || err != nil {
		return timed, err
	}
	timed, err := r.rewrite(ctx, store, d, c)
	if err != nil {
		return d, fmt.Errorf("set the times in layer %q: %w", d.Digest, err)
	}
	return timed, memory.keep(ctx, timed)
}

// memoryKey names everything that the bytes of a layer depend on but its own content.
func (r *timedRef) memoryKey(c compression.Config) string {
	level := "default"
	if c.Level != nil {
		level = strconv.Itoa(*c.Level)
	}
	return fmt.Sprintf("wherry/timed.%d.%t.%s.%s", r.at.Unix(), r.all, c.Type, level)
}

func (r *timedRef) rewrite(ctx context.Context, store content.Store, d ocispecs.Descriptor, c compression.Config) (timed ocispecs.Descriptor, err error) {
	from, err := compression.FromMediaType(d.MediaType)
	if err != nil {
		return d, err
	}
	in, err := from.Decompress(ctx, store, d)
	if err != nil {
		return d, err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	w, err := content.OpenWriter(ctx, store, content.WithRef("wherry-timed-"+identity.NewID()))
	if err != nil {
		return d, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	compress, finalize := c.Type.Compress(ctx, c)
	z, err := compress(w, c.Type.MediaType())
	if err != nil {
		return d, err
	}
	diffID := digest.Canonical.Digester()
	if err := errors.Join(copyTar(io.MultiWriter(z, diffID.Hash()), in, r.setTimes), z.Close()); err != nil {
		return d, err
	}
	return commitLayer(ctx, store, w, finalize, ocispecs.Descriptor{
		MediaType:   c.Type.MediaType(),
		Annotations: map[string]string{labels.LabelUncompressed: diffID.Digest().String()},
	})
}

// commitLayer names what w holds, and fills in d.
func commitLayer(ctx context.Context, store content.Store, w content.Writer, finalize compression.Finalizer, d ocispecs.Descriptor) (ocispecs.Descriptor, error) {
	err := w.Commit(ctx, 0, "", content.WithLabels(map[string]string{labels.LabelUncompressed: d.Annotations[labels.LabelUncompressed]}))
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return d, err
	}
	info, err := store.Info(ctx, w.Digest())
	if err != nil {
		return d, err
	}
	d.Digest, d.Size = info.Digest, info.Size
	if finalize == nil {
		return d, nil
	}
	more, err := finalize(ctx, store)
	maps.Copy(d.Annotations, more)
	return d, err
}

func (r *timedRef) setTimes(h *tar.Header) {
	if r.all || h.ModTime.After(r.at) {
		h.ModTime = r.at
	}
	h.AccessTime, h.ChangeTime = time.Time{}, time.Time{}
}

// copyTar copies an archive, each header after change has seen it.
func copyTar(out io.Writer, in io.Reader, change func(*tar.Header)) error {
	r, w := tar.NewReader(in), tar.NewWriter(out)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			if _, err := io.Copy(io.Discard, in); err != nil { // the padding: a stream is checked at its end
				return err
			}
			return w.Close()
		}
		if err != nil {
			return err
		}
		change(h)
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(w, r); err != nil {
			return err
		}
	}
}
