//go:build linux

package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay/overlayutils"
	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor"
	"github.com/wherry-oci/wherry/build/handover"
	"github.com/wherry-oci/wherry/build/userns"
)

// The kinds of snapshots. Each has a state folder of its own, since what the build
// cache says of one is wrong for the other.
const (
	overlayfs = "overlayfs" // layers stacked by the kernel
	handed    = "folders"   // folders handed from parent to child
)

// probedName holds the boot id in which overlayfs was seen to work.
const probedName = "overlayfs-probed"

// chooseSnapshots takes overlayfs where it works in the state folder: not where nothing can
// be mounted or owners are kept aside, and not on overlayfs itself, as in a container, or on NFS. That it works is
// remembered until the machine goes down: the probe mounts twice.
func chooseSnapshots(o Options) string {
	if !o.layered() {
		return handed
	}
	dir := o.Dir
	memory := filepath.Join(dir, probedName)
	boot, err := bootID()
	if err != nil {
		return handed
	}
	if seen, err := os.ReadFile(memory); err == nil && bytes.Equal(seen, boot) {
		return overlayfs
	}
	if !overlayWorks(dir) {
		return handed
	}
	_ = os.WriteFile(memory, boot, 0o600) // else the next build probes again
	return overlayfs
}

// TakesOverlay tries whether an engine with these options, of which Dir exists, has layers of overlayfs as snapshots.
func TakesOverlay(o Options) bool { return o.layered() && overlayWorks(o.Dir) }

// layered says that nothing speaks against overlayfs but what trying it may show.
func (o Options) layered() bool { return !o.NoMounts && !o.ownersAside() }

func overlayWorks(dir string) bool { return overlayutils.Supported(dir) == nil }

// storage is where file systems are kept.
type storage struct {
	snapshots.Snapshotter // below containerd's metadata, which does not close it
	name                  string
	folders               *handover.Snapshots // the same, if they are folders; else nil
	mountless             bool                // nothing can be mounted
	aside                 bool                // owners are kept beside the files
	shareFS               func() error
	noDevices             func() bool      // devices can't be made
	domain                *executor.Domain // of steps; nil is that of this process
	labelled              bool             // files have labels of SELinux, whether for steps or not
}

func openStorage(o Options, st *state, name string) (*storage, error) {
	dir, err := mkdir(st.path("snapshots"))
	if err != nil {
		return nil, err
	}
	s := &storage{name: name, mountless: o.NoMounts, shareFS: sync.OnceValue(userns.ShareFS)}
	if err := s.findDomain(o, dir); err != nil {
		return nil, err
	}
	switch name {
	case overlayfs:
		s.Snapshotter, err = overlay.NewSnapshotter(dir)
		s.Snapshotter = s.domain.Snapshots(s.Snapshotter)
	case handed:
		s.name, s.aside = handedOver, o.ownersAside()
		s.folders, err = openFolders(dir, o)
		s.Snapshotter = s.folders
	}
	s.Snapshotter = &watched{s.Snapshotter, st}
	s.noDevices = sync.OnceValue(func() bool {
		refused, err := handover.DevicesRefused(dir)
		return err == nil && refused && !s.aside // else who makes one says what is wrong
	})
	return s, err
}

// findDomain finds what SELinux takes steps for, and has the snapshots in dir labelled for that.
func (s *storage) findDomain(o Options, dir string) (err error) {
	s.domain, err = executor.FindDomain(dir, o.UserNS)
	_, keep := errors.AsType[*executor.NotLabelledError](err)
	if err != nil && !keep {
		return fmt.Errorf("find what SELinux takes steps for: %w", err)
	}
	s.labelled = s.domain != nil || keep
	if o.NoSteps || o.NoMounts || o.Runtime != "" || o.OwnLabel {
		s.domain = nil // there are no steps, or they are what they are
	}
	return s.domain.LabelFolder(dir)
}

// readyForGit has BuildKit's git source work where nothing can be unshared.
func (s *storage) readyForGit() error {
	if !s.mountless {
		return nil
	}
	return s.shareFS()
}

// watched notes that files were added to the snapshots, which are then synced when
// the engine closes.
type watched struct {
	snapshots.Snapshotter
	state *state
}

func (w *watched) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	w.state.grown.Store(true)
	return w.Snapshotter.Prepare(ctx, key, parent, opts...)
}

func (w *watched) Commit(ctx context.Context, name, key string, opts ...snapshots.Opt) error {
	w.state.grown.Store(true)
	err := w.Snapshotter.Commit(ctx, name, key, opts...)
	if errors.Is(err, unix.ENAMETOOLONG) { // the error has all of the path
		return fmt.Errorf("a path of a file is too long: with that of %q it has more than %d characters: %w", w.state.dir, unix.PathMax-1, unix.ENAMETOOLONG)
	}
	return err
}

// Usage of a snapshot with a path that is too long is nothing: such a one was never committed, and whoever asks for the
// size of all would get none at all.
func (w *watched) Usage(ctx context.Context, key string) (snapshots.Usage, error) {
	usage, err := w.Snapshotter.Usage(ctx, key)
	if errors.Is(err, unix.ENAMETOOLONG) {
		return snapshots.Usage{}, nil
	}
	return usage, err
}
