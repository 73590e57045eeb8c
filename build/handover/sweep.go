//go:build linux

package handover

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
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
