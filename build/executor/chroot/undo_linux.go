package chroot

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/executor/internal/step"
)

// undoer takes what the journal names out of a root file system in which a step may have done anything: moved or
// removed what was put there, put something else there, or made a link of a folder on the way.
type undoer struct {
	root  step.RootDir
	aside string
	// live says that the entries are undone for the first time, so that what is in a place is what the step has put
	// there, and not what an earlier attempt has put back.
	live bool
}

// undo takes one entry back.
func (u undoer) undo(e entry) error {
	switch e.Kind {
	case madeFolder:
		return u.in(e.To, func(dir int, base string) error {
			err := unix.Unlinkat(dir, base, unix.AT_REMOVEDIR)
			if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOTDIR) {
				return nil // the step has put something there
			}
			return err
		})
	case covered:
		return u.uncover(e)
	case placed:
		return u.discard(e)
	case moved:
		return u.sendHome(e)
	}
	return errors.New("the journal has an entry of an unknown kind")
}

// in calls f with the folder that name lies in. It is not called, and all is well, where that folder is not there any
// more or a link leads to it now: whatever the step has made there is its own. That name is missing is no error.
func (u undoer) in(name string, f func(dir int, base string) error) error {
	dir, err := u.root.OpenHow(path.Dir(name), unix.OpenHow{
		Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS,
	})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	if err != nil {
		return err
	}
	defer step.Closing(dir)
	err = keepTimes(dir, func() error { return f(dir, path.Base(name)) })
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// uncover puts back what a mount has covered, in place of whatever the step may have left there. Where the step has
// removed the folder around it, it goes as well.
func (u undoer) uncover(e entry) error {
	if !exists(e.From) {
		return nil // an earlier attempt came as far as that, or a killed one not yet
	}
	err := u.in(e.To, func(dir int, base string) error {
		if err := removeAt(dir, base); err != nil {
			return err
		}
		return unix.Renameat(unix.AT_FDCWD, e.From, dir, base)
	})
	if err == nil && exists(e.From) {
		err = os.RemoveAll(e.From)
	}
	return err
}

// discard removes what was put in a place, wherever the step has moved it, and what it has put there instead.
func (u undoer) discard(e entry) error {
	return u.where(e, func(dir int, base string, found bool) error {
		if found || u.live {
			return removeAt(dir, base)
		}
		return nil
	})
}

// sendHome moves a source back to where it belongs. One that the step has removed is made again, empty.
func (u undoer) sendHome(e entry) error {
	if exists(e.From) {
		return nil
	}
	err := u.where(e, func(dir int, base string, found bool) error {
		if !found {
			return nil
		}
		return unix.Renameat(dir, base, unix.AT_FDCWD, e.From)
	})
	if err != nil || exists(e.From) {
		return err
	}
	return remake(e)
}

// withoutRoot is undo where the root file system is gone: the sources that were in it are made again.
func (undoer) withoutRoot(e entry) error {
	if e.Kind != moved || exists(e.From) {
		return nil
	}
	return remake(e)
}

// remake makes an empty source in place of one that is lost.
func remake(e entry) error {
	mode := os.FileMode(e.Thing.Mode & 0o777)
	if e.Thing.Mode&unix.S_IFMT != unix.S_IFDIR {
		return writeFile(e.From, nil, mode, int(e.Thing.UID), int(e.Thing.GID))
	}
	if err := makeFolder(e.From, e.Thing.Mode&0o7777); err != nil {
		return err
	}
	return os.Chown(e.From, int(e.Thing.UID), int(e.Thing.GID))
}

// where calls f with the place at which the entry's thing is now; if it is nowhere, with its own place and found unset.
func (u undoer) where(e entry, f func(dir int, base string, found bool) error) error {
	there := false
	err := u.in(e.To, func(dir int, base string) error {
		is, err := inodeAt(dir, base)
		there = err == nil && is.same(e.Thing)
		return nil
	})
	if err != nil {
		return err
	}
	if there {
		return u.in(e.To, func(dir int, base string) error { return f(dir, base, true) })
	}
	elsewhere, err := u.search(e.Thing)
	if err != nil {
		return err
	}
	if elsewhere != "" {
		if err := u.in(elsewhere, func(dir int, base string) error { return f(dir, base, true) }); err != nil {
			return err
		}
		if e.Kind == moved {
			return nil
		}
	}
	return u.in(e.To, func(dir int, base string) error { return f(dir, base, false) })
}

// search finds a thing that the step has moved.
func (u undoer) search(thing inode) (found string, err error) {
	err = filepath.WalkDir(u.root.Path, func(p string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case thing.Mode&unix.S_IFMT == unix.S_IFDIR != d.IsDir():
			return nil
		}
		is, err := inodeAt(unix.AT_FDCWD, p)
		if err != nil || !is.same(thing) {
			return err
		}
		found = strings.TrimPrefix(p, u.root.Path)
		return fs.SkipAll
	})
	return found, err
}

// removeAt removes what is at base in a folder, with all that is in it, without following a link; nothing there is
// fine.
func removeAt(dir int, base string) error {
	err := unix.Unlinkat(dir, base, 0)
	switch {
	case err == nil, errors.Is(err, unix.ENOENT):
		return nil
	case !errors.Is(err, unix.EISDIR):
		return err
	}
	fd, err := unix.Openat(dir, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer step.Closing(fd)
	names, err := list(fd)
	if err != nil {
		return err
	}
	for name := range names {
		if err := removeAt(fd, name); err != nil {
			return err
		}
	}
	return unix.Unlinkat(dir, base, unix.AT_REMOVEDIR)
}
