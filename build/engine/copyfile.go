//go:build linux

package engine

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// file copies a regular file, or links it to the copy of another name of it.
func (w *treeWorker) file(rel string) (err error) {
	name := filepath.Base(rel)
	in, err := retry(func() (int, error) {
		return unix.Openat(w.src, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return &os.PathError{Op: "open", Path: filepath.Join(w.from, rel), Err: err}
	}
	defer func() { _ = unix.Close(in) }() // only read
	var st unix.Stat_t
	if err := unix.Fstat(in, &st); err != nil {
		return &os.PathError{Op: "stat", Path: filepath.Join(w.from, rel), Err: err}
	}
	if st.Nlink == 1 {
		return w.content(rel, in, &st)
	}
	first, mine := w.firstName(rel, &st)
	if mine {
		first.err = w.content(rel, in, &st)
		close(first.done)
		return first.err
	}
	if <-first.done; first.err != nil {
		return first.err
	}
	return w.create(rel, func() error { return unix.Linkat(unix.AT_FDCWD, first.path, w.dst, name, 0) })
}

// firstName is the copy to link to, or the one that the caller is to make.
func (w *treeWorker) firstName(rel string, st *unix.Stat_t) (first *firstName, mine bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	id := inode{st.Dev, st.Ino}
	if first = w.links[id]; first != nil {
		return first, false
	}
	first = &firstName{path: filepath.Join(w.to, rel), done: make(chan struct{})}
	w.links[id] = first
	return first, true
}

func (w *treeWorker) content(rel string, in int, st *unix.Stat_t) (err error) {
	name, out := filepath.Base(rel), -1
	err = w.create(rel, func() error {
		out, err = retry(func() (int, error) {
			return unix.Openat(w.dst, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, w.mode(st.Mode)&0o777)
		})
		return err
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(out)) }()
	if err := w.fill(out, in, st.Size); err != nil {
		return &os.PathError{Op: "copy", Path: filepath.Join(w.to, rel), Err: err}
	}
	if err := w.dressFile(out, st); err != nil {
		return &os.PathError{Op: "copy", Path: filepath.Join(w.to, rel), Err: err}
	}
	if err := setTimespecs(w.dst, name, w.times(st.Atim, st.Mtim)); err != nil {
		return err
	}
	w.fileXattrs(out, in)
	return nil
}

// fill copies the content, up to the size that it had.
func (w *treeWorker) fill(out, in int, size int64) error {
	for size > 0 {
		n, err := w.part(out, in, int(min(size, 1<<30)))
		if err != nil || n == 0 {
			return err
		}
		size -= int64(n)
	}
	return nil
}

// part copies within the kernel, which shares the blocks where the file system can; and by
// hand where it does not, as from one file system to another.
func (w *treeWorker) part(out, in, size int) (int, error) {
	if !w.noRange.Load() {
		n, err := retry(func() (int, error) { return unix.CopyFileRange(in, nil, out, nil, size, 0) })
		if err == nil {
			return n, nil
		}
		w.noRange.Store(true)
	}
	n, err := retry(func() (int, error) { return unix.Read(in, w.buf[:min(size, len(w.buf))]) })
	for done := 0; err == nil && done < n; {
		var k int
		k, err = retry(func() (int, error) { return unix.Write(out, w.buf[done:n]) })
		done += k
	}
	return n, err
}

// dressFile gives a file its owner and mode, if it has others.
func (w *treeWorker) dressFile(out int, st *unix.Stat_t) error {
	var now unix.Stat_t
	if err := unix.Fstat(out, &now); err != nil {
		return err
	}
	uid, gid, err := w.owner(st.Uid, st.Gid)
	if err != nil {
		return err
	}
	if int(now.Uid) != uid || int(now.Gid) != gid {
		if err := unix.Fchown(out, uid, gid); err != nil {
			return err
		}
		now.Mode &^= unix.S_ISUID | unix.S_ISGID // the kernel takes them away
	}
	if mode := w.mode(st.Mode); now.Mode&0o7777 != mode {
		return unix.Fchmod(out, mode)
	}
	return nil
}

// fileXattrs is copyXattrs for open files.
func (w *treeWorker) fileXattrs(out, in int) {
	list, value := w.buf[:len(w.buf)/2], w.buf[len(w.buf)/2:]
	n, err := unix.Flistxattr(in, list)
	if err != nil || n == 0 {
		return
	}
	for key := range strings.SplitSeq(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00") {
		if size, err := unix.Fgetxattr(in, key, value); err == nil {
			_ = unix.Fsetxattr(out, key, value[:size], 0)
		}
	}
}

// retry repeats a system call that a signal has interrupted.
func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if err != unix.EINTR { //nolint:errorlint // it is an errno
			return n, err
		}
	}
}
