package layout

import (
	"os"

	"golang.org/x/sys/unix"
)

// startWriteback has the kernel begin to write what lies in the page cache, so
// that the sync at the end finds little left to do. It is only a hint.
func startWriteback(f *os.File, offset, n int64) {
	_ = unix.SyncFileRange(int(f.Fd()), offset, n, unix.SYNC_FILE_RANGE_WRITE)
}

// syncData brings a file's content and size to the disk.
func syncData(f *os.File) error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if err != unix.EINTR {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}

// clone makes dst share src's blocks, on file systems that can.
func clone(dst, src *os.File) error {
	return os.NewSyscallError("ficlone", unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())))
}
