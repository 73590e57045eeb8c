//go:build linux

package handover

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/containerd/continuity/sysx"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// copyTree copies what is in a folder, and the folder's own owner, mode and times, into another one that is empty. Hard
// links among the files stay, and none leads to the original: what a step does to a file never reaches another
// snapshot. Contents are shared where the file system can (reflink), else copied on all cores.
func copyTree(ctx context.Context, to, from string, notes *notes) error {
	entries, err := scan(from, nil)
	if err != nil {
		return err
	}
	first := map[uint64]string{}
	var files, links, dirs []*entry
	for i := range entries {
		e := &entries[i]
		_, copied := first[e.ino]
		switch {
		case e.isDir():
			dirs = append(dirs, e)
			err = os.Mkdir(filepath.Join(to, e.path), 0o700)
		case e.linked() && copied:
			links = append(links, e)
		default:
			first[e.ino] = e.path
			files = append(files, e)
		}
		if err != nil {
			return err
		}
	}
	if err := copyAll(ctx, to, from, files, notes); err != nil {
		return err
	}
	for _, e := range links {
		if err := os.Link(filepath.Join(to, first[e.ino]), filepath.Join(to, e.path)); err != nil {
			return err
		}
	}
	for _, e := range slices.Backward(dirs) { // what was made in a folder has changed its time
		if err := dress(filepath.Join(to, e.path), filepath.Join(from, e.path), e, notes); err != nil {
			return err
		}
	}
	return copyRoot(to, from, notes)
}

func copyAll(ctx context.Context, to, from string, files []*entry, notes *notes) error {
	g, ctx := errgroup.WithContext(ctx)
	work := make(chan *entry)
	g.Go(func() error {
		defer close(work)
		for _, e := range files {
			select {
			case work <- e:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	for range runtime.GOMAXPROCS(0) {
		g.Go(func() error {
			for e := range work {
				if err := copyOne(filepath.Join(to, e.path), filepath.Join(from, e.path), e, notes); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func copyRoot(to, from string, notes *notes) error {
	var st unix.Stat_t
	if err := unix.Lstat(from, &st); err != nil {
		return pathError("lstat", from, err)
	}
	e := entryOf("", &st)
	return dress(to, from, &e, notes)
}

// copyOne copies a file that is no folder.
func copyOne(to, from string, e *entry, notes *notes) error {
	switch e.kind() {
	case unix.S_IFREG:
		if err := copyContent(to, from, e.size); err != nil {
			return err
		}
	case unix.S_IFLNK:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		if err := os.Symlink(target, to); err != nil {
			return err
		}
	case unix.S_IFSOCK: // nobody listens on the copy, nor did on the original when it was committed
		if err := unix.Mknod(to, unix.S_IFSOCK|0o600, 0); err != nil {
			return pathError("mknod", to, err)
		}
	default:
		if err := unix.Mknod(to, e.mode, int(e.rdev)); err != nil {
			return pathError("mknod", to, err)
		}
	}
	return dress(to, from, e, notes)
}

func copyContent(to, from string, size int64) (err error) {
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if size == 0 {
		return nil
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // only read
	if unix.IoctlFileClone(int(out.Fd()), int(in.Fd())) == nil {
		return nil
	}
	_, err = out.ReadFrom(in) // copy_file_range
	return err
}

// dress gives a copy its original's owner, mode, attributes, notes and times, in the order in which none takes another
// away.
func dress(to, from string, e *entry, notes *notes) error {
	if notes == nil {
		if err := os.Lchown(to, int(e.uid), int(e.gid)); err != nil {
			return err
		}
	}
	if err := copyAttributes(to, from); err != nil {
		return err
	}
	if e.kind() != unix.S_IFLNK {
		if err := unix.Chmod(to, e.mode&0o7777); err != nil {
			return pathError("chmod", to, err)
		}
	}
	if err := notes.copyInTable(to, from); err != nil {
		return fmt.Errorf("note the owner of %q: %w", to, err)
	}
	return setTime(to, e.mtime)
}

func copyAttributes(to, from string) error {
	keys, err := sysx.LListxattr(from)
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return pathError("listxattr", from, err)
	}
	for _, key := range keys {
		value, err := sysx.LGetxattr(from, key)
		if err != nil {
			return pathError("getxattr", from, err)
		}
		if err := sysx.LSetxattr(to, key, value, 0); err != nil && !inherited(key) {
			return pathError("setxattr", to, err)
		}
	}
	return nil
}

// SELinuxLabel is the attribute of a file that says where it is rather than what. It is left out of contexts and outputs: it
// would be denied to steps, and make another key for the build cache of each place.
const SELinuxLabel = "security.selinux"

// inherited says that a new file has the attribute of its place, which only the host's policy may change.
func inherited(key string) bool {
	return key == SELinuxLabel || key == "security.ima" || key == "security.evm"
}

func setTime(path string, mtime int64) error {
	t := unix.NsecToTimespec(mtime)
	return pathError("utimensat", path, unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW))
}
