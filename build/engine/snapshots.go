//go:build linux

package engine

import (
	"bytes"
	"context"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/plugins/snapshots/native"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay/overlayutils"
)

// The kinds of snapshots. Each has a state folder of its own, since what the build
// cache says of one is wrong for the other.
const (
	overlayfs = "overlayfs" // layers stacked by the kernel
	copies    = "native"    // folders copied from parent to child
)

// probedName holds the boot id in which overlayfs was seen to work.
const probedName = "overlayfs-probed"

// chooseSnapshots takes overlayfs where it works in dir, else copies. That
// overlayfs works is remembered until the machine goes down: the probe mounts twice.
func chooseSnapshots(dir string) string {
	memory := filepath.Join(dir, probedName)
	boot, err := bootID()
	if err != nil {
		return copies
	}
	if seen, err := os.ReadFile(memory); err == nil && bytes.Equal(seen, boot) {
		return overlayfs
	}
	if overlayutils.Supported(dir) != nil {
		return copies
	}
	_ = os.WriteFile(memory, boot, 0o600) // else the next build probes again
	return overlayfs
}

func newSnapshotter(st *state, name string) (snapshots.Snapshotter, error) {
	dir, err := mkdir(st.path("snapshots"))
	if err != nil {
		return nil, err
	}
	var s snapshots.Snapshotter
	if name == overlayfs {
		s, err = overlay.NewSnapshotter(dir)
	} else {
		s, err = native.NewSnapshotter(dir)
	}
	return &watched{s, st}, err
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
	return w.Snapshotter.Commit(ctx, name, key, opts...)
}
