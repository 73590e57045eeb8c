//go:build linux

package handover

import (
	"errors"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// unshare gives the files of a folder that also have names elsewhere inodes of their own, and returns the folder's
// entries. BuildKit may merge snapshots by hard links, and whoever wrote into such a file later would write into another
// snapshot.
func (s *Snapshots) unshare(root string, now []entry) ([]entry, error) {
	groups := map[uint64][]*entry{}
	for i := range now {
		if e := &now[i]; e.linked() {
			groups[e.ino] = append(groups[e.ino], e)
		}
	}
	for ino, group := range groups {
		if uint64(len(group)) == group[0].nlink {
			delete(groups, ino)
		}
	}
	return s.separate(root, now, groups)
}

// likeLayer gives new names of a file that was there before an inode of their own, and returns the folder's entries.
// The layer has a second file there, and so has every folder that is built of layers, and overlayfs as soon as one of
// the two is written.
func (s *Snapshots) likeLayer(root string, now []entry, list []change) ([]entry, error) {
	groups := map[uint64][]*entry{}
	for _, c := range list {
		if c.now != nil && c.now.linked() {
			groups[c.now.ino] = append(groups[c.now.ino], c.now)
		}
	}
	for ino, group := range groups {
		if uint64(len(group)) == group[0].nlink { // the layer has all of its names
			delete(groups, ino)
		}
	}
	return s.separate(root, now, groups)
}

// separate gives each group of names an inode of its own, and returns the folder's entries.
func (s *Snapshots) separate(root string, now []entry, groups map[uint64][]*entry) ([]entry, error) {
	if len(groups) == 0 {
		return now, nil
	}
	for _, group := range groups {
		if err := replaceByCopy(root, group[0], s.notes); err != nil {
			return nil, err
		}
		for _, e := range group[1:] {
			if err := replaceByLink(root, group[0].path, e.path); err != nil {
				return nil, err
			}
		}
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
