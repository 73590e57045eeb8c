package step

import (
	"errors"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/continuity/fs"
	"golang.org/x/sys/unix"
)

// RootDir is a root file system whose content is not trusted: every name in it is resolved by the kernel as if it were
// the root (a symlink or ".." can't lead out of it), and what is done is done to the file descriptor found so.
type RootDir struct {
	FD   int
	Path string // as this process sees it; only to follow symlinks whose targets are still missing
}

// OpenRootDir opens the folder p as a root file system.
func OpenRootDir(p string) (RootDir, error) {
	fd, err := unix.Open(p, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	return RootDir{FD: fd, Path: p}, err
}

// Open resolves name and returns an O_PATH descriptor for it.
func (r RootDir) Open(name string, flags uint64) (int, error) {
	return r.OpenHow(name, unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC | flags, Resolve: unix.RESOLVE_IN_ROOT})
}

// OpenHow opens name as how says, whose Resolve should have unix.RESOLVE_IN_ROOT.
func (r RootDir) OpenHow(name string, how unix.OpenHow) (int, error) {
	name = strings.TrimLeft(path.Clean("/"+name), "/")
	if name == "" {
		name = "."
	}
	for try := 0; ; try++ {
		fd, err := unix.Openat2(r.FD, name, &how)
		// EAGAIN: something was renamed on the way, so the kernel can't vouch for "..".
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) || try > 100 {
			return fd, err
		}
		time.Sleep(time.Millisecond)
	}
}

// Literal is name with all its symlinks followed, also those that point at what does not exist yet.
func (r RootDir) Literal(name string) (string, error) {
	p, err := fs.RootPath(r.Path, name)
	if err != nil {
		return "", err
	}
	return path.Clean("/" + strings.TrimPrefix(p, r.Path)), nil
}

// MkdirAll opens the folder name and makes what is missing of it, 0755 and owned by uid and gid.
func (r RootDir) MkdirAll(name string, uid, gid int) (int, error) {
	fd, err := r.Open(name, unix.O_DIRECTORY)
	if !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	lit, err := r.Literal(name)
	if err != nil {
		return -1, err
	}
	cur, err := r.Open("/", unix.O_DIRECTORY)
	if err != nil {
		return -1, err
	}
	walked := "/"
	for _, part := range strings.Split(strings.Trim(lit, "/"), "/") {
		walked = path.Join(walked, part)
		sub, err := r.Open(walked, unix.O_DIRECTORY)
		if errors.Is(err, unix.ENOENT) {
			sub, err = mkdirOwned(cur, part, uid, gid)
		}
		if cerr := unix.Close(cur); err == nil {
			err = cerr
		}
		if err != nil {
			return -1, err
		}
		cur = sub
	}
	return cur, nil
}

// mkdirOwned makes one folder below dir and opens it.
func mkdirOwned(dir int, name string, uid, gid int) (int, error) {
	err := unix.Mkdirat(dir, name, 0o755)
	made := err == nil
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, err
	}
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil || !made || uid == 0 && gid == 0 {
		return fd, err
	}
	if err := unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// Touch opens name, which may be anything but is made as an empty file, with its folders, if it is missing.
func (r RootDir) Touch(name string) (int, error) {
	fd, err := r.Open(name, 0)
	if !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	lit, err := r.Literal(name)
	if err != nil {
		return -1, err
	}
	dir, err := r.MkdirAll(path.Dir(lit), 0, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(dir) //nolint:errcheck // an O_PATH descriptor holds nothing that could be lost
	file, err := unix.Openat(dir, path.Base(lit), unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_RDONLY|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return -1, err
	}
	return file, nil
}

// Closing closes a descriptor that holds nothing that could be lost, as O_PATH ones and detached mounts do.
func Closing(fd int) { _ = unix.Close(fd) }

// FDPath names a descriptor for calls that take a path only. It goes through /proc as this process sees it.
func FDPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }
