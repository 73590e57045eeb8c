//go:build linux

package handover

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// sweep removes what a killed process has left: folders and layers that were being made, or that were of snapshots
// which were never made or have been removed.
func (s *Snapshots) sweep() error {
	var errs []error
	for _, kind := range []string{"folders", "deltas"} {
		dir := filepath.Join(s.options.Dir, kind)
		list, err := os.ReadDir(dir)
		errs = append(errs, err)
		for _, e := range list {
			if _, ok := s.known[e.Name()]; !ok {
				errs = append(errs, removeTree(filepath.Join(dir, e.Name())))
			}
		}
	}
	return errors.Join(errs...)
}

// removeTree removes a folder, also where folders in it are closed to their owner.
func removeTree(dir string) error {
	err := os.RemoveAll(dir)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_ = os.Chmod(path, 0o700) //nolint:gosec // a folder is entered
		}
		return nil
	})
	return os.RemoveAll(dir)
}

// unshare gives the files of a folder that also have names elsewhere inodes of their own, and returns the folder's
// entries. BuildKit merges snapshots by hard links, and whoever wrote into such a file later would write into another
// snapshot.
func (s *Snapshots) unshare(id string, now []entry) ([]entry, error) {
	names := map[uint64][]int{}
	for i := range now {
		if now[i].linked() {
			names[now[i].ino] = append(names[now[i].ino], i)
		}
	}
	root, shared := s.rootOf(id), false
	for _, list := range names {
		if uint64(len(list)) == now[list[0]].nlink {
			continue
		}
		shared = true
		first := &now[list[0]]
		if err := replaceByCopy(root, first, s.notes); err != nil {
			return nil, err
		}
		for _, i := range list[1:] {
			if err := replaceByLink(root, first.path, now[i].path); err != nil {
				return nil, err
			}
		}
	}
	if !shared {
		return now, nil
	}
	if err := restoreTimes(root, now); err != nil {
		return nil, err
	}
	return scan(root, s.notes)
}

func replaceByCopy(root string, e *entry, notes *notes) error {
	path := filepath.Join(root, e.path)
	tmp, err := os.MkdirTemp(filepath.Dir(root), "copy-")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp) }() // empty again
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return pathError("lstat", path, err)
	}
	real := entryOf(e.path, &st) // of a device that is noted there is a file
	copied := filepath.Join(tmp, "copy")
	if err := copyOne(copied, path, &real, notes); err != nil {
		return errors.Join(err, os.RemoveAll(tmp))
	}
	return os.Rename(copied, path)
}

func replaceByLink(root, first, name string) error {
	path := filepath.Join(root, name)
	if err := os.Remove(path); err != nil {
		return err
	}
	return os.Link(filepath.Join(root, first), path)
}

// restoreTimes gives folders the times they had before something in them was replaced.
func restoreTimes(root string, entries []entry) error {
	for _, e := range slices.Backward(entries) {
		if e.isDir() {
			if err := setTime(filepath.Join(root, e.path), e.mtime); err != nil {
				return err
			}
		}
	}
	return nil
}
