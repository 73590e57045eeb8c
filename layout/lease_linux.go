package layout

import (
	"os"

	"golang.org/x/sys/unix"
)

// lease is the kernel's word that nobody can write to a file, which it gives as
// long as nobody has it open for writing: who wants to has to wait for a while
// (fcntl(2), F_SETLEASE). It is had for one's own files only, or as root.
type lease struct{ file *os.File }

// newLease takes a lease on f, which must be open for reading only; nil if there
// is none to be had.
func newLease(f *os.File) *lease {
	if f == nil {
		return nil
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK); err != nil {
		return nil
	}
	return &lease{f}
}

// held reports whether nobody could write until now.
func (l *lease) held() bool {
	state, err := unix.FcntlInt(l.file.Fd(), unix.F_GETLEASE, 0)
	return err == nil && state == unix.F_RDLCK
}

// release lets others write again.
func (l *lease) release() {
	if l != nil {
		_, _ = unix.FcntlInt(l.file.Fd(), unix.F_SETLEASE, unix.F_UNLCK) // it may be gone already
	}
}
