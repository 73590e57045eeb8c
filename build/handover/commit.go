//go:build linux

package handover

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/errdefs"
)

// Commit makes an active snapshot one that never changes. What has changed since it was prepared is written as a layer,
// so the folder is from then on one of those that anybody may take.
//
// The order is what a kill can't harm: the layer is complete, then the database knows the snapshot as committed, then
// the folder's manifest says whose it is; a folder without the right manifest is described anew.
func (s *Snapshots) Commit(ctx context.Context, name, key string, opts ...snapshots.Opt) error {
	id, info, _, err := s.info(ctx, key)
	if err != nil {
		return fmt.Errorf("commit a snapshot: %w", err)
	}
	if info.Kind != snapshots.KindActive {
		return fmt.Errorf("commit a snapshot: %q is not active: %w", key, errdefs.ErrFailedPrecondition)
	}
	s.folders.lock(id)
	s.folders.mu.Unlock()
	defer func() { s.folders.mu.Lock(); s.folders.unlock(id) }()
	began := time.Now()
	now, usage, err := s.keepDelta(ctx, id)
	if err != nil {
		return fmt.Errorf("keep the changes of snapshot %q: %w", key, err)
	}
	s.kill("delta kept")
	if err := s.meta.WithTransaction(ctx, true, func(ctx context.Context) error {
		_, err := storage.CommitActive(ctx, key, name, usage, opts...)
		return err
	}); err != nil {
		return fmt.Errorf("commit a snapshot: %w", err)
	}
	s.kill("committed")
	s.mu.Lock()
	s.known[id] = record{snapshots.KindCommitted, s.known[id].parent}
	s.mu.Unlock()
	// If that fails, whoever takes the folder sees that the manifest is another's.
	_ = newManifest(id, now, began).write(filepath.Join(s.folderOf(id), manifestName))
	s.keepManifest(s.folderOf(id), id)
	s.folders.want(id)
	return nil
}

// keepDelta writes what makes an active snapshot out of its parent, and returns what is in its folder.
func (s *Snapshots) keepDelta(ctx context.Context, id string) ([]entry, snapshots.Usage, error) {
	now, err := scan(s.rootOf(id), s.notes)
	if err != nil {
		return nil, snapshots.Usage{}, err
	}
	if now, err = s.unshare(s.rootOf(id), now); err != nil {
		return nil, snapshots.Usage{}, err
	}
	tmp := s.deltaOf(id) + partial
	var usage snapshots.Usage
	if _, applied := s.applied.LoadAndDelete(id); applied {
		usage, err = usageOfLayer(filepath.Join(tmp, layerName))
	} else {
		now, usage, err = s.newDelta(ctx, tmp, id, now)
	}
	if err != nil {
		return nil, usage, errors.Join(err, os.RemoveAll(tmp)) // the disk may be full
	}
	if err := os.RemoveAll(s.deltaOf(id)); err != nil { // of a commit that was killed
		return nil, usage, err
	}
	return now, usage, os.Rename(tmp, s.deltaOf(id))
}

// newDelta compares an active snapshot's folder with what it was, and writes the difference. It returns what the folder
// has then.
func (s *Snapshots) newDelta(ctx context.Context, dir, id string, now []entry) (_ []entry, usage snapshots.Usage, err error) {
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
		return nil, usage, err
	}
	list, err := s.changes(ctx, id, now, func(files []*entry) (map[string]bool, error) {
		return differing(s.deltasBelow(id), s.rootOf(id), files)
	})
	if err != nil {
		return nil, usage, err
	}
	if usage.Size, usage.Inodes, err = writeDelta(ctx, dir, s.rootOf(id), now, list); err != nil {
		return nil, usage, err
	}
	now, err = s.likeLayer(s.rootOf(id), now, list)
	return now, usage, err
}

// deltasBelow are the deltas of a snapshot's ancestors, the nearest first.
func (s *Snapshots) deltasBelow(id string) (deltas []string) {
	for _, ancestor := range s.chain(id)[1:] {
		deltas = append(deltas, s.deltaOf(ancestor))
	}
	return deltas
}

// changes lists what is different in an active snapshot's folder from its parent.
func (s *Snapshots) changes(ctx context.Context, id string, now []entry, differs func([]*entry) (map[string]bool, error)) ([]change, error) {
	s.mu.Lock()
	parent := s.known[id].parent
	s.mu.Unlock()
	before, err := readManifest(filepath.Join(s.folderOf(id), manifestName))
	if err != nil || before.of != parent { // written by another version of this package
		return s.changesByFolder(ctx, parent, id, now)
	}
	return difference(before.entries, now, judge, differs)
}

// changesByFolder compares what is in the upper folder with the folder of another snapshot; "" is the empty folder.
func (s *Snapshots) changesByFolder(ctx context.Context, lower, upper string, now []entry) ([]change, error) {
	if lower == "" {
		return difference(nil, now, judge, nil)
	}
	release, err := s.hold(ctx, lower)
	if err != nil {
		return nil, err
	}
	defer release()
	before, err := scan(s.rootOf(lower), s.notes)
	if err != nil {
		return nil, err
	}
	return difference(before, now, judgeCopies, func(files []*entry) (map[string]bool, error) {
		return differingFolders(s.rootOf(lower), s.rootOf(upper), before, files)
	})
}

// usageOfLayer is what the files of a layer need.
func usageOfLayer(path string) (u snapshots.Usage, err error) {
	err = eachHeader(path, func(h *tar.Header) {
		u.Size += h.Size
		u.Inodes++
	})
	return u, err
}
