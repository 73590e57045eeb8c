package executor

import (
	"errors"
	"path"
	"strings"
	"time"

	"github.com/containerd/continuity/fs"
	"golang.org/x/sys/unix"
)

// rootDir is a root file system whose content is not trusted: every name in it is resolved by the kernel as if it were
// the root (a symlink or ".." can't lead out of it), and what is done is done to the file descriptor found so.
type rootDir struct {
	fd   int
	path string // as this process sees it; only to follow symlinks whose targets are still missing
}

func openRootDir(p string) (rootDir, error) {
	fd, err := unix.Open(p, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	return rootDir{fd: fd, path: p}, err
}

// open resolves name and returns an O_PATH descriptor for it.
func (r rootDir) open(name string, flags uint64) (int, error) {
	return r.openHow(name, unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC | flags, Resolve: unix.RESOLVE_IN_ROOT})
}

func (r rootDir) openHow(name string, how unix.OpenHow) (int, error) {
	name = strings.TrimLeft(path.Clean("/"+name), "/")
	if name == "" {
		name = "."
	}
	for try := 0; ; try++ {
		fd, err := unix.Openat2(r.fd, name, &how)
		// EAGAIN: something was renamed on the way, so the kernel can't vouch for "..".
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) || try > 100 {
			return fd, err
		}
		time.Sleep(time.Millisecond)
	}
}

// literal is name with all its symlinks followed, also those that point at what does not exist yet.
func (r rootDir) literal(name string) (string, error) {
	p, err := fs.RootPath(r.path, name)
	if err != nil {
		return "", err
	}
	return path.Clean("/" + strings.TrimPrefix(p, r.path)), nil
}

// mkdirAll opens the folder name and makes what is missing of it, 0755 and owned by uid and gid.
func (r rootDir) mkdirAll(name string, uid, gid int) (int, error) {
	fd, err := r.open(name, unix.O_DIRECTORY)
	if !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	lit, err := r.literal(name)
	if err != nil {
		return -1, err
	}
	cur, err := r.open("/", unix.O_DIRECTORY)
	if err != nil {
		return -1, err
	}
	walked := "/"
	for _, part := range strings.Split(strings.Trim(lit, "/"), "/") {
		walked = path.Join(walked, part)
		sub, err := r.open(walked, unix.O_DIRECTORY)
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

// touch opens name, which may be anything but is made as an empty file, with its folders, if it is missing.
func (r rootDir) touch(name string) (int, error) {
	fd, err := r.open(name, 0)
	if !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	lit, err := r.literal(name)
	if err != nil {
		return -1, err
	}
	dir, err := r.mkdirAll(path.Dir(lit), 0, 0)
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
