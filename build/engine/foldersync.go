//go:build linux

package engine

import (
	"context"
	"errors"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/containerd/continuity/sysx"
	"github.com/moby/buildkit/cache/contenthash"
	digest "github.com/opencontainers/go-digest"
	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/wherry-oci/wherry/build/handover"
)

// folderSync makes a copy of a folder equal to it.
type folderSync struct {
	from   Folder
	to     string
	hashes contenthash.CacheContext
	told   func(n int64, last bool)
	chmod  func(path string, mode fs.FileMode) error

	changed []string // what was copied, linked or removed

	mu   sync.Mutex // for hashes
	dirs []*types.Stat
}

// run removes what is gone, makes folders, copies what is new or has changed on all
// cores, links what are further names, and gives folders their times last.
func (s *folderSync) run(ctx context.Context, files *folderFiles, before *seenFolder) error {
	defer s.told(0, true)
	was := make(map[string]mark, len(before.Files))
	for _, f := range before.Files {
		was[f.Path] = f.Mark
	}
	if err := s.remove(files, before); err != nil {
		return err
	}
	var copies, links []folderFile
	for _, f := range files.list {
		switch m, known := was[f.Path]; {
		case f.mode.IsDir():
			if err := s.folder(f); err != nil {
				return s.failed(f.Path, err)
			}
		case known && m == f.Mark && m != (mark{}):
		case f.linked != "":
			links = append(links, f)
		default:
			copies = append(copies, f)
		}
	}
	for _, f := range slices.Concat(copies, links) {
		s.changed = append(s.changed, f.Path)
	}
	if err := s.copyAll(ctx, copies); err != nil {
		return err
	}
	for _, f := range links {
		if err := s.link(f); err != nil {
			return s.failed(f.Path, err)
		}
	}
	for _, d := range slices.Backward(s.dirs) {
		if err := setTimes(filepath.Join(s.to, d.Path), d.ModTime); err != nil {
			return err
		}
	}
	return nil
}

// failed tells the build of what can't be read.
func (s *folderSync) failed(path string, err error) error {
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EIO) {
		s.from.Fail(path, err)
	}
	return err
}

// remove takes away what is no more. What was in a folder goes with it, also where
// something else has its name now.
func (s *folderSync) remove(files *folderFiles, before *seenFolder) error {
	isFolder := make(map[string]bool, len(files.list))
	for _, f := range files.list {
		isFolder[f.Path] = f.mode.IsDir()
	}
	gone := "\x00" // no path begins so
	for _, f := range before.Files {
		folder, there := isFolder[f.Path]
		if folder || strings.HasPrefix(f.Path, gone) {
			continue
		}
		gone = f.Path + "/"
		if there {
			continue
		}
		s.changed = append(s.changed, f.Path)
		if err := os.RemoveAll(filepath.Join(s.to, f.Path)); err != nil {
			return err
		}
		if err := s.hashes.HandleChange(fsutil.ChangeKindDelete, f.Path, nil, nil); err != nil {
			return err
		}
	}
	return nil
}

// describe is what BuildKit's client would tell of a file: root's, whosever it is.
func describe(f folderFile) (*types.Stat, error) {
	info, err := f.entry.Info()
	if err != nil {
		return nil, err
	}
	known, ok := info.Sys().(*types.Stat)
	if !ok {
		return nil, errors.New("no description of a file")
	}
	st := known.Clone()
	st.Uid, st.Gid = 0, 0
	delete(st.Xattrs, handover.SELinuxLabel)
	if f.mode.IsRegular() {
		if st.Linkname = f.linked; f.linked != "" {
			st.Size = 0
		}
	}
	return st, nil
}

func (s *folderSync) folder(f folderFile) error {
	st, err := describe(f)
	if err != nil {
		return err
	}
	path := filepath.Join(s.to, f.Path)
	if info, err := os.Lstat(path); err == nil && !info.IsDir() {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := s.dress(path, st); err != nil {
		return err
	}
	s.dirs = append(s.dirs, st)
	return s.hashed(st, nil)
}

// copyAll copies on all cores.
func (s *folderSync) copyAll(ctx context.Context, list []folderFile) error {
	g, ctx := errgroup.WithContext(ctx)
	work := make(chan folderFile)
	g.Go(func() error {
		defer close(work)
		for _, f := range list {
			select {
			case work <- f:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	for range runtime.GOMAXPROCS(0) {
		g.Go(func() error {
			buf := make([]byte, 256<<10)
			for f := range work {
				if err := s.copyOne(f, buf); err != nil {
					return s.failed(f.Path, err)
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func (s *folderSync) copyOne(f folderFile, buf []byte) error {
	st, err := describe(f)
	if err != nil {
		return err
	}
	path := filepath.Join(s.to, f.Path)
	if f.mode&fs.ModeSymlink != 0 {
		if err := makeAnew(path, func() error { return os.Symlink(st.Linkname, path) }); err != nil {
			return err
		}
		if err := errors.Join(s.dress(path, st), setTimes(path, st.ModTime)); err != nil {
			return err
		}
		return s.hashed(st, nil)
	}
	h, err := contenthash.NewFromStat(st.Clone())
	if err != nil {
		return err
	}
	n, err := s.copyFile(path, filepath.Join(s.from.Dir, f.Path), st, h, buf)
	if err != nil {
		return err
	}
	if err := setTimes(path, st.ModTime); err != nil {
		return err
	}
	s.told(n, false)
	return s.hashed(st, h)
}

// makeAnew makes a file in place of what is there. It is never written into that, which may
// have other names.
func makeAnew(path string, create func() error) error {
	err := create()
	if errors.Is(err, fs.ErrExist) {
		if err = os.RemoveAll(path); err == nil {
			err = create()
		}
	}
	return err
}

// copyFile makes a copy that is dressed, and hashes the content.
func (s *folderSync) copyFile(to, from string, st *types.Stat, h hash.Hash, buf []byte) (n int64, err error) {
	in, err := os.Open(from)
	if err != nil {
		return 0, err
	}
	defer func() { _ = in.Close() }() // only read
	mode := fs.FileMode(st.Mode)
	var out *os.File
	err = makeAnew(to, func() error {
		out, err = os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode.Perm())
		return err
	})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	n, err = io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(out, h)}, struct{ io.Reader }{in}, buf)
	if err != nil || dressed(out, st) {
		return n, err
	}
	return n, s.dress(to, st)
}

// dressed reports whether a new file is as it should be: most are, and to tell is cheaper
// than to set it all again.
func dressed(f *os.File, st *types.Stat) bool {
	info, err := f.Stat()
	if err != nil || len(st.Xattrs) > 0 || info.Mode() != fs.FileMode(st.Mode) {
		return false
	}
	is, ok := info.Sys().(*syscall.Stat_t)
	return ok && is.Uid == st.Uid && is.Gid == st.Gid
}

// dress gives a file its extended attributes, owner and mode. The mode comes after the
// content: the kernel takes a setuid bit away when somebody writes.
func (s *folderSync) dress(path string, st *types.Stat) error {
	for key, value := range st.Xattrs {
		_ = sysx.LSetxattr(path, key, value, 0) // as BuildKit: not every one can be had everywhere
	}
	if err := os.Lchown(path, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	mode := fs.FileMode(st.Mode)
	if mode&fs.ModeSymlink != 0 {
		return nil
	}
	return s.chmod(path, mode)
}

func setTimes(path string, nanoseconds int64) error {
	t := unix.NsecToTimespec(nanoseconds)
	return os.NewSyscallError("utimensat", unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW))
}

func (s *folderSync) link(f folderFile) error {
	st, err := describe(f)
	if err != nil {
		return err
	}
	path := filepath.Join(s.to, f.Path)
	if err := makeAnew(path, func() error { return os.Link(filepath.Join(s.to, f.linked), path) }); err != nil {
		return err
	}
	return s.hashed(st, nil)
}

// hashedInfo is a file's description with the digest of what BuildKit makes of it.
type hashedInfo struct {
	*fsutil.StatInfo
	digest digest.Digest
}

func (i *hashedInfo) Digest() digest.Digest { return i.digest }

// hashed tells the build cache of a new content; h is nil where there is none but the
// description.
func (s *folderSync) hashed(st *types.Stat, h hash.Hash) (err error) {
	if h == nil {
		if h, err = contenthash.NewFromStat(st.Clone()); err != nil {
			return err
		}
	}
	info := &hashedInfo{&fsutil.StatInfo{Stat: st}, digest.NewDigest(digest.SHA256, h)}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hashes.HandleChange(fsutil.ChangeKindAdd, st.Path, info, nil)
}
