//go:build linux

package handover

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
)

// Stat returns what is known of a snapshot.
func (s *Snapshots) Stat(ctx context.Context, key string) (info snapshots.Info, err error) {
	_, info, _, err = s.info(ctx, key)
	return info, err
}

func (s *Snapshots) info(ctx context.Context, key string) (id string, info snapshots.Info, u snapshots.Usage, err error) {
	err = s.meta.WithTransaction(ctx, false, func(ctx context.Context) error {
		id, info, u, err = storage.GetInfo(ctx, key)
		return err
	})
	return id, info, u, err
}

// Update changes a snapshot's labels.
func (s *Snapshots) Update(ctx context.Context, info snapshots.Info, fieldpaths ...string) (_ snapshots.Info, err error) {
	err = s.meta.WithTransaction(ctx, true, func(ctx context.Context) error {
		info, err = storage.UpdateInfo(ctx, info, fieldpaths...)
		return err
	})
	return info, err
}

// Usage is how much a snapshot adds to its parent.
func (s *Snapshots) Usage(ctx context.Context, key string) (snapshots.Usage, error) {
	id, info, usage, err := s.info(ctx, key)
	if err != nil || info.Kind != snapshots.KindActive {
		return usage, err
	}
	now, err := scan(s.rootOf(id), s.notes)
	if err != nil {
		return usage, err
	}
	list, err := s.changes(ctx, id, now, noneDiffer)
	for _, c := range list {
		if c.now != nil {
			usage.Inodes++
			usage.Size += c.now.size
		}
	}
	return usage, err
}

// noneDiffer spares reading contents where it does not matter.
func noneDiffer([]*entry) (map[string]bool, error) { return nil, nil }

// Walk calls fn with each snapshot that the filters let through.
func (s *Snapshots) Walk(ctx context.Context, fn snapshots.WalkFunc, filters ...string) error {
	return s.meta.WithTransaction(ctx, false, func(ctx context.Context) error {
		return storage.WalkInfo(ctx, fn, filters...)
	})
}

// Mounts returns the mounts of an active snapshot or a view.
func (s *Snapshots) Mounts(ctx context.Context, key string) ([]mount.Mount, error) {
	var id string
	err := s.meta.WithTransaction(ctx, false, func(ctx context.Context) error {
		snapshot, err := storage.GetSnapshot(ctx, key)
		id = snapshot.ID
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look for the mounts of a snapshot: %w", err)
	}
	if err := s.holdView(ctx, id, key); err != nil {
		return nil, err
	}
	return s.mounts(id), nil
}

// Prepare makes a snapshot to be changed. It has its parent's folder, if nobody reads that, else a copy.
func (s *Snapshots) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	return s.create(ctx, snapshots.KindActive, key, parent, opts)
}

// View makes a snapshot that shows its parent, which is not to be changed through it.
func (s *Snapshots) View(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	return s.create(ctx, snapshots.KindView, key, parent, opts)
}

func (s *Snapshots) create(ctx context.Context, kind snapshots.Kind, key, parent string, opts []snapshots.Opt) (_ []mount.Mount, err error) {
	var made storage.Snapshot
	if err := s.meta.WithTransaction(ctx, true, func(ctx context.Context) error {
		made, err = storage.CreateSnapshot(ctx, kind, key, parent, opts...)
		return err
	}); err != nil {
		return nil, fmt.Errorf("create a snapshot: %w", err)
	}
	r := record{kind: kind}
	if len(made.ParentIDs) > 0 {
		r.parent = made.ParentIDs[0]
	}
	s.remember(made.ID, r)
	s.kill("created")
	if kind == snapshots.KindView && r.parent != "" {
		err = s.holdView(ctx, made.ID, key)
	} else {
		err = s.folders.give(ctx, made.ID, r.parent)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make the folder of a snapshot: %w", err), s.Remove(context.WithoutCancel(ctx), key))
	}
	return s.mounts(made.ID), nil
}

func (s *Snapshots) remember(id string, r record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known[id] = r
}

// holdView keeps the folder that a view shows, until the view is removed.
func (s *Snapshots) holdView(ctx context.Context, id, key string) error {
	s.mu.Lock()
	r, held := s.known[id], s.views[id] != nil
	s.mu.Unlock()
	if held || r.kind != snapshots.KindView || r.parent == "" || s.options.Unread != nil && s.options.Unread(key) {
		return nil
	}
	release, err := s.folders.hold(ctx, r.parent)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.views[id] != nil { // by another caller at the same time
		go release()
		return nil
	}
	s.views[id] = release
	return nil
}

// Hold keeps the folder of a snapshot where it is, until release is called: that of a committed one is built if it is
// not there, and no child takes it meanwhile; an active one may be committed meanwhile. root is the source of a mount
// that a snapshot was given. With a folder that is none of these there is nothing to do.
func (s *Snapshots) Hold(ctx context.Context, root string) (release func(), err error) {
	id := s.idOf(root)
	if id == "" {
		return func() {}, nil
	}
	return s.hold(ctx, id)
}

func (s *Snapshots) hold(ctx context.Context, id string) (release func(), err error) {
	if release, err = s.folders.hold(ctx, id); err != nil {
		return nil, fmt.Errorf("build the folder of a snapshot: %w", err)
	}
	return release, nil
}

// Remove removes a snapshot that has no children.
func (s *Snapshots) Remove(ctx context.Context, key string) error {
	var id string
	if err := s.meta.WithTransaction(ctx, true, func(ctx context.Context) (err error) {
		id, _, err = storage.Remove(ctx, key)
		return err
	}); err != nil {
		return fmt.Errorf("remove a snapshot: %w", err)
	}
	s.kill("removed")
	s.mu.Lock()
	release := s.views[id]
	delete(s.views, id)
	delete(s.known, id)
	s.mu.Unlock()
	if release != nil {
		release()
	}
	s.applied.Delete(id)
	return errors.Join(s.folders.remove(id), os.RemoveAll(s.deltaOf(id)), os.RemoveAll(s.deltaOf(id)+partial))
}
