//go:build linux

package engine

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/containerd/continuity/sysx"
	"github.com/moby/patternmatcher"
	fscopy "github.com/tonistiigi/fsutil/copy"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// treeCopy copies what is in a folder into another one, on all cores. The outcome is
// fsutil's, whose copier takes one file after the other. Folders of the source are never
// left through symbolic links, nor are those of the target.
type treeCopy struct {
	from, to string
	opt      *fscopy.CopyInfo
	exclude  *excluder
	queue    *copyQueue

	mu    sync.Mutex
	links map[inode]*firstName
	made  []madeFolder

	noRange atomic.Bool // the kernel does not copy between these two file systems
}

// inode tells files of which some have several names.
type inode struct{ dev, ino uint64 }

// firstName is the copy of a file that has several names; the others become links to it.
type firstName struct {
	path string
	done chan struct{} // closed when it is there
	err  error
}

// madeFolder is a folder of the target that still has to get its owner, mode and times.
type madeFolder struct {
	rel  string
	info os.FileInfo // the source's
}

// copyUnit is a folder to copy, or some of its files.
type copyUnit struct {
	rel   string
	names []string // of regular files; nil to list the folder
	match patternmatcher.MatchInfo
}

func newTreeCopy(from, to string, opt *fscopy.CopyInfo, exclude *patternmatcher.PatternMatcher) *treeCopy {
	c := &treeCopy{from: from, to: to, opt: opt, links: map[inode]*firstName{}, queue: newCopyQueue(runtime.GOMAXPROCS(0))}
	if exclude != nil {
		c.exclude = &excluder{patterns: exclude}
	}
	return c
}

// run copies all files, then dresses the folders: what is put into them changes their
// times.
func (c *treeCopy) run(ctx context.Context) error {
	c.queue.push(copyUnit{rel: "."})
	g, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, c.queue.stop)
	defer stop()
	for range c.queue.workers {
		g.Go(func() error {
			w := treeWorker{treeCopy: c, buf: make([]byte, 128<<10)}
			for {
				unit, ok := c.queue.pop()
				if !ok {
					return context.Cause(ctx)
				}
				if err := w.copy(ctx, unit); err != nil {
					return err
				}
				c.queue.done()
			}
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return c.dressFolders()
}

func (c *treeCopy) dressFolders() error {
	var g errgroup.Group
	g.SetLimit(c.queue.workers)
	for _, f := range c.made {
		g.Go(func() error {
			target := filepath.Join(c.to, f.rel)
			if err := c.dress(target, f.info); err != nil {
				return err
			}
			copyXattrs(target, filepath.Join(c.from, f.rel))
			return nil
		})
	}
	return g.Wait()
}

// dress gives a folder, or something that has no content, its owner, mode and times.
func (c *treeCopy) dress(target string, info os.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.New("no description of a file")
	}
	uid, gid, err := c.owner(st.Uid, st.Gid)
	if err != nil {
		return err
	}
	if err := os.Lchown(target, uid, gid); err != nil {
		return err
	}
	if info.Mode()&fs.ModeSymlink == 0 {
		if err := unix.Chmod(target, c.mode(st.Mode)); err != nil {
			return &os.PathError{Op: "chmod", Path: target, Err: err}
		}
	}
	return setTimespecs(unix.AT_FDCWD, target, c.times(unix.Timespec(st.Atim), unix.Timespec(st.Mtim)))
}

func (c *treeCopy) owner(uid, gid uint32) (int, int, error) {
	u, err := c.opt.Chown(&fscopy.User{UID: int(uid), GID: int(gid)})
	if err != nil {
		return 0, 0, err
	}
	return u.UID, u.GID, nil
}

// mode is the permissions of a copy, with the three bits above them.
func (c *treeCopy) mode(was uint32) uint32 {
	if c.opt.Mode != nil {
		was = uint32(*c.opt.Mode) //nolint:gosec // permissions are few
	}
	return was & 0o7777
}

// times are those of access and of change.
func (c *treeCopy) times(access, change unix.Timespec) []unix.Timespec {
	if c.opt.Utime == nil {
		return []unix.Timespec{access, change}
	}
	t := unix.NsecToTimespec(c.opt.Utime.UnixNano())
	return []unix.Timespec{t, t}
}

// setStatTimes gives a file the times that it had.
func setStatTimes(path string, info os.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.New("no description of a file")
	}
	return setTimespecs(unix.AT_FDCWD, path, []unix.Timespec{unix.Timespec(st.Atim), unix.Timespec(st.Mtim)})
}

func setTimespecs(dir int, path string, t []unix.Timespec) error {
	if err := unix.UtimesNanoAt(dir, path, t, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "utimensat", Path: path, Err: err}
	}
	return nil
}

// copyXattrs copies what extended attributes can be had, as BuildKit does: some belong to
// the host.
func copyXattrs(to, from string) {
	keys, _ := sysx.LListxattr(from)
	for _, key := range keys {
		if value, err := sysx.LGetxattr(from, key); err == nil {
			_ = sysx.LSetxattr(to, key, value, 0)
		}
	}
}

// handsDownACL reports whether what is made in a folder gets access rules from it, which
// would be those of the copy if it had them too early.
func handsDownACL(dir string) bool {
	_, err := sysx.LGetxattr(dir, "system.posix_acl_default")
	return err == nil
}

// excluder tells what an --exclude leaves out. The patterns compile themselves when they
// are first used.
type excluder struct {
	mu       sync.Mutex
	patterns *patternmatcher.PatternMatcher
}

func (e *excluder) match(rel string, parent patternmatcher.MatchInfo) (bool, patternmatcher.MatchInfo, error) {
	if e == nil {
		return false, patternmatcher.MatchInfo{}, nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.patterns.MatchesUsingParentResults(rel, parent)
}
