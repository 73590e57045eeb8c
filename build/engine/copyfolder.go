//go:build linux

package engine

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	fscopy "github.com/tonistiigi/fsutil/copy"
	"golang.org/x/sys/unix"
)

// treeWorker copies units of a tree. Paths are looked up once a folder: the files are
// named from there.
type treeWorker struct {
	*treeCopy
	buf      []byte
	src, dst int // the folders of this unit
}

func openFolder(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

// copy works at a unit. If another worker has nothing to do, it gets half of the files that
// are left; else workers keep to folders of their own, where they are in nobody's way.
func (w *treeWorker) copy(ctx context.Context, u copyUnit) (err error) {
	dir, err := os.OpenFile(filepath.Join(w.from, u.rel), os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }() // only read
	w.src = int(dir.Fd())
	if w.dst, err = openFolder(filepath.Join(w.to, u.rel)); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(w.dst)) }()
	names := u.names
	if names == nil {
		if names, err = w.list(ctx, dir, u); err != nil {
			return err
		}
	}
	for len(names) > 0 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if len(names) > 1 && w.queue.hungry() {
			half := len(names) / 2
			w.queue.push(copyUnit{rel: u.rel, names: names[half:]})
			names = names[:half]
		}
		if err := w.file(filepath.Join(u.rel, names[0])); err != nil {
			return err
		}
		names = names[1:]
	}
	return nil
}

// list makes all that is in a folder but regular files, which it returns; other folders
// are queued.
func (w *treeWorker) list(ctx context.Context, dir *os.File, u copyUnit) (files []string, err error) {
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		rel := filepath.Join(u.rel, e.Name())
		skip, match, err := w.exclude.match(rel, u.match)
		if err != nil {
			return nil, err
		}
		switch t := e.Type(); {
		case skip:
		case t.IsRegular():
			files = append(files, e.Name())
		case t.IsDir():
			if err = w.folder(rel, e); err == nil {
				w.queue.push(copyUnit{rel: rel, match: match})
			}
		case t&fs.ModeSymlink != 0:
			err = w.symlink(rel, e)
		default:
			err = w.special(ctx, rel)
		}
		if err != nil {
			return nil, err
		}
	}
	return files, nil
}

// folder makes a folder, or takes the one that is there.
func (w *treeWorker) folder(rel string, e fs.DirEntry) error {
	info, err := e.Info()
	if err != nil {
		return err
	}
	target := filepath.Join(w.to, rel)
	err = os.Mkdir(target, 0o700)
	if errors.Is(err, fs.ErrExist) {
		err = w.existing(target)
	}
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.made = append(w.made, madeFolder{rel, info})
	return nil
}

// existing takes a folder that is there. Something else makes room only if the COPY says
// so.
func (w *treeWorker) existing(target string) error {
	info, err := os.Lstat(target)
	if err != nil || info.IsDir() {
		return err
	}
	if !w.opt.AlwaysReplaceExistingDestPaths {
		return notAFolder(target)
	}
	if err := os.Remove(target); err != nil {
		return err
	}
	return os.Mkdir(target, 0o700)
}

func notAFolder(path string) error {
	return &os.PathError{Op: "copy a directory to", Path: path, Err: syscall.ENOTDIR}
}

// create makes a file under a name that may be taken.
func (w *treeWorker) create(rel string, create func() error) error {
	named := func() error {
		if err := create(); err != nil {
			return &os.PathError{Op: "create", Path: filepath.Join(w.to, rel), Err: err}
		}
		return nil
	}
	err := named()
	if errors.Is(err, fs.ErrExist) {
		if err = w.vacate(rel); err == nil {
			err = named()
		}
	}
	return err
}

// vacate takes away what has the name of a file to make; a folder only if the COPY says so.
func (w *treeWorker) vacate(rel string) error {
	target := filepath.Join(w.to, rel)
	info, err := os.Lstat(target)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.IsDir() && !w.opt.AlwaysReplaceExistingDestPaths:
		return &os.PathError{Op: "copy a file to", Path: target, Err: syscall.EISDIR}
	}
	return os.RemoveAll(target)
}

func (w *treeWorker) symlink(rel string, e fs.DirEntry) error {
	info, err := e.Info()
	if err != nil {
		return err
	}
	source, target := filepath.Join(w.from, rel), filepath.Join(w.to, rel)
	points, err := os.Readlink(source)
	if err != nil {
		return err
	}
	if err := w.create(rel, func() error { return unix.Symlinkat(points, w.dst, e.Name()) }); err != nil {
		return err
	}
	if err := w.dress(target, info); err != nil {
		return err
	}
	copyXattrs(target, source)
	return nil
}

// special leaves a device, a fifo or a socket to fsutil.
func (w *treeWorker) special(ctx context.Context, rel string) error {
	if err := w.vacate(rel); err != nil {
		return err
	}
	opt := *w.opt
	opt.ExcludePatterns = nil
	return fscopy.Copy(ctx, w.from, rel, w.to, rel, fscopy.WithCopyInfo(opt))
}
