//go:build linux

package engine

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// maxRemembered files are kept in a folder of Remember: each is about one project.
const maxRemembered = 100

// Remember gives a file of the build state a new content in one step, and drops the file
// that is the oldest in its folder where there are many. The folder is made where it is
// missing. Nothing is synced: whoever reads takes what can't be read for nothing.
func Remember(path string, content []byte) error {
	dir := filepath.Dir(path)
	if _, err := mkdir(dir); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".*")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return forgetOldest(dir)
}

func forgetOldest(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) <= maxRemembered {
		return err
	}
	oldest := slices.MinFunc(entries, func(a, b os.DirEntry) int { return modified(a).Compare(modified(b)) })
	if err := os.Remove(filepath.Join(dir, oldest.Name())); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil // another build was faster
}

func modified(e os.DirEntry) time.Time {
	info, err := e.Info()
	if err != nil { // it is gone
		return time.Time{}
	}
	return info.ModTime()
}
