//go:build linux

package engine

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/cache/config"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/snapshot"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/util/compression"
	"github.com/moby/buildkit/util/progress"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wherry-oci/wherry/build/handover"
)

// handedOver is what BuildKit is told that snapshots are which are folders. It goes by the
// name whether it may hard-link files from one to the other ("native"): never, here, since
// a folder is given to the next step to be changed.
const handedOver = "fuse-overlayfs"

// forMerges is what a cache manager is to have in place of sn. A merge, as COPY --link makes it, then goes on from what
// stands below the first of its parts, as with overlayfs, and does not copy all of a base image, by which noted owners of
// symlinks would be lost.
func (s *storage) forMerges(sn snapshot.Snapshotter) snapshot.Snapshotter {
	if s.folders == nil {
		return sn
	}
	return &mergesOnBase{Snapshotter: sn}
}

// mergesOnBase has BuildKit's NewMergeSnapshotter, which is the first to ask for the name and goes by it alone, see the one
// kind that it takes for stacked and still never hard-links files of.
type mergesOnBase struct {
	snapshot.Snapshotter
	asked atomic.Bool
}

func (m *mergesOnBase) Name() string {
	if m.asked.CompareAndSwap(false, true) {
		return "stargz"
	}
	return m.Snapshotter.Name()
}

// ownersAside says that files can be given to nobody but this process's user.
func (o Options) ownersAside() bool { return o.NoSteps || o.SingleID }

// openFolders opens snapshots each of which is one folder.
func openFolders(dir string, o Options) (*handover.Snapshots, error) {
	return handover.Open(handover.Options{
		Dir: dir, OwnersAside: o.ownersAside(), ModesKept: !o.NoSteps,
		// The views that a cache record keeps for itself: who reads one holds it, below.
		Unread: func(key string) bool { return strings.HasSuffix(key, "-view") },
	})
}

// folderCache is BuildKit's cache manager, whose references have their folder stay in its
// place while it is used.
type folderCache struct {
	cache.Manager
	snapshots *handover.Snapshots
	mountless bool
}

func (c *folderCache) GetByBlob(ctx context.Context, d ocispecs.Descriptor, parent cache.ImmutableRef, o ...cache.RefOption) (cache.ImmutableRef, error) {
	return c.wrap(c.Manager.GetByBlob(ctx, d, unwrap(parent), o...))
}

func (c *folderCache) Get(ctx context.Context, id string, pg progress.Controller, o ...cache.RefOption) (cache.ImmutableRef, error) {
	return c.wrap(c.Manager.Get(ctx, id, pg, o...))
}

func (c *folderCache) New(ctx context.Context, parent cache.ImmutableRef, s session.Group, o ...cache.RefOption) (cache.MutableRef, error) {
	return c.wrapMutable(c.Manager.New(ctx, unwrap(parent), s, o...))
}

func (c *folderCache) GetMutable(ctx context.Context, id string, o ...cache.RefOption) (cache.MutableRef, error) {
	return c.wrapMutable(c.Manager.GetMutable(ctx, id, o...))
}

func (c *folderCache) Merge(ctx context.Context, parents []cache.ImmutableRef, pg progress.Controller, o ...cache.RefOption) (cache.ImmutableRef, error) {
	list := make([]cache.ImmutableRef, len(parents))
	for i, p := range parents {
		list[i] = unwrap(p)
	}
	return c.wrap(c.Manager.Merge(ctx, list, pg, o...))
}

func (c *folderCache) Diff(ctx context.Context, lower, upper cache.ImmutableRef, pg progress.Controller, o ...cache.RefOption) (cache.ImmutableRef, error) {
	return c.wrap(c.Manager.Diff(ctx, unwrap(lower), unwrap(upper), pg, o...))
}

func (c *folderCache) wrap(r cache.ImmutableRef, err error) (cache.ImmutableRef, error) {
	if r == nil || err != nil {
		return r, err
	}
	return &folderRef{r, c}, nil
}

func (c *folderCache) wrapMutable(r cache.MutableRef, err error) (cache.MutableRef, error) {
	if r == nil || err != nil {
		return r, err
	}
	return &folderMutable{r, c}, nil
}

// unwrap is BuildKit's own reference, which it wants for a parent.
func unwrap(r cache.ImmutableRef) cache.ImmutableRef {
	if f, ok := r.(*folderRef); ok {
		return f.ImmutableRef
	}
	return r
}

type folderRef struct {
	cache.ImmutableRef
	cache *folderCache
}

func (r *folderRef) Clone() cache.ImmutableRef {
	return &folderRef{r.ImmutableRef.Clone(), r.cache}
}

func (r *folderRef) Mount(ctx context.Context, readonly bool, s session.Group) (snapshot.Mountable, error) {
	m, err := r.ImmutableRef.Mount(ctx, readonly, s)
	return r.cache.mountable(ctx, m, true, err)
}

// GetRemotes has our differ write all layers: some kinds of compression BuildKit leaves to
// containerd's first, which mounts what it compares.
func (r *folderRef) GetRemotes(ctx context.Context, create bool, c config.RefConfig, all bool, s session.Group) ([]*solver.Remote, error) {
	c.Compression.Type = byOurDiffer{c.Compression.Type}
	return r.ImmutableRef.GetRemotes(ctx, create, c, all, s)
}

type byOurDiffer struct{ compression.Type }

func (byOurDiffer) NeedsComputeDiffBySelf(compression.Config) bool { return false }

type folderMutable struct {
	cache.MutableRef
	cache *folderCache
}

func (r *folderMutable) Mount(ctx context.Context, readonly bool, s session.Group) (snapshot.Mountable, error) {
	m, err := r.MutableRef.Mount(ctx, readonly, s)
	return r.cache.mountable(ctx, m, readonly, err)
}

// Commit commits the snapshot as well, which BuildKit leaves until something is made of it.
// The folder of the last step of a stage would never become one that the next build may
// take for the first.
func (r *folderMutable) Commit(ctx context.Context) (cache.ImmutableRef, error) {
	kind := r.GetRecordType()
	ref, err := r.MutableRef.Commit(ctx)
	if err == nil && (kind == "" || kind == client.UsageRecordTypeRegular) { // others may be changed again
		if err = ref.Finalize(ctx); err != nil {
			err = errors.Join(err, ref.Release(context.WithoutCancel(ctx)))
		}
	}
	return r.cache.wrap(ref, err)
}

func (c *folderCache) mountable(ctx context.Context, m snapshot.Mountable, readonly bool, err error) (snapshot.Mountable, error) {
	if err != nil {
		return nil, err
	}
	ctx = context.WithoutCancel(ctx) // it may be mounted later, and by others
	access := "rw"
	if readonly && !c.mountless {
		access = "ro"
	}
	return &folderMountable{m, access, func(root string) (func(), error) { return c.snapshots.Hold(ctx, root) }}, nil
}

// folderMountable is a folder that stays where it is for as long as somebody has it
// mounted. BuildKit mounts what is read-only, which it asks for wherever it only reads, and
// uses the folder itself of what is writable: that is what has to be told it where nothing
// can be mounted. Elsewhere what must not change is read-only for steps, too.
type folderMountable struct {
	snapshot.Mountable
	access string
	hold   func(root string) (release func(), err error)
}

func (m *folderMountable) Mount() ([]mount.Mount, func() error, error) {
	mounts, release, err := m.Mountable.Mount()
	if err != nil {
		return nil, nil, err
	}
	mounts = withAccess(mounts, m.access)
	if len(mounts) != 1 {
		return mounts, release, nil
	}
	letGo, err := m.hold(mounts[0].Source)
	if err != nil {
		if release != nil {
			err = errors.Join(err, release())
		}
		return nil, nil, err
	}
	return mounts, func() error {
		letGo()
		if release != nil {
			return release()
		}
		return nil
	}, nil
}

// withAccess makes mounts "ro" or "rw".
func withAccess(mounts []mount.Mount, access string) []mount.Mount {
	out := slices.Clone(mounts)
	for i := range out {
		out[i].Options = append(slices.DeleteFunc(slices.Clone(out[i].Options), func(o string) bool { return o == "ro" || o == "rw" }), access)
	}
	return out
}
