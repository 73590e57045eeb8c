//go:build linux

package engine

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	continuity "github.com/containerd/continuity/fs"
	"github.com/moby/buildkit/snapshot"
	"github.com/moby/buildkit/solver/llbsolver/ops/fileoptypes"
	"github.com/moby/buildkit/solver/pb"
	"github.com/tonistiigi/dchapes-mode"
	"github.com/tonistiigi/fsutil"
	fscopy "github.com/tonistiigi/fsutil/copy"

	"github.com/wherry-oci/wherry/build/handover"
)

// asideBackend works on files that this process can't give away: chown does nothing here,
// and whose a file is, and the mode that would lock us out of it, are noted beside it. All
// that is made anew is root's until then.
type asideBackend struct {
	*fileBackend
	snapshots *handover.Snapshots
}

func (b *asideBackend) Mkdir(ctx context.Context, m, user, group fileoptypes.Mount, a *pb.FileActionMkDir) error {
	return b.making(m, user, group, a.Owner, a.Path, os.FileMode(a.Mode).Perm(), func() error {
		return b.fileBackend.Mkdir(ctx, m, user, group, a)
	})
}

func (b *asideBackend) Mkfile(ctx context.Context, m, user, group fileoptypes.Mount, a *pb.FileActionMkFile) error {
	err := b.fileBackend.Mkfile(ctx, m, user, group, a)
	if err != nil {
		return err
	}
	return b.made(m, user, group, a.Owner, a.Path, os.FileMode(a.Mode).Perm())
}

func (b *asideBackend) Symlink(ctx context.Context, m, user, group fileoptypes.Mount, a *pb.FileActionSymlink) error {
	if err := b.fileBackend.Symlink(ctx, m, user, group, a); err != nil {
		return err
	}
	return b.made(m, user, group, a.Owner, a.Newpath, 0)
}

// made gives what is new at a path its owner and mode.
func (b *asideBackend) made(m, user, group fileoptypes.Mount, o *pb.ChownOpt, path string, mode fs.FileMode) error {
	return inFolder(mountableOf(m), func(root string) error {
		owner, err := readOwner(o, mountableOf(user), mountableOf(group))
		if err != nil {
			return err
		}
		dir, err := continuity.RootPath(root, filepath.Dir(filepath.Join("/", path)))
		if err != nil {
			return err
		}
		return b.own(filepath.Join(dir, filepath.Base(path)), owner, mode)
	})
}

// making gives the folders that make makes, at a path and above it, their owner and mode.
func (b *asideBackend) making(m, user, group fileoptypes.Mount, o *pb.ChownOpt, path string, mode fs.FileMode, make func() error) error {
	return inFolder(mountableOf(m), func(root string) error {
		owner, err := readOwner(o, mountableOf(user), mountableOf(group))
		if err != nil {
			return err
		}
		missing, err := missingFolders(root, path)
		if err != nil {
			return err
		}
		if err := make(); err != nil {
			return err
		}
		for _, dir := range missing {
			if err := b.own(dir, owner, mode); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		return nil
	})
}

func (b *asideBackend) own(path string, owner *fscopy.User, mode fs.FileMode) error {
	if owner == nil {
		owner = &fscopy.User{}
	}
	return b.snapshots.SetOwner(path, handover.Owner{UID: owner.UID, GID: owner.GID, Mode: mode})
}

// inFolder has use work in the folder of a file system.
func inFolder(m snapshot.Mountable, use func(root string) error) (err error) {
	root, unmount, err := mountLocally(m)
	if err != nil {
		return err
	}
	defer func() { err = withoutRoots(errors.Join(err, unmount()), root) }()
	return use(root)
}

// missingFolders are a path and the folders above it as far as they are not there, the
// deepest first.
func missingFolders(root, path string) ([]string, error) {
	full, err := continuity.RootPath(root, path)
	if err != nil {
		return nil, err
	}
	var list []string
	for full != root {
		if _, err := os.Lstat(full); err == nil {
			break
		}
		list = append(list, full)
		full = filepath.Dir(full)
	}
	return list, nil
}

// Copy copies with fsutil, and then notes of each copy what is to be noted. What is in
// another folder of snapshots may itself be noted.
func (b *asideBackend) Copy(ctx context.Context, from, to, user, group fileoptypes.Mount, a *pb.FileActionCopy) error {
	return inFolder(mountableOf(from), func(src string) error {
		return inFolder(mountableOf(to), func(dst string) error {
			owner, err := readOwner(a.Owner, mountableOf(user), mountableOf(group))
			if err != nil {
				return err
			}
			paths := []string{cleanCopyPath(a.Src)}
			if a.AllowWildcard {
				if paths, err = fscopy.ResolveWildcards(src, paths[0], a.FollowSymlink); err != nil {
					return err
				}
			}
			if len(paths) == 0 || !a.CreateDestPath {
				return b.fileBackend.Copy(ctx, from, to, user, group, a) // which says what is wrong, or copies nothing
			}
			for _, p := range paths {
				c := &asideCopy{backend: b, action: a, owner: owner, from: src, to: dst, path: p}
				if err := c.run(ctx); err != nil {
					return withoutRoots(err, src)
				}
			}
			return nil
		})
	})
}

// asideCopy is the copy of one path.
type asideCopy struct {
	backend        *asideBackend
	action         *pb.FileActionCopy
	owner          *fscopy.User // nil: whose the files are
	from, to, path string
	copied         []string // paths below to, with a slash in front
}

func (c *asideCopy) run(ctx context.Context) error {
	dest := cleanCopyPath(c.action.Dest)
	missing, err := missingFolders(c.to, dest)
	if err != nil {
		return err
	}
	if err := fscopy.Copy(ctx, c.from, c.path, c.to, dest, c.options); err != nil {
		return err
	}
	for _, dir := range missing {
		err := c.backend.own(dir, c.owner, c.modeOfParents())
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // nothing may have been selected
			return err
		}
	}
	source, err := sourcePath(c.from, c.path, c.action.FollowSymlink)
	if err != nil {
		return err
	}
	target, err := c.target(source, dest)
	if err != nil {
		return err
	}
	for _, p := range slices.Backward(c.copied) {
		p = filepath.Join(c.to, p)
		below, err := filepath.Rel(target, p)
		if err != nil {
			return err
		}
		if err := c.dress(p, filepath.Join(source, below)); err != nil {
			return err
		}
	}
	return nil
}

// options are those of BuildKit's backend but for owners and modes.
func (c *asideCopy) options(o *fscopy.CopyInfo) {
	*o = fscopy.CopyInfo{
		IncludePatterns: c.action.IncludePatterns,
		ExcludePatterns: c.action.ExcludePatterns,
		Chown:           func(*fscopy.User) (*fscopy.User, error) { return nil, nil },
		CopyDirContents: c.action.DirCopyContents,
		FollowLinks:     c.action.FollowSymlink,
		XAttrErrorHandler: func(string, string, string, error) error {
			return nil
		},
		AlwaysReplaceExistingDestPaths: c.action.AlwaysReplaceExistingDestPaths,
		ChangeFunc: func(_ fsutil.ChangeKind, path string, _ os.FileInfo, _ error) error {
			c.copied = append(c.copied, path)
			return nil
		},
	}
	if c.action.Timestamp != -1 {
		t := time.Unix(0, c.action.Timestamp)
		o.Utime = &t
	}
}

// target is where the copy of a source is.
func (c *asideCopy) target(source, dest string) (string, error) {
	target, err := continuity.RootPath(c.to, filepath.Clean(dest))
	if err != nil {
		return "", err
	}
	info, err := os.Lstat(source)
	if err != nil {
		return "", err
	}
	inside := filepath.Join(target, filepath.Base(c.path))
	if info.IsDir() && c.action.DirCopyContents || !slices.Contains(c.copied, strings.TrimPrefix(inside, c.to)) {
		return target, nil
	}
	return inside, nil
}

// dress gives a copy its owner and mode.
func (c *asideCopy) dress(path, source string) error {
	was, err := c.backend.snapshots.Owner(source)
	if err != nil {
		return err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	owner := &fscopy.User{UID: was.UID, GID: was.GID}
	if c.owner != nil {
		owner = c.owner
	}
	mode, err := c.mode(was.Mode | info.Mode().Type())
	if err != nil {
		return err
	}
	return c.backend.own(path, owner, mode)
}

// mode is that of a copy.
func (c *asideCopy) mode(was fs.FileMode) (fs.FileMode, error) {
	switch {
	case c.action.ModeStr != "":
		set, err := mode.ParseWithUmask(c.action.ModeStr, 0)
		if err != nil {
			return 0, err
		}
		return set.Apply(was), nil
	case c.action.Mode != -1:
		return handover.FileMode(uint32(c.action.Mode)), nil
	}
	return was, nil
}

// modeOfParents is that of the folders above a copy.
func (c *asideCopy) modeOfParents() fs.FileMode {
	if c.action.ModeStr == "" && c.action.Mode != -1 {
		return os.FileMode(c.action.Mode).Perm()
	}
	return 0o755
}

// chmod gives a file of root's its mode, or notes it where we could not read or change the
// file with it.
func (s *storage) chmod(path string, mode fs.FileMode) error {
	needed := fs.FileMode(0o600)
	if mode.IsDir() {
		needed = 0o700
	}
	if !s.aside || mode&needed == needed {
		return os.Chmod(path, mode)
	}
	return s.folders.SetOwner(path, handover.Owner{Mode: mode})
}
