//go:build linux

package build

import (
	"context"
	"fmt"

	"github.com/docker/go-units"
	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/engine"
)

// Without a size the cache may grow until less than a tenth of the disk is free, and less
// than that of a small one. A part of it stays in any case, or nothing would be cached on
// a full disk.
const (
	freeShare = 10       // of the disk
	freeMost  = 20 << 30 // bytes
	keptLeast = 1 << 30  // bytes
)

// bound lets go of the least recently used records of a cache that has grown too large.
func (c *connection) bound(ctx context.Context, o engine.Options) error {
	if !c.own.Grown() {
		return nil
	}
	p := PruneOptions{All: true, MaxUsed: o.CacheSize}
	if o.CacheSize == 0 {
		wanted, free, err := diskSpace(o.Dir)
		if err != nil || free >= wanted {
			return err
		}
		p.MinFree, p.Reserved = wanted, keptLeast
	}
	var gone int64
	err := prune(ctx, c.client, p, func(r CacheRecord) { gone += r.Size })
	if gone > 0 {
		notify(o.Notice, fmt.Sprintf("%s of the build cache had to go, what was used last is kept", units.HumanSize(float64(gone))))
	}
	return err
}

// diskSpace is how much of dir's file system should be free, and how much is.
func diskSpace(dir string) (wanted, free int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, fmt.Errorf("build state: %w", err)
	}
	total := int64(st.Blocks) * st.Bsize                                    //nolint:gosec // no disk is as large
	return min(total/freeShare, freeMost), int64(st.Bavail) * st.Bsize, nil //nolint:gosec // no disk is as large
}
