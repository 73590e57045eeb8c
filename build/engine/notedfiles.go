//go:build linux

package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	continuity "github.com/containerd/continuity/fs"
	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/exporter/local"
	"github.com/moby/buildkit/exporter/util/epoch"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/filesync"
	"github.com/moby/buildkit/snapshot"
	"github.com/moby/buildkit/util/progress"
	"github.com/moby/buildkit/util/staticfs"
	"github.com/tonistiigi/fsutil"
	fstypes "github.com/tonistiigi/fsutil/types"

	"github.com/wherry-oci/wherry/build/handover"
)

// notedExporter is BuildKit's exporter of folders or of tars, where owners are kept beside the files, or files are labelled
// for steps: what leaves has the owners and modes that real root would have given, and nothing of the notes and labels.
type notedExporter struct {
	exporter.Exporter
	sessions  *session.Manager
	snapshots *handover.Snapshots // nil if nothing is noted
}

func (e *notedExporter) Resolve(ctx context.Context, id int, attrs map[string]string) (exporter.ExporterInstance, error) {
	inner, err := e.Exporter.Resolve(ctx, id, attrs)
	if err != nil {
		return nil, err
	}
	x := &notedExport{ExporterInstance: inner, exporter: e, tar: inner.Type() == client.ExporterTar}
	if _, err := x.opts.Load(attrs); err != nil {
		return nil, err
	}
	x.mode, err = client.ParseLocalExporterMode(attrs["mode"])
	return x, err
}

// notedExport is one export of files.
type notedExport struct {
	exporter.ExporterInstance
	exporter *notedExporter
	opts     local.CreateFSOpts
	tar      bool
	mode     client.LocalExporterMode
}

func (x *notedExport) Export(ctx context.Context, src *exporter.Source, info exporter.ExportBuildInfo) (map[string]string, exporter.FinalizeFunc, exporter.DescriptorReference, error) {
	caller, err := x.exporter.sessions.Get(ctx, info.SessionID, false)
	if err != nil {
		return nil, nil, nil, err
	}
	b := &notedBuild{notedExport: x, src: src, session: info.SessionID, now: time.Now().Truncate(time.Second)}
	tree, err := b.tree(ctx)
	if err == nil {
		err = x.send(ctx, tree, caller)
	}
	return nil, nil, nil, errors.Join(err, b.release())
}

func (x *notedExport) send(ctx context.Context, tree fsutil.FS, caller session.Caller) error {
	if !x.tar {
		show, done := local.NewProgressHandler(ctx, "copying files")
		defer done()
		var opts []filesync.CopyToCallerOpt
		if x.mode == client.LocalExporterModeDelete {
			opts = append(opts, filesync.WithExporterMultiPlatformTransfer())
		}
		return filesync.CopyToCaller(ctx, tree, x.ID(), caller, show, opts...)
	}
	w, err := filesync.CopyFileWriter(ctx, nil, x.ID(), caller)
	if err != nil {
		return err
	}
	report := progress.OneOff(ctx, "sending tarball")
	err = fsutil.WriteTar(ctx, tree, w)
	return report(errors.Join(err, w.Close()))
}

// notedBuild is what is exported.
type notedBuild struct {
	*notedExport
	src     *exporter.Source
	session string
	now     time.Time
	mounted []func() error
}

func (b *notedBuild) release() (err error) {
	for _, release := range b.mounted {
		err = errors.Join(err, release())
	}
	return err
}

// tree is the files of all results: of one as they are, of several in a folder for each platform, unless that is not
// wanted.
func (b *notedBuild) tree(ctx context.Context) (fsutil.FS, error) {
	several := len(b.src.Refs) > 0
	if _, ok := b.src.Metadata[exptypes.ExporterPlatformsKey]; several && !ok {
		return nil, errors.New("the result has several platforms, and does not say which")
	}
	list, err := exptypes.ParsePlatforms(b.src.Metadata)
	if err != nil {
		return nil, err
	}
	if len(list.Platforms) == 0 {
		return b.files(ctx, "", b.src.Ref, nil, b.opts)
	}
	split := several
	if !b.tar {
		split = b.opts.UsePlatformSplit(several)
	}
	var dirs []fsutil.Dir
	for _, p := range list.Platforms {
		dir, err := b.platform(ctx, p)
		if err != nil {
			return nil, err
		}
		dirs = append(dirs, *dir)
	}
	if split {
		return fsutil.SubDirFS(dirs)
	}
	return merged(ctx, dirs)
}

// platform is the files of one platform, and the folder that they may be put into.
func (b *notedBuild) platform(ctx context.Context, p exptypes.Platform) (*fsutil.Dir, error) {
	ref, ok := b.src.FindRef(p.ID)
	if !ok {
		return nil, fmt.Errorf("the result has nothing for platform %s", p.ID)
	}
	opts := b.opts
	if opts.Epoch == nil {
		when, err := epoch.ParseSource(b.src, &p)
		if err != nil {
			return nil, err
		}
		opts.Epoch = &epoch.Epoch{Value: when}
	}
	st := &fstypes.Stat{Mode: uint32(fs.ModeDir | 0o755), Path: local.PlatformIDToPath(p.ID)}
	if opts.Epoch.Value != nil {
		st.ModTime = opts.Epoch.Value.UnixNano()
	}
	tree, err := b.files(ctx, p.ID, ref, b.src.Attestations[p.ID], opts)
	return &fsutil.Dir{FS: tree, Stat: st}, err
}

// files are those of one result, with what is attested of it.
func (b *notedBuild) files(ctx context.Context, id string, ref cache.ImmutableRef, attests []exporter.Attestation, opts local.CreateFSOpts) (fsutil.FS, error) {
	if opts.Epoch == nil {
		when, err := epoch.ParseSource(b.src, nil)
		if err != nil {
			return nil, err
		}
		if when != nil {
			opts.Epoch = &epoch.Epoch{Value: when}
		}
	}
	tree, release, err := local.CreateFS(ctx, b.session, id, ref, attests, b.now, len(b.src.Refs) > 0, opts)
	if err != nil {
		return nil, err
	}
	b.mounted = append(b.mounted, release)
	if ref == nil {
		return tree, nil
	}
	mounts, err := ref.Mount(ctx, true, session.NewGroup(b.session))
	if err != nil {
		return nil, err
	}
	mounter := snapshot.LocalMounter(mounts)
	root, err := mounter.Mount()
	if err != nil {
		return nil, err
	}
	b.mounted = append(b.mounted, mounter.Unmount)
	root, err = continuity.RootPath(root, opts.Source)
	return &notedFS{tree, root, b.exporter.snapshots, b.tar}, err
}

// merged are the files of several folders in one.
func merged(ctx context.Context, dirs []fsutil.Dir) (tree fsutil.FS, err error) {
	seen := map[string]string{}
	for _, dir := range dirs {
		err := dir.FS.Walk(ctx, "", func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			if other, ok := seen[path]; ok {
				return fmt.Errorf("%q is there for %s and for %s: platform-split=true keeps them apart", path, other, dir.Stat.Path)
			}
			seen[path] = dir.Stat.Path
			return nil
		})
		if err != nil {
			return nil, err
		}
		if tree == nil {
			tree = dir.FS
		} else {
			tree = staticfs.NewMergeFS(tree, dir.FS)
		}
	}
	return tree, nil
}

// notedFS is the files of a snapshot's folder as they should be. Devices and capabilities are only for those who write them
// down: an ordinary user can make neither.
type notedFS struct {
	fsutil.FS
	root      string
	snapshots *handover.Snapshots
	all       bool
}

// Walk implements [fsutil.FS].
func (n *notedFS) Walk(ctx context.Context, target string, visit fs.WalkDirFunc) error {
	return n.FS.Walk(ctx, target, func(path string, entry fs.DirEntry, err error) error {
		if err == nil {
			entry, err = n.restored(path, entry)
		}
		return visit(path, entry, err)
	})
}

func (n *notedFS) restored(path string, entry fs.DirEntry) (fs.DirEntry, error) {
	info, err := entry.Info()
	if err != nil {
		return entry, err
	}
	st, ok := info.Sys().(*fstypes.Stat)
	if !ok {
		return entry, nil
	}
	made := st.Clone()
	delete(made.Xattrs, handover.SELinuxLabel)
	if n.snapshots == nil {
		return &fsutil.DirEntryInfo{Stat: made}, nil
	}
	switch err := n.snapshots.Restore(filepath.Join(n.root, path), made); {
	case errors.Is(err, fs.ErrNotExist): // what is attested is in no folder
		return entry, nil
	case err != nil:
		return entry, err
	}
	if !n.all {
		made.Mode = uint32(fs.FileMode(st.Mode).Type()) | made.Mode&^uint32(fs.ModeType)
		made.Devmajor, made.Devminor = st.Devmajor, st.Devminor
		delete(made.Xattrs, "security.capability")
	}
	return &fsutil.DirEntryInfo{Stat: made}, nil
}
