package layout

import (
	"os"

	"golang.org/x/sys/unix"
)

// startWriteback has the kernel begin to write what lies in the page cache, so
// that the sync at the end finds little left to do. It is only a hint, and not
// waited for: where the disk is slower than the network, the call lasts.
func startWriteback(f *os.File, offset, n int64) {
	raw, err := f.SyscallConn() // keeps the descriptor from being used for another file
	if err != nil {
		return
	}
	go func() {
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SyncFileRange(int(fd), offset, n, unix.SYNC_FILE_RANGE_WRITE)
		})
	}()
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
