package main

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
)

// buildStateName is the folder of the build cache, inside of the store's: on its
// file system, so that blobs are linked between the two.
const buildStateName = ".build"

// cacheUsage is what the cache of builds takes on the disk.
type cacheUsage struct {
	snapshots int
	bytes     int64
	hidden    bool // a part of it belongs to other users, and can't be looked into
}

// fileID is one file, whatever its names.
type fileID struct{ device, inode uint64 }

// buildCacheUsage adds up the blocks of all files below the state folder of
// builds, but those already seen: the blobs that the store has too.
func buildCacheUsage(ctx context.Context, dir string, seen map[fileID]bool) (cacheUsage, error) {
	var u cacheUsage
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, fs.ErrPermission) {
			u.hidden = true
			return nil
		}
		if err != nil {
			return ignoreGone(err)
		}
		fi, err := entry.Info()
		if err != nil {
			return ignoreGone(err)
		}
		id, links := identify(fi)
		if links > 1 && !fi.IsDir() {
			if seen[id] {
				return nil
			}
			seen[id] = true
		}
		if fi.IsDir() && isSnapshot(path[len(dir):]) {
			u.snapshots++
		}
		u.bytes += allocated(fi)
		return nil
	})
	return u, err
}

// isSnapshot knows /PRIVILEGES/SNAPSHOTTER/snapshots/snapshots/NUMBER; where snapshots are
// folders they are known by what each has changed, in .../snapshots/deltas/NUMBER.
func isSnapshot(path string) bool {
	parts := strings.Split(path, string(filepath.Separator))
	return len(parts) == 6 && parts[3] == "snapshots" && (parts[4] == "snapshots" || parts[4] == "deltas")
}

// ignoreGone: a build may be removing files while they are looked at.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
