//go:build linux

package engine

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	continuity "github.com/containerd/continuity/fs"
	"github.com/moby/buildkit/snapshot"
	"github.com/moby/buildkit/solver/llbsolver/file"
	"github.com/moby/buildkit/solver/llbsolver/ops/fileoptypes"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/patternmatcher"
	fscopy "github.com/tonistiigi/fsutil/copy"
)

// fileBackend does what COPY, ADD and BuildKit's other file operations ask for. It is
// BuildKit's own backend but for one thing: folders are copied on all cores. Whoever
// does a part in another way embeds it, and overrides that part.
type fileBackend struct {
	*file.Backend
}

var _ fileoptypes.Backend = (*fileBackend)(nil)

// newFileBackend returns a backend that looks names of owners up in the file systems that
// it is handed.
func newFileBackend() (*fileBackend, error) {
	b, err := file.NewFileOpBackend(readOwner)
	if err != nil {
		return nil, err
	}
	return &fileBackend{b}, nil
}

// Copy copies from one file system to another. What it makes is what BuildKit's backend
// makes, which still does all that is rare: selections by what to include, archives to
// unpack, symbolic modes.
func (b *fileBackend) Copy(ctx context.Context, from, to, user, group fileoptypes.Mount, a *pb.FileActionCopy) error {
	c, err := newFolderCopy(from, to, user, group, a)
	if err != nil {
		return err
	}
	if c != nil {
		done, err := c.run(ctx)
		if done || err != nil {
			return err
		}
	}
	return b.Backend.Copy(ctx, from, to, user, group, a)
}

// folderCopy is one COPY or ADD of which fsutil does all but what is in the folders.
type folderCopy struct {
	action   *pb.FileActionCopy
	from, to snapshot.Mountable
	opt      fscopy.CopyInfo
	exclude  *patternmatcher.PatternMatcher // may be nil
}

// newFolderCopy is nil for what is left to BuildKit.
func newFolderCopy(from, to, user, group fileoptypes.Mount, a *pb.FileActionCopy) (*folderCopy, error) {
	src, dst := mountableOf(from), mountableOf(to)
	if src == nil || dst == nil || dst.IdentityMapping() != nil ||
		!a.DirCopyContents || len(a.IncludePatterns) > 0 || a.ModeStr != "" {
		return nil, nil
	}
	c := &folderCopy{action: a, from: src, to: dst}
	if len(a.ExcludePatterns) > 0 {
		var err error
		if c.exclude, err = patternmatcher.New(a.ExcludePatterns); err != nil || c.exclude.Exclusions() {
			return nil, nil //nolint:nilerr // BuildKit says what is wrong with it
		}
	}
	owner, err := readOwner(a.Owner, mountableOf(user), mountableOf(group))
	if err != nil {
		return nil, err
	}
	c.opt = fscopy.CopyInfo{
		ExcludePatterns: a.ExcludePatterns,
		Chown:           chownerTo(owner),
		CopyDirContents: true,
		FollowLinks:     a.FollowSymlink,
		XAttrErrorHandler: func(string, string, string, error) error {
			return nil // as BuildKit: not every one can be had everywhere
		},
		AlwaysReplaceExistingDestPaths: a.AlwaysReplaceExistingDestPaths,
	}
	if a.Timestamp != -1 {
		t := time.Unix(0, a.Timestamp)
		c.opt.Utime = &t
	}
	if m := int(a.Mode); m != -1 {
		c.opt.Mode = &m
	}
	return c, nil
}

// mountableOf is nil for no mount.
func mountableOf(m fileoptypes.Mount) snapshot.Mountable {
	if f, ok := m.(*file.Mount); ok && f != nil {
		return f.Mountable()
	}
	return nil
}

// run reports whether it was for us to do: an ADD that may have to unpack is not.
func (c *folderCopy) run(ctx context.Context) (done bool, err error) {
	from, unmountFrom, err := mountLocally(c.from)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, unmountFrom()) }()
	sources, err := c.sources(from)
	if err != nil || len(sources) == 0 {
		return false, nil
	}
	to, unmountTo, err := mountLocally(c.to)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, unmountTo()) }()
	if !c.parentExists(to) {
		return false, nil
	}
	defer func() { err = withoutRoots(err, from, to) }()
	for _, s := range sources {
		if err := c.copyOne(ctx, from, to, s); err != nil {
			return true, err
		}
	}
	return true, nil
}

func mountLocally(m snapshot.Mountable) (dir string, unmount func() error, err error) {
	lm := snapshot.LocalMounter(m)
	dir, err = lm.Mount()
	return dir, lm.Unmount, err
}

// copySource is something that a COPY names.
type copySource struct {
	path string // as fsutil takes it
	dir  string // where it is, if it is a folder
}

// sources are none if BuildKit has to do it, or to tell what is wrong.
func (c *folderCopy) sources(root string) ([]copySource, error) {
	paths := []string{cleanCopyPath(c.action.Src)}
	if c.action.AllowWildcard {
		var err error
		if paths, err = fscopy.ResolveWildcards(root, paths[0], c.action.FollowSymlink); err != nil {
			return nil, err
		}
	}
	list, folders := make([]copySource, len(paths)), false
	for i, p := range paths {
		real, err := sourcePath(root, p, c.action.FollowSymlink)
		if err != nil {
			return nil, err
		}
		info, err := os.Lstat(real)
		if err != nil {
			return nil, err
		}
		list[i].path = p
		switch {
		case info.IsDir() && !handsDownACL(real):
			list[i].dir, folders = real, true
		case c.action.AttemptUnpackDockerCompatibility:
			return nil, nil
		}
	}
	if !folders {
		return nil, nil
	}
	return list, nil
}

// sourcePath is the file that fsutil copies for a path.
func sourcePath(root, path string, follow bool) (string, error) {
	path = filepath.Join("/", path)
	if path == "/" || follow {
		return continuity.RootPath(root, path)
	}
	dir, err := continuity.RootPath(root, filepath.Dir(path))
	return filepath.Join(dir, filepath.Base(path)), err
}

// cleanCopyPath is a path below the root. A slash, or a slash and a dot, at its end have
// a meaning.
func cleanCopyPath(path string) string {
	clean := filepath.Join("/", path)
	switch {
	case strings.HasSuffix(path, "/."):
		return strings.TrimSuffix(clean, "/") + "/."
	case strings.HasSuffix(path, "/") && clean != "/":
		return clean + "/"
	}
	return clean
}

func (c *folderCopy) parentExists(root string) bool {
	if c.action.CreateDestPath {
		return true
	}
	path, err := continuity.RootPath(root, filepath.Join("/", c.action.Dest))
	if err != nil {
		return false
	}
	_, err = os.Lstat(filepath.Dir(path))
	return err == nil
}

// copyOne has fsutil make, own and date the target of a folder, puts in what it left out, and
// gives the target its times again.
func (c *folderCopy) copyOne(ctx context.Context, from, to string, s copySource) error {
	dest := cleanCopyPath(c.action.Dest)
	opt := c.opt
	if s.dir == "" {
		return fscopy.Copy(ctx, from, s.path, to, dest, fscopy.WithCopyInfo(opt))
	}
	target, err := continuity.RootPath(to, filepath.Clean(dest))
	if err != nil {
		return err
	}
	if info, err := os.Lstat(target); err == nil && !info.IsDir() && !opt.AlwaysReplaceExistingDestPaths {
		return notAFolder(target)
	}
	opt.ExcludePatterns = []string{"*"}
	if err := fscopy.Copy(ctx, from, s.path, to, dest, fscopy.WithCopyInfo(opt)); err != nil {
		return err
	}
	info, err := os.Lstat(target)
	if err != nil {
		return err
	}
	tree := newTreeCopy(s.dir, target, &c.opt, c.exclude)
	if err := tree.run(ctx); err != nil {
		return err
	}
	return setStatTimes(target, info)
}

// withoutRoots takes out of an error where the file systems are mounted.
func withoutRoots(err error, roots ...string) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		for _, root := range roots {
			e.Path = strings.TrimPrefix(e.Path, root)
		}
	}
	return err
}
